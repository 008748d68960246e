-- KEYS  7 container hash, 8 its slots, 9 session hash
-- returns nothing
-- Frees a slot of a container that its session is no longer bound to.
local bad
if leading then bad = notLeader() else bad = notOwner() end
if bad then return bad end
local c = redis.call('HMGET', CONTAINER, 'phase', 'bootId')
if leading and c[1] and c[1] ~= 'gone' then return refuse('CONFLICT', 'container ' .. containerID .. ' is ' .. c[1]) end
local s = readSession(SESSION, sessionID)
if s and c[1] and c[1] ~= 'gone' and holds(s.phase) and s.container == containerID and s.bootId == c[2] and s.refused == '' then
  return refuse('CONFLICT', 'session ' .. sessionID .. ' is ' .. s.phase .. ' there')
end
freeSlot(sessionID)
return ok()
