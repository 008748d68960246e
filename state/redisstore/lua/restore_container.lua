-- KEYS  7 container hash, 8 its slots, 10 pool
-- ARGV  7 its revision, 8 phase, 9 protocol, 10 ownerSeq, 11 drainSeq, 12 served, 13 tenant,
--       14 ms that it is kept if it is gone, 15 number of slots, then their session ids, then
--       names and values of the fields
-- returns nothing
-- Writes a container back that the store has lost, or knows as it was before. A newer record
-- keeps what it has, but for what never goes down.
local c = redis.call('HMGET', CONTAINER, 'rev', 'ownerSeq', 'drainSeq', 'served', 'tenant')
local stored = tonumber(c[1] or '0')
local first = 16 + tonumber(ARGV[15])
if c[1] and stored >= tonumber(ARGV[7]) and not redis.call('ZSCORE', CONTAINERS, containerID) then
  -- A record that the index lacks is missed again at each look: it is listed, if only to leave.
  redis.call('ZADD', CONTAINERS, c[1], containerID)
  if redis.call('HGET', CONTAINER, 'phase') == 'gone' then
    redis.call('ZADD', LEAVING, text(now + 60000), 'container ' .. containerID)
  end
end
if c[1] and stored == tonumber(ARGV[7]) then return ok() end
if c[1] and stored > tonumber(ARGV[7]) then
  local changes = {}
  local function change(field, value)
    changes[#changes + 1] = field
    changes[#changes + 1] = value
  end
  -- The owner that has registered since is told by being fenced, and goes on under this.
  if tonumber(c[2] or '0') < tonumber(ARGV[10]) then change('ownerSeq', text(tonumber(ARGV[10]) + 1)) end
  if tonumber(c[3] or '0') < tonumber(ARGV[11]) then change('drainSeq', ARGV[11]) end
  if (c[4] or '') == '' and ARGV[12] ~= '' then change('served', ARGV[12]) end
  if (c[5] or '') == '' and ARGV[13] ~= '' then change('tenant', ARGV[13]) end
  if #changes > 0 then saveContainer(unpack(changes)) end
  return ok()
end
redis.call('DEL', SLOTS)
for i = 16, first - 1 do redis.call('SADD', SLOTS, ARGV[i]) end
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
return ok()
