-- KEYS  1 seq, 2 epoch, 3 wake, 4 sessions, 5 containers, 6 leaving,
--       7 container hash, 8 its slots, 9 session hash (the last three may name nothing)
-- ARGV  1 highest seq that the caller has seen, 2 leader's epoch or 0,
--       3 link owner's container or '', 4 its ownerSeq, 5 container id, 6 session id
-- returns {'OK', seq, record...} or {refusal, why}
-- Stands before each script that changes control records: time, authority, revisions, hints.
if redis.replicate_commands then redis.replicate_commands() end

local SEQ, EPOCH, WAKE, SESSIONS, CONTAINERS, LEAVING = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local CONTAINER, SLOTS, SESSION = KEYS[7], KEYS[8], KEYS[9]
local containerID, sessionID = ARGV[5], ARGV[6]

local clock = redis.call('TIME')
local micros = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
local now = math.floor(micros / 1000)
local seq = tonumber(redis.call('GET', SEQ) or '0')
local hints = {}
local stamped = nil

-- text writes a whole number without the exponent that tostring would give it.
local function text(n) return string.format('%.0f', n) end

local function refuse(code, why) return {code, why or ''} end

-- stamp draws the one revision of this run.
local function stamp()
  if not stamped then
    stamped = math.max(seq + 1, micros)
    redis.call('SET', SEQ, text(stamped))
  end
  return text(stamped)
end

local function hint(kind, id)
  hints[#hints + 1] = kind .. ' ' .. stamp() .. ' ' .. id
end

-- ok leaves the hints and gives the answer.
local function ok(...)
  if #hints > 0 then
    redis.call('XADD', WAKE, 'MAXLEN', '~', '10000', '*', 'h', table.concat(hints, '\n'))
  end
  return {'OK', text(stamped or seq), ...}
end

local function sessionRecord() return ok(redis.call('HGETALL', SESSION)) end
local function containerRecord() return ok(redis.call('HGETALL', CONTAINER), redis.call('SMEMBERS', SLOTS)) end

-- keepSession and keepContainer leave no hint: for what is frequent and nobody waits for.
local function keepSession(key, id, ...)
  redis.call('HSET', key, 'rev', stamp(), ...)
  redis.call('ZADD', SESSIONS, stamp(), id)
end

local function keepContainer(...)
  redis.call('HSET', CONTAINER, 'rev', stamp(), ...)
  redis.call('ZADD', CONTAINERS, stamp(), containerID)
end

local function saveSession(key, id, ...)
  keepSession(key, id, ...)
  hint('session', id)
end

local function saveContainer(...)
  keepContainer(...)
  hint('container', containerID)
end

local function freeSlot(id)
  if redis.call('SREM', SLOTS, id) == 1 and redis.call('EXISTS', CONTAINER) == 1 then saveContainer() end
end

local leading = ARGV[3] == ''

-- notLeader gives the refusal of a leader's write, or nil.
local function notLeader()
  local epoch = redis.call('GET', EPOCH) or '0'
  if leading and ARGV[2] ~= '0' and ARGV[2] == epoch then return nil end
  return refuse('FENCED', 'the epoch is ' .. epoch .. ", the write's is " .. ARGV[2])
end

-- notOwner gives the refusal of a link owner's write, or nil.
local function notOwner()
  if leading then return refuse('FENCED', "a link owner's authority is wanted") end
  if ARGV[3] ~= containerID then return refuse('FENCED', 'the owner of ' .. ARGV[3] .. ' spoke') end
  local ownerSeq = redis.call('HGET', CONTAINER, 'ownerSeq')
  if ownerSeq and ownerSeq == ARGV[4] then return nil end
  return refuse('FENCED', "the owner's sequence is " .. (ownerSeq or 'unknown') .. ", the write's is " .. ARGV[4])
end

local function holds(phase) return phase == 'bound' or phase == 'ready' or phase == 'ending' end

-- notHeld gives the refusal of an owner's write about a session that its container does not
-- hold under that binding, or nil.
local function notHeld(s, bindRev)
  local c = redis.call('HMGET', CONTAINER, 'phase', 'bootId')
  if holds(s.phase) and s.container == containerID and s.bootId == c[2] and s.bindRev == bindRev and c[1] ~= 'gone' then
    return nil
  end
  return refuse('CONFLICT', 'session ' .. s.id .. ' is ' .. s.phase .. ', not bound there under binding ' .. bindRev)
end

-- readSession gives what transitions look at, or nil.
local function readSession(key, id)
  local v = redis.call('HMGET', key, 'phase', 'container', 'bootId', 'bindRev', 'refused')
  if not v[1] then return nil end
  return {id = id, phase = v[1], container = v[2] or '', bootId = v[3] or '', bindRev = v[4] or '0', refused = v[5] or ''}
end

if seq < tonumber(ARGV[1]) then return refuse('ROLLEDBACK', 'its revision is ' .. text(seq)) end
