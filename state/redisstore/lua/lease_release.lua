-- KEYS  1 leader
-- ARGV  1 replica, 2 epoch
-- returns {'OK', 1 or 0}
-- Gives the leadership up, if it is the caller's.
if redis.call('GET', KEYS[1]) == ARGV[2] .. ' ' .. ARGV[1] then
  redis.call('DEL', KEYS[1])
  return {'OK', '1'}
end
return {'OK', '0'}
