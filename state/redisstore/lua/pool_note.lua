-- KEYS  as the prelude's, 10 pool
-- ARGV  7… names and values of fields; an empty value removes the field
-- returns nothing
-- Notes what one leader leaves to the next about the pool.
local bad = notLeader()
if bad then return bad end
for i = 7, #ARGV, 2 do
  if ARGV[i + 1] == '' then
    redis.call('HDEL', KEYS[10], ARGV[i])
  else
    redis.call('HSET', KEYS[10], ARGV[i], ARGV[i + 1])
  end
end
return ok()
