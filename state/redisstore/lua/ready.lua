-- KEYS  7 container hash, 9 session hash
-- ARGV  7 bindRev, 8 cold 1 or 0
-- returns the session, and 1 if this run made it ready
-- bound → ready.
local s = readSession(SESSION, sessionID)
if not s then return refuse('NOTFOUND') end
local bad = notOwner() or notHeld(s, ARGV[7])
if bad then return bad end
if s.phase == 'ready' then return sessionRecord() end
if s.phase ~= 'bound' or s.refused ~= '' then return refuse('CONFLICT', 'the session is ' .. s.phase) end
saveSession(SESSION, sessionID, 'phase', 'ready', 'readyAt', text(now), 'lastActivity', text(now), 'cold', ARGV[8])
return ok(redis.call('HGETALL', SESSION), 1)
