-- KEYS  7 container hash (where the caller believes the session to be), 8 its slots, 9 session hash
-- ARGV  7 bindRev, 8 why
-- returns the session; {'ELSEWHERE', container} if it is bound to another container
-- bound → pending: the container is excluded; its slot stays taken until its owner confirms.
local bad = notLeader()
if bad then return bad end
local s = readSession(SESSION, sessionID)
if not s then return refuse('NOTFOUND') end
if s.phase ~= 'bound' or s.bindRev ~= ARGV[7] then
  return refuse('CONFLICT', 'the session is ' .. s.phase .. ' under binding ' .. s.bindRev)
end
if s.container ~= containerID then return refuse('ELSEWHERE', s.container) end
if s.refused ~= '' or redis.call('HGET', CONTAINER, 'phase') == 'gone' then freeSlot(sessionID) end
local excluded = redis.call('HGET', SESSION, 'excluded') or ''
if not string.find(' ' .. excluded .. ' ', ' ' .. containerID .. ' ', 1, true) then
  if excluded ~= '' then excluded = excluded .. ' ' end
  excluded = excluded .. containerID
end
saveSession(SESSION, sessionID, 'phase', 'pending', 'container', '', 'bootId', '', 'refused', '', 'boundAt', '',
  'message', ARGV[8], 'excluded', excluded)
return sessionRecord()
