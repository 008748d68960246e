-- KEYS  1 pool
-- ARGV  1 how far the memory reaches that was given back
-- returns {'OK'}
-- All that a replica remembers is back: whoever knows no more has nothing to add.
if tonumber(redis.call('HGET', KEYS[1], 'givenBack') or '0') < tonumber(ARGV[1]) then
  redis.call('HSET', KEYS[1], 'givenBack', ARGV[1])
end
return {'OK'}
