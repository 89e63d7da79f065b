"""The steps of the counters as scripts that Redis runs whole; the arithmetic is that of `arithmetic.py`.

`ARGV[1]` is the time in ms, or empty for that of the server. All integers stay below 2**53, which Lua's doubles hold.
"""

from __future__ import annotations

_NOW = """
local now = tonumber(ARGV[1])
if not now then
  local t = redis.call('TIME')
  now = t[1] * 1000 + math.floor(t[2] / 1000)
end
local function whole(n) return string.format('%.0f', n) end
local function level(key, limit)
  local was = redis.call('HMGET', key, 'level', 'at')
  local level = tonumber(was[1]) or 0
  local passed = now - (tonumber(was[2]) or now)
  if passed > 0 then level = level - passed * limit end
  if passed < 0 then redis.call('HSET', key, 'at', whole(now)) end
  return math.max(0, level)
end
local function keep(key, ends)
  redis.call('PEXPIRE', key, whole(math.max(1, tonumber(ends) - now + 259200000)))
end
local function put(key, level, limit, burst)
  redis.call('HSET', key, 'level', whole(level), 'at', whole(now), 'limit', limit, 'burst', burst)
  redis.call('PEXPIRE', key, whole(math.ceil(level / limit) + 60000))
end
"""

#: ARGV: time, id, then for each key kind, amount, limit, burst or flag or term in ms, begin and end in ms.
#: Returns {1 or 0 or -1, time, and for each key: left, ms until it is full or begins anew, ms to wait (-1: never)};
#: -1 first: a window was not that of the server's time, and nothing was done.
TAKE = (
    _NOW
    + """
local out, refused, changes, granted = {1, now}, {0, now}, {}, true
for i, key in ipairs(KEYS) do
  local a = 3 + (i - 1) * 6
  if ARGV[a] == 'w' and (now < tonumber(ARGV[a + 4]) or now >= tonumber(ARGV[a + 5])) then return {-1, now} end
end
for i, key in ipairs(KEYS) do
  local a = 3 + (i - 1) * 6
  local kind, amount, limit, more = ARGV[a], tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2]), tonumber(ARGV[a + 3])
  local left, reset, wait = 0, 0, 0
  local found, found_reset
  if kind == 'r' then
    local used, capacity = level(key, limit), more * 60000
    found, found_reset = math.floor(math.max(0, capacity - used) / 60000), math.ceil(used / limit)
    if amount > more then
      wait = -1
    elseif used + amount * 60000 > capacity then
      wait = math.ceil((used + amount * 60000 - capacity) / limit)
    else
      used = used + amount * 60000
    end
    changes[i] = used
    left, reset = math.floor(math.max(0, capacity - used) / 60000), math.ceil(used / limit)
  elseif kind == 'w' then
    local used, ends = tonumber(redis.call('HGET', key, 'used')) or 0, tonumber(ARGV[a + 5])
    reset = ends - now
    found, found_reset = math.max(0, limit - used), reset
    if used + amount > limit and more == 0 then
      wait = reset
      if amount > limit then wait = -1 end
    else
      used = math.min(used + amount, 4503599627370496)
    end
    changes[i] = used
    left = math.max(0, limit - used)
  else
    redis.call('ZREMRANGEBYSCORE', key, '-inf', whole(now))
    local taken = redis.call('ZCARD', key)
    found, found_reset = math.max(0, limit - taken), more
    if taken >= limit then wait = 1000 else taken = taken + 1 end
    left, reset = math.max(0, limit - taken), more
  end
  if wait ~= 0 then granted = false end
  local at = 3 * i
  out[at], out[at + 1], out[at + 2] = left, reset, wait
  refused[at], refused[at + 1], refused[at + 2] = found, found_reset, wait
end
if not granted then return refused end
for i, key in ipairs(KEYS) do
  local a = 3 + (i - 1) * 6
  if ARGV[a] == 'r' then
    put(key, changes[i], tonumber(ARGV[a + 2]), ARGV[a + 3])
  elseif ARGV[a] == 'w' then
    redis.call('HSET', key, 'used', whole(changes[i]), 'limit', ARGV[a + 2], 'ends', ARGV[a + 5])
    keep(key, ARGV[a + 5])
  else
    redis.call('ZADD', key, whole(now + ARGV[a + 3]), ARGV[2])
    redis.call('PEXPIRE', key, ARGV[a + 3])
  end
end
return out
"""
)

#: ARGV: time, then for each key kind, difference, limit, burst (of a rate) or id (of slots), end in ms.
SETTLE = (
    _NOW
    + """
for i, key in ipairs(KEYS) do
  local a = 2 + (i - 1) * 5
  local difference, limit, burst = tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2]), tonumber(ARGV[a + 3])
  if ARGV[a] == 's' then
    redis.call('ZREM', key, ARGV[a + 3])
  elseif ARGV[a] == 'r' then
    local most = burst + 60 * limit
    local after = level(key, limit) + math.max(-most, math.min(difference, most)) * 60000
    put(key, math.max(0, math.min(after, most * 60000)), limit, ARGV[a + 3])
  else
    local used = (tonumber(redis.call('HGET', key, 'used')) or 0) + difference
    redis.call('HSET', key, 'used', whole(math.max(0, math.min(used, 4503599627370496))),
      'limit', ARGV[a + 2], 'ends', ARGV[a + 4])
    keep(key, ARGV[a + 4])
  end
end
return 1
"""
)

#: ARGV: time, then for each key an id and a term in ms.
RENEW = (
    _NOW
    + """
for i, key in ipairs(KEYS) do
  local id, term = ARGV[2 * i], ARGV[2 * i + 1]
  redis.call('ZADD', key, whole(now + term), id)
  redis.call('PEXPIRE', key, term)
end
return 1
"""
)

#: ARGV: time, then for each key the least that was used, the limit, and the end in ms.
RESTORE = (
    _NOW
    + """
for i, key in ipairs(KEYS) do
  local a = 2 + (i - 1) * 3
  local used = math.max(tonumber(redis.call('HGET', key, 'used')) or 0, tonumber(ARGV[a]))
  redis.call('HSET', key, 'used', whole(used), 'limit', ARGV[a + 1], 'ends', ARGV[a + 2])
  keep(key, ARGV[a + 2])
end
return 1
"""
)

#: ARGV: time. Returns for each key its hash as a list, or for slots the count.
READ = (
    _NOW
    + """
local out = {now}
for i, key in ipairs(KEYS) do
  if redis.call('TYPE', key)['ok'] == 'zset' then
    out[i + 1] = redis.call('ZCOUNT', key, '(' .. whole(now), '+inf')
  else
    out[i + 1] = redis.call('HGETALL', key)
  end
end
return out
"""
)
