-- KEYS  7 container hash, 8 its slots
-- ARGV  7 bootId
-- returns the container
-- ready → draining: binding is closed under a new order to drain.
local bad
if leading then bad = notLeader() end
if bad then return bad end
local c = redis.call('HMGET', CONTAINER, 'phase', 'bootId', 'drainSeq', 'closing')
if not c[1] then return refuse('NOTFOUND') end
if not leading then bad = notOwner() end
if bad then return bad end
if c[2] ~= ARGV[7] then return refuse('CONFLICT', 'the container lives as ' .. c[2] .. ', not as ' .. ARGV[7]) end
local closing = '0'
if not leading or c[4] == '1' then closing = '1' end -- the container itself asks
if c[1] == 'draining' then
  if closing ~= (c[4] or '0') then saveContainer('closing', closing) end
  return containerRecord()
end
if c[1] ~= 'ready' then return refuse('CONFLICT', 'the container is ' .. c[1]) end
saveContainer('phase', 'draining', 'closing', closing, 'drainSeq', text(tonumber(c[3] or '0') + 1))
return containerRecord()
