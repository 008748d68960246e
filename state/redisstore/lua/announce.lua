-- KEYS  as the prelude's, 10 the replica's hash, 11 the addresses of all replicas
-- ARGV  7 replica, 8 address, 9 version, 10 ms for which it counts as alive,
--       11 ms for which an address is remembered
-- returns nothing
-- A replica says that it is there; addresses of which nothing was heard for long are dropped.
redis.call('HSET', KEYS[10], 'addr', ARGV[8], 'version', ARGV[9], 'seenAt', text(now))
redis.call('PEXPIRE', KEYS[10], ARGV[10])
local all = redis.call('HGETALL', KEYS[11])
for i = 1, #all, 2 do
  local seenAt = tonumber(string.match(all[i + 1], '^(%d+) ') or '0')
  if now - seenAt >= tonumber(ARGV[11]) then redis.call('HDEL', KEYS[11], all[i]) end
end
redis.call('HSET', KEYS[11], ARGV[7], text(now) .. ' ' .. ARGV[8] .. ' ' .. ARGV[9])
return ok()
