-- Copyright The Tokenward Authors.
-- SPDX-License-Identifier: Apache-2.0
--
-- revoke ends a session whatever its version, and says so on the stream.
-- KEYS: session, stream. ARGV: the format this program writes, the time, the new
-- version, when the session was revoked, why, its ID, the time before which a
-- revocation matters to nobody any more, '1' if the stream may have lost it, and when
-- tokens are dead of which the record may not know.
-- Returns {'revoked', the record}, {'newer'} or {'none'}, see swap.
local raw = redis.call('GET', KEYS[1])
if not raw then
  return {'none'}
end
local format, version, keep, forget, created, revoked, reason =
  string.match(raw, '^([1-9]%d*) (%S+) %S+ (%-?%d+) (%-?%d+) (%-?%d+) (%d+) (%S+)\n')
if not format then
  format = string.match(raw, '^([1-9]%d*) ')
end
if format and tonumber(format) > tonumber(ARGV[1]) then
  return {'newer'}
end
if not version or tonumber(keep) < tonumber(ARGV[2]) then
  return {'none'}
end
if revoked ~= '0' and ARGV[8] ~= '1' then
  return {'revoked', raw}
end
-- The body without the claims: only a replay would need them.
local body = string.match(raw, '^[^\n]*\n([^\n]*\n)')
if not body then
  return {'none'}
end
if tonumber(ARGV[9]) > tonumber(forget) then
  forget = ARGV[9]
end
local ttl = math.max(tonumber(forget) - tonumber(ARGV[2]) + 1, 1) * 1000
-- First, as in swap: a revocation must not fail for want of memory.
redis.call('PEXPIRE', KEYS[1], ttl)
if revoked == '0' then
  revoked, reason = ARGV[4], ARGV[5]
  local header = table.concat({ARGV[1], ARGV[3], version, forget, forget, created, revoked, reason}, ' ')
  raw = header .. '\n' .. body
  redis.call('SET', KEYS[1], raw, 'PX', ttl)
end

-- The stream cleans itself from its old end, faster than it grows at the other. Its
-- newest entry stays: it is where most readers are.
local old = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 16)
for i = 1, #old - 1 do
  local fields = {}
  for n = 1, #old[i][2], 2 do
    fields[old[i][2][n]] = old[i][2][n + 1]
  end
  if tonumber(fields.forget or '0') >= tonumber(ARGV[7]) then
    break
  end
  redis.call('XDEL', KEYS[2], old[i][1])
end
local left = redis.call('PTTL', KEYS[2])
redis.call('XADD', KEYS[2], '*', 'id', ARGV[6], 'at', revoked, 'forget', forget, 'reason', reason)
redis.call('PEXPIRE', KEYS[2], math.max(ttl, left))
return {'revoked', raw}
