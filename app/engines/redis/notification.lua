-- Asks for the right to notify the owner of all messages up to a seq. With it a quiet time begins for all workers.
-- KEYS: room. ARGV: the seq, the quiet time (ms). Returns how long to wait (ms), 0 if the right is given, and up to which
-- seq the owner had been notified.
local room, seq = KEYS[1], tonumber(ARGV[1])
local told, quiet_until = unpack(redis.call('HMGET', room, 'told', 'quiet_until'))
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local wait = math.min(math.max(0, (tonumber(quiet_until) or 0) - now), tonumber(ARGV[2])) -- the clock may have stepped
if wait == 0 and seq > (tonumber(told) or 0) then
  redis.call('HSET', room, 'told', seq, 'quiet_until', now + ARGV[2])
end
return { wait, tonumber(told) or 0 }
