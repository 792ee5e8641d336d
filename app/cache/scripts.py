"""What Redis does in one step. Keys are declared, and those of one call share a hash tag, so that clusters run it too;
of RELEASE, where it is called for one lease.

An entry begins `tc1 VERSION CREATED TTL ` (see `app.cache.entry`), which is all that the scripts read of it. What they
can't read, of whatever type, counts as not there, and is overwritten.

Only who found a lease taken waits to be woken: a wake-up is published where a lease ends before its time, or where a
value comes while one is held.
"""

_PARTS = """
local function parts(entry)
  if type(entry) ~= 'string' then return false end
  local version, created, ttl = string.match(entry, '^tc1 (%d+) ([%d.]+) ([%d.]+) ')
  version, created, ttl = tonumber(version), tonumber(created), tonumber(ttl)
  if not (version and created and ttl) then return false end
  return entry, version, created, ttl
end
local function least(key)
  local floor = redis.pcall('GET', key)
  return type(floor) == 'string' and string.match(floor, '^%d+$') and tonumber(floor) or 0
end
"""

TAKE = (
    _PARTS
    + """
-- KEYS: value, lease, floor. ARGV: token, lease in ms, now, newer than, least version.
-- {'hit', entry}: fresh at now, created after "newer than", not below the least version or the floor.
-- {'won', entry or ''}: the lease is yours. {'lost', entry or '', ms}: another holds it for so long.
-- An entry that comes with won or lost is one to fall back on; it is not below the floor either.
local entry, version, created, ttl = parts(redis.pcall('GET', KEYS[1]))
if entry and version < math.max(tonumber(ARGV[5]), least(KEYS[3])) then entry = false end
if entry and created > tonumber(ARGV[4]) and created + ttl > tonumber(ARGV[3]) then return {'hit', entry} end
if redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) then return {'won', entry or ''} end
local left = redis.call('PTTL', KEYS[2])
if left >= 0 then return {'lost', entry or '', left} end
-- No lease is for ever: this was written by something else, and would never be given back.
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
return {'won', entry or ''}
"""
)

PUT = (
    _PARTS
    + """
-- KEYS: value, lease, floor. ARGV: token or '', version, entry, life in ms, channel, key.
-- 'fenced': the token no longer holds the lease. 'past': something newer is known, by version and then by the time of
-- the load. Else 'stored'. The token's lease is free but where it was fenced.
local wake = false
if ARGV[1] ~= '' then
  if redis.pcall('GET', KEYS[2]) ~= ARGV[1] then return 'fenced' end
  redis.call('DEL', KEYS[2])
  wake = true
end
local version = tonumber(ARGV[2])
local _, _, created = parts(ARGV[3])
local there, stored, loaded = parts(redis.pcall('GET', KEYS[1]))
local answer = 'past'
if version >= least(KEYS[3]) and not (there and (stored > version or (stored == version and loaded > created))) then
  redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
  wake = wake or redis.call('EXISTS', KEYS[2]) == 1
  answer = 'stored'
end
if wake then redis.call('PUBLISH', ARGV[5], ARGV[6]) end
return answer
"""
)

RELEASE = """
-- KEYS: leases. ARGV: channel, then the token and the key of each. Gives back those that are still held.
-- Returns how many were.
local given_back = 0
for number, lease in ipairs(KEYS) do
    if redis.pcall('GET', lease) == ARGV[2 * number] then
        redis.call('DEL', lease)
        redis.call('PUBLISH', ARGV[1], ARGV[2 * number + 1])
        given_back = given_back + 1
    end
end
return given_back
"""

REVOKE = """
-- KEYS: lease. ARGV: channel, key. Ends a lease, whoever holds it. Returns 1 if there was one.
if redis.call('DEL', KEYS[1]) == 0 then return 0 end
redis.call('PUBLISH', ARGV[1], ARGV[2])
return 1
"""

INVALIDATE = (
    _PARTS
    + """
-- KEYS: value, lease, floor. ARGV: version, floor's life in ms, channel, key.
-- Nothing below the version is stored from now on, and what is there goes. Returns 1 if that was news.
local version = tonumber(ARGV[1])
if least(KEYS[3]) >= version then return 0 end
redis.call('SET', KEYS[3], ARGV[1], 'PX', ARGV[2])
local there, stored = parts(redis.pcall('GET', KEYS[1]))
if there and stored >= version then return 0 end
redis.call('DEL', KEYS[1])
if redis.call('DEL', KEYS[2]) == 1 then redis.call('PUBLISH', ARGV[3], ARGV[4]) end
return 1
"""
)

DISCARD = """
-- KEYS: value. ARGV: what was read there. Removes it if it is still that. Returns 1 if it was.
if redis.pcall('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""

NOTE = """
-- KEYS: a word of the cache's own. ARGV: the word.
return redis.call('SET', KEYS[1], ARGV[1])
"""
