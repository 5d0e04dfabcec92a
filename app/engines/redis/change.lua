-- Changes the room, and tells all workers by an entry in the stream, whose id is <seq of the room>-<number of changes>.
-- KEYS: room, stream. ARGV: the stream's epoch, the change as JSON, up to which seq to prune or 0, the old rules, the new
-- rules (both empty when they stay).
-- Returns the entry's id and what it says, which leaves out what was deleted or pruned already. Returns nothing when that
-- leaves nothing, or when the current rules are not the old ones.
local room, stream = KEYS[1], KEYS[2]
local fields = { 'epoch', 'seq', 'pruned', 'pruned_at', 'rules', 'rules_at' }
local epoch, seq, pruned, pruned_at, rules, rules_at = unpack(redis.call('HMGET', room, unpack(fields)))
local prune = tonumber(ARGV[3])
if epoch ~= ARGV[1] then
  return redis.error_reply('the room in Redis is another one now')
elseif ARGV[5] ~= '' and rules ~= ARGV[4] then
  return false
end

if prune > tonumber(pruned) then
  redis.call('XTRIM', stream, 'MINID', ARGV[3] .. '-1') -- what was changed after that message is still told
  redis.call('HSET', room, 'pruned', prune)
end
local news, hidden = cjson.decode(ARGV[2]), {}
for _, message in ipairs(news.hidden or {}) do
  if redis.call('XDEL', stream, string.format('%.0f-0', message[1])) == 1 then -- else another worker was first
    hidden[#hidden + 1] = message
  end
end
news.hidden = #hidden > 0 and hidden or nil
news.pruned = prune > tonumber(pruned) and prune or nil
if next(news) == nil then
  return false
end
local body = cjson.encode(news)
local id = seq .. '-' .. redis.call('HINCRBY', room, 'changes', 1)
redis.call('XADD', stream, id, 'c', body)
if ARGV[5] ~= '' then
  redis.call('XDEL', stream, rules_at or '0-0') -- the newest rules say it all
  redis.call('HSET', room, 'rules', ARGV[5], 'rules_at', id)
elseif news.pruned and not news.hidden then
  redis.call('XDEL', stream, pruned_at or '0-0') -- the same for pruning, of which a large room makes many
  redis.call('HSET', room, 'pruned_at', id)
end
return { id, body }
