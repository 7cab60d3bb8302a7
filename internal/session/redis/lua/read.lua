-- Copyright The Tokenward Authors.
-- SPDX-License-Identifier: Apache-2.0
--
-- read returns the stream's entries after one that was read before.
-- KEYS: stream. ARGV: the ID of that entry, or '0-0'; how many entries at most.
-- Returns {1 if that entry is not there any more and the answer begins at the
-- oldest, else 0; the entries}.
local after, lost = ARGV[1], 0
if after ~= '0-0' and #redis.call('XRANGE', KEYS[1], after, after) == 0 then
  after, lost = '0-0', 1
end
local found = redis.call('XREAD', 'COUNT', ARGV[2], 'STREAMS', KEYS[1], after)
if not found then
  return {lost, {}}
end
return {lost, found[1][2]}
