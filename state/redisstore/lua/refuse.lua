-- KEYS  7 container hash, 8 its slots, 9 session hash
-- ARGV  7 bindRev, 8 why
-- returns the session
-- The container cannot serve the session: it stays bound for the leader to see, its slot is free.
local s = readSession(SESSION, sessionID)
if not s then return refuse('NOTFOUND') end
local bad = notOwner() or notHeld(s, ARGV[7])
if bad then return bad end
if s.phase ~= 'bound' then return refuse('CONFLICT', 'the session is ' .. s.phase) end
if s.refused ~= '' then return sessionRecord() end
freeSlot(sessionID)
saveSession(SESSION, sessionID, 'refused', ARGV[8])
return sessionRecord()
