-- Who is here, over all workers. A worker holds a lease and keeps it alive by running this; when it dies, its users leave.
-- KEYS: room, names, online, workers, leaving, events. ARGV: prefix of a worker's own names, worker, 'new' for a worker
-- that begins, the times lease, leave delay and hold (ms), announce limit, how many events to keep, and operations as
-- JSON: ["claim", username, session, address, provable], ["release", username, session], ["end"].
-- Returns 0 when the lease is lost, else version, number of users, and for each operation false or [username, session].
local room, names, online, workers, leaving, events = unpack(KEYS)
local prefix, worker = ARGV[1], ARGV[2]
local lease, leave_delay, hold, limit = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local before = redis.call('SCARD', online)
local joined, left = {}, {}

local function load(name)
  local entry = redis.call('HGET', names, name)
  return entry and cjson.decode(entry)
end

local function save(name, entry)
  redis.call('HSET', names, name, cjson.encode(entry))
end

-- A worker has no connection under a name any more, since `since`.
local function depart(name, who, since)
  local entry = load(name)
  redis.call('SREM', prefix .. who, name)
  if not entry or not entry.workers[who] then
    return
  end
  entry.workers[who] = nil
  if next(entry.workers) == nil then
    redis.call('SREM', online, name)
    redis.call('ZADD', leaving, since + leave_delay, name)
    entry.held = entry.provable and since + hold or 0
  end
  save(name, entry)
end

local function bury(who, since)
  for _, name in ipairs(redis.call('SMEMBERS', prefix .. who)) do
    depart(name, who, since)
  end
  redis.call('ZREM', workers, who)
end

local function is_same(entry, session, address, provable)
  if entry.session == session then
    return true
  end
  return not entry.provable and entry.address == address and (next(entry.workers) ~= nil or not provable)
end

local operations = {}

function operations.claim(username, session, address, provable)
  local name = string.lower(username)
  local entry = load(name)
  if entry and not is_same(entry, session, address, provable) then
    if next(entry.workers) ~= nil or now < entry.held then
      return false
    end
    if entry.present then
      left[#left + 1] = entry.username
    end
    entry = nil
  end
  entry = entry or { username = username, session = session, address = address, provable = provable, workers = {} }
  if not entry.present then
    entry.present = true
    joined[#joined + 1] = entry.username
  end
  entry.workers[worker] = true
  save(name, entry)
  redis.call('SADD', online, name)
  redis.call('SADD', prefix .. worker, name)
  redis.call('ZREM', leaving, name)
  return { entry.username, entry.session }
end

function operations.release(username, session)
  local name = string.lower(username)
  local entry = load(name)
  if entry and entry.session == session then
    depart(name, worker, now)
  end
  return false
end

operations['end'] = function()
  bury(worker, now)
  return false
end

-- The leases. After an outage, in which nobody could keep one alive, all get the time to.
local last = tonumber(redis.call('HGET', room, 'beat') or 0)
redis.call('HSET', room, 'beat', now)
if now - last > lease / 2 then
  for _, who in ipairs(redis.call('ZRANGE', workers, 0, -1)) do
    redis.call('ZADD', workers, now + lease, who)
  end
end
for _, who in ipairs(redis.call('ZRANGEBYSCORE', workers, '-inf', now)) do
  bury(who, now - lease)
end
if ARGV[3] ~= 'new' and not redis.call('ZSCORE', workers, worker) then
  return 0
end
redis.call('ZADD', workers, now + lease, worker)

local replies = {}
for i, operation in ipairs(cjson.decode(ARGV[9])) do
  replies[i] = operations[operation[1]](unpack(operation, 2))
end

-- Who did not come back: first the others learn it, then, unless the name is still held, it is free.
for _, name in ipairs(redis.call('ZRANGEBYSCORE', leaving, '-inf', now)) do
  local entry = load(name)
  if entry and entry.present then
    entry.present = false
    left[#left + 1] = entry.username
  end
  if entry and now < entry.held then
    save(name, entry)
    redis.call('ZADD', leaving, entry.held, name)
  else
    redis.call('HDEL', names, name)
    redis.call('ZREM', leaving, name)
  end
end

local count = redis.call('SCARD', online)
local version = redis.call('HGET', room, 'version') or 0
if count ~= before or #joined + #left > 0 then
  version = redis.call('HINCRBY', room, 'version', 1)
  if count > limit then
    joined, left = {}, {}
  end
  local news = cjson.encode({ joined = joined, left = left })
  redis.call('XADD', events, 'MAXLEN', '~', ARGV[8], '*', 'version', version, 'count', count, 'news', news)
end
return { tonumber(version), count, cjson.encode(replies) }
