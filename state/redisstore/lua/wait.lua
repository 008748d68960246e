-- KEYS  10… session hashes
-- ARGV  7 ms to add, 8… session ids
-- returns nothing
-- Counts time that pending sessions have waited under a held lease.
local bad = notLeader()
if bad then return bad end
for i = 10, #KEYS do
  local was = redis.call('HMGET', KEYS[i], 'phase', 'waited')
  if was[1] == 'pending' then
    keepSession(KEYS[i], ARGV[i - 2], 'waited', text(tonumber(was[2] or '0') + tonumber(ARGV[7])))
  end
end
return ok()
