-- KEYS  as the prelude's, 10… testimonies of one container each
-- ARGV  7 ms for which they are kept, then for each: replica, ms of silence, ms of quiet, bootId
-- returns nothing
-- A replica says what it knows of silent containers, in place of what it said before. What
-- others have said long ago is dropped.
for i = 10, #KEYS do
  local said = redis.call('HGETALL', KEYS[i])
  for j = 1, #said, 2 do
    local given = tonumber(string.match(said[j + 1], '^(%d+) ') or '0')
    if now - given >= tonumber(ARGV[7]) then redis.call('HDEL', KEYS[i], said[j]) end
  end
  local at = 8 + (i - 10) * 4
  redis.call('HSET', KEYS[i], ARGV[at], text(now) .. ' ' .. ARGV[at + 1] .. ' ' .. ARGV[at + 2] .. ' ' .. ARGV[at + 3])
  redis.call('PEXPIRE', KEYS[i], ARGV[7])
end
return ok()
