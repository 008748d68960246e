-- KEYS  7 container hash, 8 its slots, 10 pool, 11 launch
-- ARGV  7 launch, 8 bootId, 9 protocol, 10 maxSessions, 11 claim, 12 owner, 13 ms of the owner's lease,
--       14 the one protocol that the pool takes, auto, or '' for all, 15 how many former lives are kept
-- returns the container
-- A registration: the same life only moves the link, another life starts over, and there is no way
-- back to a former one. Nobody begins under a launch that was given up: its task is being stopped.
local c = redis.call('HMGET', CONTAINER, 'phase', 'bootId', 'ownerSeq', 'drainSeq', 'former')
if c[1] == 'stopping' or c[1] == 'gone' then return refuse('CONFLICT', 'the container is ' .. c[1]) end
local former = {}
for id in string.gmatch(c[5] or '', '%S+') do
  former[#former + 1] = id
  if id == ARGV[8] then return refuse('CONFLICT', 'the container lives as ' .. c[2] .. ', and ' .. id .. ' is over') end
end
-- That is read off the launch's text: within strings quotes are escaped, and no call of ECS has an outcome.
local launch = not c[2] and ARGV[7] ~= '' and redis.call('GET', KEYS[11])
if launch and string.find(launch, '"outcome":"expired"', 1, true) then return refuse('CONFLICT', 'its launch was given up') end
if c[2] ~= ARGV[8] and ARGV[14] ~= '' then
  local want = ARGV[14]
  if want == 'auto' then want = redis.call('HGET', KEYS[10], 'dialect') or ARGV[9] end
  if want ~= ARGV[9] then
    redis.call('HINCRBY', KEYS[10], 'refused', '1')
    redis.call('HSET', KEYS[10], 'refusedAt', text(now))
    return refuse('DIALECT', want .. ', not ' .. ARGV[9])
  end
  redis.call('HSET', KEYS[10], 'dialect', ARGV[9])
  redis.call('HDEL', KEYS[10], 'refused', 'refusedAt')
end
if c[2] ~= ARGV[8] then
  -- Without a record there are slots only of sessions that were given back without it.
  redis.call(c[2] and 'DEL' or 'PERSIST', SLOTS)
  redis.call('ZREM', LEAVING, 'container ' .. containerID)
  if c[2] then former[#former + 1] = c[2] end
  redis.call('HSET', CONTAINER, 'launch', ARGV[7], 'bootId', ARGV[8], 'protocol', ARGV[9], 'maxSessions', ARGV[10],
    'former', table.concat(former, ' ', math.max(1, #former - tonumber(ARGV[15]) + 1)),
    'phase', 'pending_verification', 'addr', '', 'drainSeq', c[4] or '0', 'drainAck', '0', 'closing', '0', 'health', '',
    'registeredAt', text(now))
end
saveContainer('claimed', ARGV[11], 'owner', ARGV[12], 'ownerSeq', text(tonumber(c[3] or '0') + 1),
  'ownerUntil', text(now + tonumber(ARGV[13])), 'seenAt', text(now), 'letGo', '0')
return containerRecord()
