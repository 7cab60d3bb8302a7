-- Copyright The Tokenward Authors.
-- SPDX-License-Identifier: Apache-2.0
--
-- create stores a session that is not there yet, and lists it in the index.
-- KEYS: session, index. ARGV: its version, the record, ms to live, its ID, ms to live
-- at most, however often it is refreshed.
-- Returns 'created' or 'exists'.
local raw = redis.call('GET', KEYS[1])
if raw then
  -- The client sends a command again when the connection broke before the answer.
  local version, prior = string.match(raw, '^[1-9]%d* (%S+) (%S+) ')
  if version == ARGV[1] or prior == ARGV[1] then
    return 'created'
  end
  return 'exists'
end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
local left = redis.call('PTTL', KEYS[2])
redis.call('ZADD', KEYS[2], 0, ARGV[4])
redis.call('PEXPIRE', KEYS[2], math.max(tonumber(ARGV[5]), left))
return 'created'
