-- KEYS  1 leader, 2 wake
-- ARGV  1 replica, 2 epoch
-- returns {'OK', 1 or 0}
-- Gives the leadership up, if it is the caller's, and hints at it.
if redis.call('GET', KEYS[1]) == ARGV[2] .. ' ' .. ARGV[1] then
  redis.call('DEL', KEYS[1])
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', '10000', '*', 'h', 'lease 0 ')
  return {'OK', '1'}
end
return {'OK', '0'}
