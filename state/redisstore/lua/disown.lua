-- KEYS  7 container hash
-- returns nothing
-- The owner lets go of its link: its lease ends now.
local c = redis.call('HMGET', CONTAINER, 'ownerUntil', 'letGo')
if not c[1] and not leading then return refuse('NOTFOUND') end
local bad = notOwner()
if bad then return bad end
if c[2] ~= '1' then saveContainer('ownerUntil', text(now), 'letGo', '1') end
return ok()
