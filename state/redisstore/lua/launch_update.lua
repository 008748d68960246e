-- KEYS  7 launch, 8 launches, 9 the container of that id
-- ARGV  5 launch id, 7 its text as the caller has read it, 8 its new text, 9 1 if that gives it up, else 0
-- returns the revision; {'CHANGED'} if the text is another by now
-- Replaces a launch's text by compare-and-set. One whose container is there is not given up: another
-- would be launched beside it, and its task would be stopped. (register.lua refuses the other order.)
local bad = notLeader()
if bad then return bad end
local value = redis.call('GET', KEYS[7])
if not value then return refuse('NOTFOUND') end
if value ~= ARGV[7] then return refuse('CHANGED') end
if ARGV[9] == '1' then
  local phase = redis.call('HGET', KEYS[9], 'phase')
  if phase and phase ~= 'stopping' and phase ~= 'gone' then return refuse('CONFLICT', 'its container is ' .. phase) end
end
if ARGV[8] ~= value then
  redis.call('SET', KEYS[7], ARGV[8])
  redis.call('ZADD', KEYS[8], stamp(), ARGV[5])
  hint('launch', ARGV[5])
end
return ok(redis.call('ZSCORE', KEYS[8], ARGV[5]) or '0')
