-- Copyright The Tokenward Authors.
-- SPDX-License-Identifier: Apache-2.0
--
-- swap replaces a session whose version is the expected one.
-- KEYS: session. ARGV: the format this program writes, the time, the expected version,
-- the new version, when to forget the session, when its tokens are dead, the rest of
-- the record, ms to live.
-- Returns {'swapped', when the session was created}, {'stale', the stored record},
-- {'newer'} for a record in a newer format, or {'none'}.
local raw = redis.call('GET', KEYS[1])
if not raw then
  return {'none'}
end
local format, version, prior, keep, created, revoked =
  string.match(raw, '^([1-9]%d*) (%S+) (%S+) (%-?%d+) %-?%d+ (%-?%d+) (%d+) ')
if not format then
  format = string.match(raw, '^([1-9]%d*) ')
end
if format and tonumber(format) > tonumber(ARGV[1]) then
  return {'newer'}
end
if not version or tonumber(keep) < tonumber(ARGV[2]) then
  return {'none'}
end
-- The client sends a command again when the connection broke before the answer.
if version == ARGV[4] or prior == ARGV[4] then
  return {'swapped', created}
end
if revoked ~= '0' or version ~= ARGV[3] then
  return {'stale', raw}
end
-- A server without memory refuses a script's first write if it is one that may need
-- memory. PEXPIRE is none, and a session that lives must go on.
redis.call('PEXPIRE', KEYS[1], ARGV[8])
local header = table.concat({ARGV[1], ARGV[4], version, ARGV[5], ARGV[6], created, '0', '-'}, ' ')
redis.call('SET', KEYS[1], header .. '\n' .. ARGV[7], 'PX', ARGV[8])
return {'swapped', created}
