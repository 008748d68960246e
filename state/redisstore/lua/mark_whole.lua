-- KEYS  10 pool, 11 incarnation
-- ARGV  7 incarnation, 8 ms at which data was lost or ''
-- returns nothing
-- A leader has found that nothing is missing from the store any more.
local bad = notLeader()
if bad then return bad end
if redis.call('GET', KEYS[11]) ~= ARGV[7] or (redis.call('HGET', KEYS[10], 'lostAt') or '') ~= ARGV[8] then
  return refuse('CONFLICT', 'the store has lost data since')
end
redis.call('HSET', KEYS[10], 'whole', ARGV[7])
redis.call('HDEL', KEYS[10], 'lostAt')
hint('all', '')
return ok()
