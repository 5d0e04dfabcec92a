-- Opens the room: makes it when there is none, and another one when it has not got what a worker has seen in it.
-- KEYS: room. ARGV: prefix, a new epoch, a secret, the worker's epoch, the last seq that it has seen, that message's id
-- if known, the rules that it knows, the number of the last change that it has seen. Returns epoch, secret, seq, up to
-- which seq all are pruned, rules, how many changes there were.
local room, prefix, fresh, known, id = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[5]), ARGV[6]
local epoch = redis.call('HGET', room, 'epoch')
local seq = tonumber(redis.call('HGET', room, 'seq') or 0)
local changes = tonumber(redis.call('HGET', room, 'changes') or 0)

-- Whether the message at the worker's seq is not the one that it has seen there.
local function differs()
  local at = known .. '-0'
  local entry = id ~= '' and redis.call('XRANGE', prefix .. epoch, at, at)[1]
  return entry and not string.find(entry[2][2], id, 1, true)
end

if not epoch then
  redis.call('HSET', room, 'epoch', fresh, 'secret', ARGV[3])
elseif epoch == ARGV[4] and (seq < known or changes < tonumber(ARGV[8]) or differs()) then
  -- The stream may have what the room has not, and its next entry must have a higher number.
  redis.call('HSET', room, 'epoch', fresh, 'changes', math.max(changes, tonumber(ARGV[8])))
  if redis.call('EXISTS', prefix .. epoch) == 1 then
    redis.call('RENAME', prefix .. epoch, prefix .. fresh)
  end
end
redis.call('HSET', room, 'seq', math.max(seq, known)) -- no number is given twice, whatever was lost
redis.call('HSETNX', room, 'pruned', 0)
if (redis.call('HGET', room, 'rules') or '') == '' then
  redis.call('HSET', room, 'rules', ARGV[7]) -- an emptied Redis must not lift a ban
end
return redis.call('HMGET', room, 'epoch', 'secret', 'seq', 'pruned', 'rules', 'changes')
