-- KEYS  7 container hash, 8 its slots, 9 session hash
-- ARGV  7 bootId, 8 dedicated 1 or 0
-- returns the session
-- pending → bound: leader, session, container and slot are checked and changed together.
local bad = notLeader()
if bad then return bad end
local s = redis.call('HMGET', SESSION, 'phase', 'excluded', 'userId', 'attempts')
if not s[1] then return refuse('NOTFOUND') end
if s[1] ~= 'pending' then return refuse('CONFLICT', 'the session is ' .. s[1]) end
if string.find(' ' .. (s[2] or '') .. ' ', ' ' .. containerID .. ' ', 1, true) then
  return refuse('CONFLICT', 'container ' .. containerID .. ' has failed the session before')
end
local c = redis.call('HMGET', CONTAINER, 'phase', 'bootId', 'maxSessions', 'served', 'tenant')
if not c[1] then return refuse('CONFLICT', 'container ' .. containerID .. ' is unknown') end
if c[1] ~= 'ready' or c[2] ~= ARGV[7] then
  return refuse('CONFLICT', 'container ' .. containerID .. ' is ' .. c[1] .. ' in life ' .. c[2])
end
local user, served, tenant = s[3] or '', c[4] or '', c[5] or ''
if (ARGV[8] == '1' and served ~= '' and served ~= '=' .. user) or (tenant ~= '' and tenant ~= user) then
  return refuse('CONFLICT', 'container ' .. containerID .. ' has served another user')
end
if redis.call('SCARD', SLOTS) >= tonumber(c[3]) then return refuse('FULL', 'container ' .. containerID) end

redis.call('SADD', SLOTS, sessionID)
if served == '' or served == '=' .. user then served = '=' .. user else served = '*' end
if ARGV[8] == '1' then tenant = user end
saveContainer('served', served, 'tenant', tenant)
saveSession(SESSION, sessionID, 'phase', 'bound', 'container', containerID, 'bootId', ARGV[7], 'bindRev', stamp(),
  'attempts', text(tonumber(s[4] or '0') + 1), 'refused', '', 'message', '', 'cold', '0', 'boundAt', text(now))
return sessionRecord()
