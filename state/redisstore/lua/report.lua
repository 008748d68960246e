-- KEYS  7 container hash, 8 its slots
-- ARGV  7 bootId, 8 address or '', 9 task ARN or '', 10 drainAck, 11 health, 12 ms of the owner's lease,
--       13 ms of silence after which a report is news
-- returns the container
-- A report through the link: renews the owner's lease, proves the address, acknowledges a drain.
local c = redis.call('HMGET', CONTAINER, 'phase', 'bootId', 'drainSeq', 'drainAck', 'addr', 'taskArn', 'seenAt')
if not c[1] then return refuse('NOTFOUND') end
local bad = notOwner()
if bad then return bad end
if c[2] ~= ARGV[7] then return refuse('CONFLICT', 'the container lives as ' .. c[2] .. ', not as ' .. ARGV[7]) end
if c[1] == 'gone' then return refuse('CONFLICT', 'the container is gone') end
local phase = c[1]
if ARGV[8] ~= '' then
  redis.call('HSET', CONTAINER, 'addr', ARGV[8])
  if phase == 'pending_verification' then phase = 'ready' end
end
if ARGV[9] ~= '' then redis.call('HSET', CONTAINER, 'taskArn', ARGV[9]) end
-- An acknowledgement of an order that was never given proves nothing.
local ack, given = tonumber(ARGV[10]), tonumber(c[4] or '0')
if ack > tonumber(c[3] or '0') or ack < given then ack = given end
local news = phase ~= c[1] or ack ~= given or (ARGV[8] ~= '' and ARGV[8] ~= c[5]) or (ARGV[9] ~= '' and ARGV[9] ~= c[6])
  or now - tonumber(c[7] or '0') > tonumber(ARGV[13])
local save = keepContainer
if news then save = saveContainer end
save('phase', phase, 'drainAck', text(ack), 'health', ARGV[11], 'seenAt', text(now),
  'ownerUntil', text(now + tonumber(ARGV[12])), 'letGo', '0')
return containerRecord()
