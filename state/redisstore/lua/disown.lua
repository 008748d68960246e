-- KEYS  7 container hash
-- returns nothing
-- The owner lets go of its link: its lease ends now.
local ownerUntil = redis.call('HGET', CONTAINER, 'ownerUntil')
if not ownerUntil and not leading then return refuse('NOTFOUND') end
local bad = notOwner()
if bad then return bad end
if tonumber(ownerUntil) > now then saveContainer('ownerUntil', text(now)) end
return ok()
