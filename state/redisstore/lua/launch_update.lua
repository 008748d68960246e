-- KEYS  7 launch, 8 launches
-- ARGV  5 launch id, 7 its text as the caller has read it, 8 its new text
-- returns the revision; {'CHANGED'} if the text is another by now
-- Replaces a launch's text by compare-and-set.
local bad = notLeader()
if bad then return bad end
local value = redis.call('GET', KEYS[7])
if not value then return refuse('NOTFOUND') end
if value ~= ARGV[7] then return refuse('CHANGED') end
if ARGV[8] ~= value then
  redis.call('SET', KEYS[7], ARGV[8])
  redis.call('ZADD', KEYS[8], stamp(), ARGV[5])
  hint('launch', ARGV[5])
end
return ok(redis.call('ZSCORE', KEYS[8], ARGV[5]) or '0')
