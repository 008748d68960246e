-- KEYS  7 container hash, 8 its slots, 10 pool
-- ARGV  7 its revision, 8 phase, 9 protocol, 10 ownerSeq, 11 drainSeq, 12 served, 13 tenant,
--       14 ms that it is kept if it is gone, 15 owner, 16 bootId, 17 closing 1 or 0,
--       18 number of slots, then their session ids, then names and values of the fields
-- returns the ids of sessions that have a slot, and none by the record that was given: restore_place
-- decides of them when theirs are back
-- Writes a container back that the store has lost, or knows as it was before. The newer record
-- wins, but for what never goes back.
local c = redis.call('HMGET', CONTAINER, 'rev', 'ownerSeq', 'drainSeq', 'served', 'tenant', 'owner', 'bootId', 'phase', 'closing')
local stored, given = tonumber(c[1] or '0'), tonumber(ARGV[7])
if c[1] and stored >= given and not redis.call('ZSCORE', CONTAINERS, containerID) then
  -- A record that the index lacks is missed again at each look: it is listed, if only to leave.
  redis.call('ZADD', CONTAINERS, c[1], containerID)
  if c[8] == 'gone' then
    redis.call('ZADD', LEAVING, text(now + 60000), 'container ' .. containerID)
  end
end
if c[1] and stored == given then return ok() end

local dropped = {}
if stored < given then
  local first = 19 + tonumber(ARGV[18])
  redis.call((ARGV[8] == 'stopping' or ARGV[8] == 'gone') and 'DEL' or 'PERSIST', SLOTS)
  local named = {}
  for i = 19, first - 1 do named[ARGV[i]] = true end
  for _, id in ipairs(redis.call('SMEMBERS', SLOTS)) do
    if not named[id] then dropped[#dropped + 1] = id end
  end
  for i = 19, first - 1 do redis.call('SADD', SLOTS, ARGV[i]) end
  redis.call('HSET', CONTAINER, 'rev', ARGV[7], unpack(ARGV, first))
  redis.call('ZADD', CONTAINERS, ARGV[7], containerID)
  if ARGV[8] == 'gone' then
    redis.call('PEXPIRE', CONTAINER, ARGV[14])
    redis.call('ZADD', LEAVING, text(now + tonumber(ARGV[14])), 'container ' .. containerID)
  else
    redis.call('PERSIST', CONTAINER)
    redis.call('ZREM', LEAVING, 'container ' .. containerID)
    redis.call('HSETNX', KEYS[10], 'dialect', ARGV[9])
  end
end
if not c[1] then return ok(dropped) end

local function record(ownerSeq, drainSeq, served, tenant, owner, bootId, phase, closing)
  return {ownerSeq = tonumber(ownerSeq or '0'), drainSeq = tonumber(drainSeq or '0'), served = served or '', tenant = tenant or '',
    owner = owner or '', bootId = bootId or '', phase = phase or '', closing = closing == '1'}
end
local newer = record(unpack(c, 2, 9))
local older = record(ARGV[10], ARGV[11], ARGV[12], ARGV[13], ARGV[15], ARGV[16], ARGV[8], ARGV[17])
if stored < given then newer, older = older, newer end

local changes = {}
local function change(field, value)
  changes[#changes + 1] = field
  changes[#changes + 1] = value
end
-- Whoever believes to be the owner under a number that two replicas were given is told by being
-- fenced; the one that the record names goes on under the next.
if newer.ownerSeq < older.ownerSeq or (newer.ownerSeq == older.ownerSeq and newer.owner ~= older.owner) then
  change('ownerSeq', text(older.ownerSeq + 1))
end
local drainSeq = math.max(newer.drainSeq, older.drainSeq)
if newer.served == '' and older.served ~= '' then change('served', older.served) end
if newer.served ~= '' and older.served ~= '' and newer.served ~= older.served and newer.served ~= '*' then change('served', '*') end
if newer.tenant == '' and older.tenant ~= '' then change('tenant', older.tenant) end
if older.phase == 'stopping' and older.bootId == newer.bootId and newer.phase ~= 'stopping' and newer.phase ~= 'gone' then
  -- Its task may have been told to stop. If it has got sessions since, they are left to run as
  -- long as they can; it gets no others.
  if redis.call('SCARD', SLOTS) == 0 then
    change('phase', 'stopping')
  else
    if newer.phase ~= 'draining' then change('phase', 'draining') end
    if not newer.closing then
      change('closing', '1')
      drainSeq = drainSeq + 1
    end
  end
end
if drainSeq ~= newer.drainSeq then change('drainSeq', text(drainSeq)) end
if #changes > 0 then saveContainer(unpack(changes)) end
return ok(dropped)
