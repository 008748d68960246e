-- KEYS  7 container hash, 8 its slots
-- ARGV  7 bootId, 8 ms that the record is kept
-- returns the container
-- any → gone: its slots are free, its sessions are for the leader to end.
local bad = notLeader()
if bad then return bad end
local c = redis.call('HMGET', CONTAINER, 'phase', 'bootId')
if not c[1] then return refuse('NOTFOUND') end
if c[2] ~= ARGV[7] then return refuse('CONFLICT', 'the container lives as ' .. c[2] .. ', not as ' .. ARGV[7]) end
if c[1] == 'gone' then return containerRecord() end
redis.call('DEL', SLOTS)
saveContainer('phase', 'gone')
redis.call('PEXPIRE', CONTAINER, ARGV[8])
redis.call('ZADD', LEAVING, text(now + tonumber(ARGV[8])), 'container ' .. containerID)
return containerRecord()
