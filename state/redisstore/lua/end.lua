-- KEYS  7 container hash (where the caller believes the session to be), 8 its slots, 9 session hash
-- ARGV  7 bindRev or 0, 8 reason, 9 message, 10 confirmed 1 or 0, 11 reason is one of the set 1 or 0,
--       12 ms that it is kept, 13 ms that it is kept past its deadline, 14 ms that it stays listed
-- returns the session; {'ELSEWHERE', container} if another container holds it
-- pending → ended; bound, ready → ending; with confirmed, any of them and ending → ended. What its
-- container has refused is held by nobody, and ends at once like what is pending.
local bad
if leading then bad = notLeader() end
if bad then return bad end
local s = readSession(SESSION, sessionID)
if not s then return refuse('NOTFOUND') end
if not leading then bad = notOwner() or notHeld(s, ARGV[7]) end
if bad then return bad end
if ARGV[7] ~= '0' and ARGV[7] ~= s.bindRev then
  return refuse('CONFLICT', 'the session is under binding ' .. s.bindRev)
end
local confirmed = ARGV[10] == '1'
if s.phase == 'ended' or (s.phase == 'ending' and not confirmed) then
  return refuse('CONFLICT', 'the session is ' .. s.phase)
end
if s.phase ~= 'ending' and ARGV[11] ~= '1' then return refuse('INVALID', 'reason ' .. ARGV[8]) end
local deadline = tonumber(redis.call('HGET', SESSION, 'deadline') or '0')
if leading and s.phase ~= 'ending' and ARGV[8] == 'deadline' and now < deadline then
  return refuse('CONFLICT', 'its deadline is in ' .. text(deadline - now) .. ' ms')
end
if leading and s.phase == 'ready' and ARGV[8] == 'failed' then
  return refuse('CONFLICT', 'the session has become ready')
end
if leading and s.phase == 'bound' and ARGV[8] == 'failed' and ARGV[7] == '0' then
  return refuse('CONFLICT', 'the session has been bound')
end
if holds(s.phase) and s.container ~= containerID then return refuse('ELSEWHERE', s.container) end

if s.phase ~= 'ending' then redis.call('HSET', SESSION, 'reason', ARGV[8], 'message', ARGV[9]) end
if s.phase ~= 'pending' and s.refused == '' and not confirmed then
  saveSession(SESSION, sessionID, 'phase', 'ending')
  return sessionRecord()
end
if s.phase ~= 'pending' then freeSlot(sessionID) end
saveSession(SESSION, sessionID, 'phase', 'ended', 'endedAt', text(now), 'attached', '0', 'graceUntil', '')
redis.call('PEXPIRE', SESSION, text(math.max(tonumber(ARGV[12]), deadline - now + tonumber(ARGV[13]))))
redis.call('ZADD', LEAVING, text(now + tonumber(ARGV[14])), 'session ' .. sessionID)
return sessionRecord()
