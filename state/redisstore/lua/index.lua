-- KEYS  1 seq, 2 incarnation, 3 leaving, 4 sessions, 5 containers, 6 pool
-- ARGV  1 a random name for the store, should it have none
-- returns {'OK', seq, incarnation, time in ms, ms at which data was lost or '', incarnation found whole or '',
--          how far the memory reaches that was given back}
-- What a relist reads first. Takes records out of the index whose time there is up.
if redis.replicate_commands then redis.replicate_commands() end
local clock = redis.call('TIME')
local now = string.format('%.0f', tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000))
redis.call('SETNX', KEYS[2], ARGV[1])
redis.call('SETNX', KEYS[1], '1')
for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now, 'LIMIT', '0', '1000')) do
  local kind, id = string.match(member, '^(%a+) (.*)$')
  if kind == 'session' then redis.call('ZREM', KEYS[4], id) end
  if kind == 'container' then redis.call('ZREM', KEYS[5], id) end
  redis.call('ZREM', KEYS[3], member)
end
return {'OK', redis.call('GET', KEYS[1]), redis.call('GET', KEYS[2]), now,
  redis.call('HGET', KEYS[6], 'lostAt') or '', redis.call('HGET', KEYS[6], 'whole') or '',
  redis.call('HGET', KEYS[6], 'givenBack') or '0'}
