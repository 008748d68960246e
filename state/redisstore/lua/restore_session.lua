-- KEYS  7 hash of the container that it is bound to, 8 its slots, 9 session hash
-- ARGV  7 its revision, 8 phase, 9 bootId, 10 refused, 11 ms that it is kept, 12 ms that it is
--       listed (both 0: for ever), 13 reason, 14 message, 15 user, 16 why it counts as refused if
--       its place is taken, then names and values of the fields
-- returns the sessions of its container, if there are more than it has slots
-- Writes a session back that the store has lost, or knows as it was before. One that was only
-- admitted since gives way to one that holds a slot, and any to one that has ended.
local s = redis.call('HMGET', SESSION, 'rev', 'phase', 'bindRev')
local newer = s[2] and tonumber(s[1] or '0') >= tonumber(ARGV[7])
local over = ARGV[8] == 'ended'
if newer and over and (s[2] == 'bound' or s[2] == 'ready') then
  -- It was bound after its end was forgotten: its container has to let go of it first.
  keepSession(SESSION, sessionID, 'phase', 'ending', 'reason', ARGV[13], 'message', ARGV[14])
  return ok()
end
local newborn = s[2] == 'pending' and (over or ((s[3] or '0') == '0' and holds(ARGV[8])))
if newer and not newborn then
  -- A record that the index lacks is missed again at each look: it is listed, if only to leave.
  if not redis.call('ZSCORE', SESSIONS, sessionID) then
    redis.call('ZADD', SESSIONS, s[1], sessionID)
    if s[2] == 'ended' then redis.call('ZADD', LEAVING, text(now + math.max(60000, tonumber(ARGV[12]))), 'session ' .. sessionID) end
  end
  return ok()
end

local c = redis.call('HMGET', CONTAINER, 'phase', 'bootId', 'maxSessions', 'tenant', 'served')
local hosted = containerID ~= '' and c[1] and c[1] ~= 'gone' and c[2] == ARGV[9]
-- What was only bound takes no place that others were given meanwhile, and is nobody's company in a
-- container that is somebody's own, its own user's too, whatever the tenancy is by now.
local tenant, served = c[4] or '', c[5] or ''
local company = tenant ~= '' and (tenant ~= ARGV[15] or (served ~= '' and served ~= '=' .. tenant))
local crowded = hosted and ARGV[8] == 'bound' and ARGV[10] == '' and redis.call('SISMEMBER', SLOTS, sessionID) == 0
  and (redis.call('SCARD', SLOTS) >= tonumber(c[3] or '0') or company)

local rev = ARGV[7]
if newer or crowded then rev = stamp() end
redis.call('HSET', SESSION, 'rev', rev, unpack(ARGV, 17))
if crowded then redis.call('HSET', SESSION, 'refused', ARGV[16]) end
redis.call('ZADD', SESSIONS, rev, sessionID)
if ARGV[11] ~= '0' then
  redis.call('PEXPIRE', SESSION, ARGV[11])
  redis.call('ZADD', LEAVING, text(now + tonumber(ARGV[12])), 'session ' .. sessionID)
else
  redis.call('PERSIST', SESSION)
  redis.call('ZREM', LEAVING, 'session ' .. sessionID)
end
if containerID == '' then return ok() end
if over or ARGV[10] ~= '' then
  freeSlot(sessionID)
elseif hosted and not crowded and holds(ARGV[8]) and redis.call('SADD', SLOTS, sessionID) == 1 then
  saveContainer()
  if redis.call('SCARD', SLOTS) > tonumber(c[3] or '0') then return ok(redis.call('SMEMBERS', SLOTS)) end
elseif not c[1] and holds(ARGV[8]) then
  -- Its container finds it there when it registers, or is given back; else the session ends as lost.
  redis.call('SADD', SLOTS, sessionID)
  redis.call('EXPIRE', SLOTS, '3600')
end
return ok()
