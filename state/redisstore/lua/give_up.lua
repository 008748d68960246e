-- KEYS  7 container hash, 8 its slots
-- ARGV  7 bootId, 8 ms at which the leader saw it heard last, 9 ms until which it stands that it hangs
-- returns the container
-- ready, draining → stopping although slots are taken: the container hangs. Its slots are free,
-- its sessions are for the leader to end. One that has been heard since does not hang.
local bad = notLeader()
if bad then return bad end
local c = redis.call('HMGET', CONTAINER, 'phase', 'bootId', 'seenAt', 'hungAt')
if not c[1] then return refuse('NOTFOUND') end
if c[2] ~= ARGV[7] then return refuse('CONFLICT', 'the container lives as ' .. c[2] .. ', not as ' .. ARGV[7]) end
if c[1] == 'stopping' and (c[4] or '') ~= '' then return containerRecord() end
if c[1] ~= 'ready' and c[1] ~= 'draining' then return refuse('CONFLICT', 'the container is ' .. c[1]) end
local seenAt = tonumber(c[3] or '') or 0
if seenAt > tonumber(ARGV[8]) then
  return refuse('CONFLICT', 'the container was heard ' .. text(now - seenAt) .. ' ms ago')
end
if now > tonumber(ARGV[9]) then
  return refuse('CONFLICT', 'that the container hangs was good until ' .. text(now - tonumber(ARGV[9])) .. ' ms ago')
end
redis.call('DEL', SLOTS)
saveContainer('phase', 'stopping', 'hungAt', text(now))
return containerRecord()
