-- KEYS  7 container hash, 8 its slots
-- ARGV  7 bootId
-- returns the container
-- draining → stopping, the point of no return: the order is acknowledged and no slot is taken.
-- pending_verification → stopping: nothing was ever bound to this life.
local bad = notLeader()
if bad then return bad end
local c = redis.call('HMGET', CONTAINER, 'phase', 'bootId', 'drainSeq', 'drainAck')
if not c[1] then return refuse('NOTFOUND') end
if c[2] ~= ARGV[7] then return refuse('CONFLICT', 'the container lives as ' .. c[2] .. ', not as ' .. ARGV[7]) end
if c[1] == 'stopping' then return containerRecord() end
if c[1] ~= 'draining' and c[1] ~= 'pending_verification' then return refuse('CONFLICT', 'the container is ' .. c[1]) end
if c[1] == 'draining' and (c[3] or '0') ~= (c[4] or '0') then
  return refuse('CONFLICT', 'the order to drain is ' .. (c[3] or '0') .. ', acknowledged is ' .. (c[4] or '0'))
end
local used = redis.call('SCARD', SLOTS)
if used > 0 then return refuse('CONFLICT', text(used) .. ' slots are taken') end
saveContainer('phase', 'stopping')
return containerRecord()
