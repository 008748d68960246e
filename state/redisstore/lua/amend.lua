-- KEYS  9 session hash
-- ARGV  7 spec or '', 8 keepAlive 1 or 0, 9 ms to the deadline
-- returns the session
-- Changes what a requester may change of a live session.
local bad = notLeader()
if bad then return bad end
local phase = redis.call('HGET', SESSION, 'phase')
if not phase then return refuse('NOTFOUND') end
if phase == 'ending' or phase == 'ended' then return refuse('CONFLICT', 'the session is ' .. phase) end
if ARGV[7] ~= '' then redis.call('HSET', SESSION, 'spec', ARGV[7]) end
saveSession(SESSION, sessionID, 'keepAlive', ARGV[8], 'deadline', text(now + tonumber(ARGV[9])))
return sessionRecord()
