-- KEYS  7 launch, 8 launches
-- ARGV  5 launch id
-- returns nothing
-- Removes a launch.
local bad = notLeader()
if bad then return bad end
local gone = redis.call('DEL', KEYS[7])
if redis.call('ZREM', KEYS[8], ARGV[5]) + gone > 0 then hint('launch', ARGV[5]) end
return ok()
