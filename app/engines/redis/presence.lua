-- Keeps the users of all workers. A worker extends its lease by running this; when the lease ends, its users leave.
-- KEYS: room, names, online, workers, leaving, events, turns. ARGV: prefix of a worker's own names, worker, operations
-- as JSON: ["begin"], ["claim", username, session, address, supports_tokens, limit_key], ["release", username] and
-- ["end"]; then the number of the worker's call, the version that it has seen, the times lease, leave delay and hold (ms), up to
-- how many users joins and leaves are announced, the owner's name, how many events to keep.
-- Returns 0 when the worker must begin anew, else version, number of users, 1 if the owner is online, and for each
-- operation false or [username, session] of the user who has the name.
local room, names, online, workers, leaving, events, turns = unpack(KEYS)
local prefix, worker, todo = ARGV[1], ARGV[2], cjson.decode(ARGV[3])
local call, seen = tonumber(ARGV[4]), tonumber(ARGV[5])
local lease, leave_delay, hold, limit = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local before, owner_before = redis.call('SCARD', online), redis.call('SISMEMBER', online, ARGV[10])
local joined, left = {}, {}

local function load(name)
  local entry = redis.call('HGET', names, name)
  return entry and cjson.decode(entry)
end

local function save(name, entry)
  redis.call('HSET', names, name, cjson.encode(entry))
end

-- Takes a name from a worker, which has had no connection under it since `since` (ms).
local function leave(name, who, since)
  local entry = load(name)
  redis.call('SREM', prefix .. who, name)
  if not entry or not entry.workers[who] then
    return
  end
  entry.workers[who] = nil
  if next(entry.workers) == nil then
    redis.call('SREM', online, name)
    redis.call('ZADD', leaving, since + leave_delay, name)
    entry.held = entry.supports_tokens and since + hold or 0
  end
  save(name, entry)
end

-- Takes all names from a worker, and its lease.
local function remove(who, since)
  for _, name in ipairs(redis.call('SMEMBERS', prefix .. who)) do
    leave(name, who, since)
  end
  redis.call('ZREM', workers, who)
  redis.call('HDEL', turns, who)
end

-- Tells whether a newcomer is the user who holds the name: the rule of is_same in engines/presence.py.
local function is_same(entry, session, address, supports_tokens)
  if entry.session == session then
    return true
  end
  return not entry.supports_tokens and entry.address == address and (next(entry.workers) ~= nil or not supports_tokens)
end

local operations = {}

function operations.claim(username, session, address, supports_tokens, limit_key)
  local name = string.lower(username)
  local entry = load(name)
  if entry and not is_same(entry, session, address, supports_tokens) then
    if next(entry.workers) ~= nil or now < entry.held then
      return false
    end
    if entry.present then
      left[#left + 1] = entry.username
    end
    entry = nil
  end
  entry = entry
    or { username = username, session = session, address = address, supports_tokens = supports_tokens, workers = {} }
  if not entry.present then
    entry.present = true
    joined[#joined + 1] = entry.username
  end
  entry.limit_key = limit_key
  entry.workers[worker] = true
  save(name, entry)
  redis.call('SADD', online, name)
  redis.call('SADD', prefix .. worker, name)
  redis.call('ZREM', leaving, name)
  return { entry.username, entry.session }
end

function operations.release(username)
  leave(string.lower(username), worker, now)
  return false
end

-- Forgets what was known of this worker, which claims next the names of all who are connected.
function operations.begin()
  remove(worker, now)
  return false
end

operations['end'] = operations.begin

-- A call that was given up may still come, after those that followed; and Redis may be back with an older state.
local version = tonumber(redis.call('HGET', room, 'version') or 0)
if call <= tonumber(redis.call('HGET', turns, worker) or 0) or version < seen then
  return 0
end

-- The leases. After an outage, in which nobody could keep one alive, and when the clock stepped, all get the time to.
local last = tonumber(redis.call('HGET', room, 'beat') or 0)
redis.call('HSET', room, 'beat', now)
if math.abs(now - last) > lease * 2 / 3 then
  for _, who in ipairs(redis.call('ZRANGE', workers, 0, -1)) do
    redis.call('ZADD', workers, now + lease, who)
  end
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', leaving, now + hold, '+inf')) do
    redis.call('ZADD', leaving, now + hold, name)
  end
end
for _, who in ipairs(redis.call('ZRANGEBYSCORE', workers, '-inf', now)) do
  remove(who, now - lease)
end
local first = todo[1] and todo[1][1]
if first ~= 'begin' and not redis.call('ZSCORE', workers, worker) then
  return 0
end

local replies = {}
for i, operation in ipairs(todo) do
  replies[i] = operations[operation[1]](unpack(operation, 2))
end
if first ~= 'end' then
  redis.call('ZADD', workers, now + lease, worker)
  redis.call('HSET', turns, worker, call)
end

-- Announces users who did not come back, and frees their names, now or when these are not held any more.
for _, name in ipairs(redis.call('ZRANGEBYSCORE', leaving, '-inf', now)) do
  local entry = load(name)
  if entry and entry.present then
    entry.present = false
    left[#left + 1] = entry.username
  end
  if entry and now < entry.held then
    entry.held = math.min(entry.held, now + hold)
    save(name, entry)
    redis.call('ZADD', leaving, entry.held, name)
  else
    redis.call('HDEL', names, name)
    redis.call('ZREM', leaving, name)
  end
end

local count, owner = redis.call('SCARD', online), redis.call('SISMEMBER', online, ARGV[10])
if owner ~= owner_before then
  redis.call('HSET', room, 'told', redis.call('HGET', room, 'seq') or 0) -- no worker notifies of what the owner saw
end
if count ~= before or owner ~= owner_before or #joined + #left > 0 then
  version = redis.call('HINCRBY', room, 'version', 1)
  if count > limit then
    joined, left = {}, {}
  end
  local news = cjson.encode({ joined = joined, left = left })
  local state = { 'version', version, 'count', count, 'owner', owner, 'news', news }
  redis.call('XADD', events, 'MAXLEN', '~', ARGV[11], '*', unpack(state))
end
return { version, count, owner, cjson.encode(replies) }
