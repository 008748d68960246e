-- KEYS  1 document, 2 wake (absent on a cluster, where it is in another slot)
-- ARGV  1 text as the caller has read it, 2 new text, 3 ms to live or 0 to leave them, 4 hint
-- returns {'OK'}, {'NOTFOUND'} or {'CHANGED'}
-- Replaces a document by compare-and-set. The text is compared, never parsed.
local value = redis.pcall('GET', KEYS[1])
if not value then return {'NOTFOUND'} end
if type(value) == 'table' or value ~= ARGV[1] then return {'CHANGED'} end
if ARGV[3] == '0' then
  redis.call('SET', KEYS[1], ARGV[2], 'KEEPTTL')
else
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end
if KEYS[2] then redis.call('XADD', KEYS[2], 'MAXLEN', '~', '10000', '*', 'h', ARGV[4]) end
return {'OK'}
