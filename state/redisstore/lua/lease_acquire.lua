-- KEYS  1 leader, 2 epoch
-- ARGV  1 replica, 2 ms that the lease lasts, 3 the highest epoch that the replica was ever given
-- returns {'OK', epoch} or {'CONFLICT', holder}
-- Takes or renews the leadership. A new holder gets an epoch above all before it. A lease of the
-- replica's own under a lower epoch than it has had comes from before data was lost: it gets another.
if redis.replicate_commands then redis.replicate_commands() end
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local highest = redis.call('GET', KEYS[2]) or '0'
local held = redis.call('GET', KEYS[1])
if held then
  local epoch, holder = string.match(held, '^(%d+) (.*)$')
  if holder and holder ~= ARGV[1] then return {'CONFLICT', holder} end
  if epoch == highest and tonumber(epoch) >= tonumber(ARGV[3]) then
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
    return {'OK', epoch}
  end
end
local epoch = string.format('%.0f', math.max(tonumber(highest) + 1, tonumber(ARGV[3]) + 1, now))
redis.call('SET', KEYS[2], epoch)
redis.call('SET', KEYS[1], epoch .. ' ' .. ARGV[1], 'PX', ARGV[2])
return {'OK', epoch}
