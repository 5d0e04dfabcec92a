-- Stores drafts, each once, however often it is sent.
-- KEYS: room, stream. ARGV: the stream's epoch, the last seq that the worker has seen, prefix of marks, how many
-- messages to keep, then for each draft its mark, for how many seconds to remember it, and its body.
-- Returns for each draft what its mark stands for: '<seq> <body>', the body left out when it is the draft's own.
local room, stream, marks = KEYS[1], KEYS[2], ARGV[3]
local epoch, last = unpack(redis.call('HMGET', room, 'epoch', 'seq'))
if epoch ~= ARGV[1] or tonumber(last or 0) < tonumber(ARGV[2]) then
  return redis.error_reply('the room in Redis is another one now')
end

local replies = {}
for i = 5, #ARGV, 3 do
  local mark, body = marks .. ARGV[i], ARGV[i + 2]
  local stored = redis.call('GET', mark)
  if not stored then
    local seq = redis.call('HINCRBY', room, 'seq', 1)
    redis.call('XADD', stream, 'MAXLEN', '~', ARGV[4], seq .. '-0', 'm', body)
    redis.call('SET', mark, seq .. ' ' .. body, 'EX', ARGV[i + 1])
    stored = tostring(seq)
  end
  replies[#replies + 1] = stored
end
if #replies == 0 then
  redis.call('HINCRBY', room, 'probes', 1) -- nothing but a write tells that writing works
end
return replies
