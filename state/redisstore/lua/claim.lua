-- KEYS  7 container hash, 8 its slots
-- ARGV  7 ownerSeq that the claimant has seen, 8 claimant, 9 ms of the owner's lease,
--       10 '1' if the owner does not answer at its address
-- returns the container
-- Another replica takes a link over whose owner has let go or is dead.
local c = redis.call('HMGET', CONTAINER, 'phase', 'ownerSeq', 'ownerUntil', 'letGo')
if not c[1] then return refuse('NOTFOUND') end
if c[1] == 'gone' then return refuse('CONFLICT', 'the container is gone') end
if c[2] ~= ARGV[7] then
  return refuse('CONFLICT', "the owner's sequence is " .. (c[2] or 'unknown') .. ', not ' .. ARGV[7])
end
if tonumber(c[3] or '0') > now then return refuse('CONFLICT', "the owner's lease has not run out") end
if c[4] ~= '1' and ARGV[10] ~= '1' then return refuse('CONFLICT', 'the owner has not let go') end
saveContainer('owner', ARGV[8], 'ownerSeq', text(tonumber(c[2]) + 1), 'ownerUntil', text(now + tonumber(ARGV[9])),
  'letGo', '0')
return containerRecord()
