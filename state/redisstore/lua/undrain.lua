-- KEYS  7 container hash, 8 its slots
-- ARGV  7 bootId
-- returns the container
-- draining → ready: binding is open again.
local bad = notLeader()
if bad then return bad end
local c = redis.call('HMGET', CONTAINER, 'phase', 'bootId', 'closing')
if not c[1] then return refuse('NOTFOUND') end
if c[2] ~= ARGV[7] then return refuse('CONFLICT', 'the container lives as ' .. c[2] .. ', not as ' .. ARGV[7]) end
if c[1] == 'ready' then return containerRecord() end
if c[3] == '1' then return refuse('CONFLICT', 'the container is closing by itself') end
if c[1] ~= 'draining' then return refuse('CONFLICT', 'the container is ' .. c[1]) end
saveContainer('phase', 'ready')
return containerRecord()
