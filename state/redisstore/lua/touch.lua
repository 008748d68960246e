-- KEYS  7 container hash, 10… session hashes
-- ARGV  7 ms of change worth a write, then for each session: id, bindRev, attached,
--       connected 1 or 0, ms idle, ms of grace left or ''
-- returns nothing
-- Records what a container reports of its clients. Sessions that it does not hold are skipped.
local bad = notOwner()
if bad then return bad end
local grain = tonumber(ARGV[7])
for i = 10, #KEYS do
  local at = 8 + (i - 10) * 6
  local id = ARGV[at]
  local s = readSession(KEYS[i], id)
  if s and not notHeld(s, ARGV[at + 1]) then
    local was = redis.call('HMGET', KEYS[i], 'attached', 'firstConnectAt', 'lastActivity', 'graceUntil')
    local changes = {}
    local function change(field, value)
      changes[#changes + 1] = field
      changes[#changes + 1] = value
    end
    if (was[1] or '0') ~= ARGV[at + 2] then change('attached', ARGV[at + 2]) end
    if ARGV[at + 3] == '1' and (was[2] or '') == '' then change('firstConnectAt', text(now)) end
    local active = now - tonumber(ARGV[at + 4])
    if active - (tonumber(was[3] or '') or 0) >= grain then change('lastActivity', text(active)) end
    local grace = was[4] or ''
    if ARGV[at + 5] == '' then
      if grace ~= '' then change('graceUntil', '') end
    else
      local till = now + tonumber(ARGV[at + 5])
      if grace == '' or math.abs(till - tonumber(grace)) >= grain then change('graceUntil', text(till)) end
    end
    if #changes > 0 then keepSession(KEYS[i], id, unpack(changes)) end
  end
end
return ok()
