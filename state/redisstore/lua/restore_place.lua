-- KEYS  7 container hash, 8 its slots, 9 session hash
-- ARGV  7 why the session counts as refused if its place is taken, 8 1 if the container's record, which
--       was given back, does not have the slot, else 0
-- returns the sessions of the container, if there are more than it has slots
-- Sees to it, once records were written back, that a session which is bound to a container has a
-- slot there, and that one which is only bound gives way where there are too many.
local c = redis.call('HMGET', CONTAINER, 'phase', 'bootId', 'maxSessions', 'tenant', 'served')
if not c[1] or c[1] == 'stopping' or c[1] == 'gone' then return ok() end
local max, dropped, tenant, served = tonumber(c[3] or '0'), ARGV[8] == '1', c[4] or '', c[5] or ''
local s = readSession(SESSION, sessionID)
if not s or not holds(s.phase) or s.container ~= containerID or s.bootId ~= c[2] or s.refused ~= '' then
  if dropped then freeSlot(sessionID) end
elseif s.phase == 'bound' and (redis.call('SCARD', SLOTS) > max
  or dropped and tenant ~= '' and (tenant ~= redis.call('HGET', SESSION, 'userId') or (served ~= '' and served ~= '=' .. tenant))) then
  saveSession(SESSION, sessionID, 'refused', ARGV[7])
  freeSlot(sessionID)
elseif dropped then
  saveContainer() -- the record is no more what was given
end
if redis.call('SCARD', SLOTS) > max then return ok(redis.call('SMEMBERS', SLOTS)) end
return ok()
