-- KEYS  as the prelude's, 10 pool, 11… the hashes of all containers that the caller has seen
-- returns nothing
-- Takes the pool's dialect out of force, if the pool is empty: the containers in the index are
-- those that the caller names, and they are all gone.
local bad = notLeader()
if bad then return bad end
if redis.call('ZCARD', CONTAINERS) ~= #KEYS - 10 then return refuse('CONFLICT', 'the index of containers has changed') end
for i = 11, #KEYS do
  local phase = redis.call('HGET', KEYS[i], 'phase')
  if phase and phase ~= 'gone' then return refuse('CONFLICT', 'a container is ' .. phase) end
end
redis.call('HDEL', KEYS[10], 'dialect', 'refused', 'refusedAt')
return ok()
