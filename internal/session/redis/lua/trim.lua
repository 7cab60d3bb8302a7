-- Copyright The Tokenward Authors.
-- SPDX-License-Identifier: Apache-2.0
--
-- trim takes sessions that are gone out of the index.
-- KEYS: index, sessions. ARGV: the sessions' IDs.
-- Returns how many it took out.
local gone = 0
for i = 2, #KEYS do
  if redis.call('PTTL', KEYS[i]) == -2 then
    gone = gone + redis.call('ZREM', KEYS[1], ARGV[i - 1])
  end
end
return gone
