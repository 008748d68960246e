-- KEYS  7 container hash of the same id (not looked at), 10 launch, 11 launches
-- ARGV  5 launch id, 7 its revision, 8 its text
-- returns nothing
-- Writes a launch back that the store has lost, or knows as it was before.
local rev = redis.call('ZSCORE', KEYS[11], ARGV[5])
if rev and tonumber(rev) >= tonumber(ARGV[7]) and redis.call('EXISTS', KEYS[10]) == 1 then return ok() end
redis.call('SET', KEYS[10], ARGV[8])
redis.call('ZADD', KEYS[11], ARGV[7], ARGV[5])
return ok()
