-- KEYS  9 session hash
-- ARGV  7 spec, 8 origin, 9 userId, 10 keepAlive 1 or 0, 11 ms to the deadline,
--       12 ms that an ended session is kept, 13 ms that it is kept past its deadline
-- returns the session
-- none → pending. An ended id is never reborn: asking again keeps its memory for longer.
local bad = notLeader()
if bad then return bad end
local phase = redis.call('HGET', SESSION, 'phase')
if phase then
  if phase == 'ended' then
    local keep = math.max(tonumber(ARGV[12]), tonumber(ARGV[11]) + tonumber(ARGV[13]))
    if redis.call('PTTL', SESSION) < keep then redis.call('PEXPIRE', SESSION, text(keep)) end
  end
  return refuse('EXISTS')
end
redis.call('ZREM', LEAVING, 'session ' .. sessionID)
saveSession(SESSION, sessionID, 'spec', ARGV[7], 'origin', ARGV[8], 'userId', ARGV[9], 'keepAlive', ARGV[10],
  'phase', 'pending', 'deadline', text(now + tonumber(ARGV[11])), 'seenAt', text(now))
return sessionRecord()
