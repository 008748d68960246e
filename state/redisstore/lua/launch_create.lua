-- KEYS  7 launch, 8 launches
-- ARGV  5 launch id, 7 the rest of its JSON object after createdAt
-- returns the launch's text and its revision
-- Stores a new launch, before the call is made. The text is put together, never parsed.
local bad = notLeader()
if bad then return bad end
if redis.call('EXISTS', KEYS[7]) == 1 then return refuse('EXISTS') end
local value = '{"createdAt":' .. text(now) .. ',' .. ARGV[7]
redis.call('SET', KEYS[7], value)
redis.call('ZADD', KEYS[8], stamp(), ARGV[5])
hint('launch', ARGV[5])
return ok(value, stamp())
