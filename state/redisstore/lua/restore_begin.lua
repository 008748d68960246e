-- KEYS  1 seq, 2 pool, 3 incarnation
-- ARGV  1 the highest revision that the caller has seen, 2 a random name for the store, should it have none
-- returns {'OK', seq, time in ms}
-- The store has lost data: its revisions go on above what was seen, and until a leader says
-- otherwise something may be missing.
if redis.replicate_commands then redis.replicate_commands() end
local clock = redis.call('TIME')
local now = string.format('%.0f', tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000))
redis.call('SETNX', KEYS[3], ARGV[2])
if tonumber(redis.call('GET', KEYS[1]) or '0') < tonumber(ARGV[1]) then redis.call('SET', KEYS[1], ARGV[1]) end
redis.call('HSET', KEYS[2], 'lostAt', now)
redis.call('HDEL', KEYS[2], 'whole')
return {'OK', redis.call('GET', KEYS[1]), now}
