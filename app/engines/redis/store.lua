-- Stores drafts, each once, however often it is sent.
-- KEYS: room, stream. ARGV: the stream's epoch, the last seq that the worker has seen, prefix of nonce keys, then for each
-- draft its id, its nonce key, for how many seconds to remember it, and its body.
-- Returns for each draft seq, id and body of the message that its nonce key stands for; the body empty when the message is
-- gone, and when it is the draft itself, just stored.
local room, stream, prefix = KEYS[1], KEYS[2], ARGV[3]
local epoch, last = unpack(redis.call('HMGET', room, 'epoch', 'seq'))
if epoch ~= ARGV[1] or tonumber(last or 0) < tonumber(ARGV[2]) then
  return redis.error_reply('the room in Redis is another one now')
end

local replies = {}
for i = 4, #ARGV, 4 do
  local id, nonce_key, body = ARGV[i], prefix .. ARGV[i + 1], ARGV[i + 3]
  local known = redis.call('GET', nonce_key)
  if known then
    local seq, by = string.match(known, '(%d+) (%S+)')
    local entry = redis.call('XRANGE', stream, seq .. '-0', seq .. '-0')[1]
    replies[#replies + 1] = { seq, by, entry and entry[2][2] or '' }
  else
    local seq = redis.call('HINCRBY', room, 'seq', 1)
    redis.call('XADD', stream, seq .. '-0', 'm', body)
    redis.call('SET', nonce_key, seq .. ' ' .. id, 'EX', ARGV[i + 2])
    replies[#replies + 1] = { tostring(seq), id, '' }
  end
end
if #replies == 0 then
  redis.call('HINCRBY', room, 'probes', 1) -- nothing but a write tells that writing works
end
return replies
