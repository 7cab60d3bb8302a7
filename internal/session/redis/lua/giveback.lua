-- Copyright The Tokenward Authors.
-- SPDX-License-Identifier: Apache-2.0
--
-- giveback undoes one take, of an allowance that is still kept.
-- KEYS: the allowance. ARGV: who asks, ms for an attempt.
local by, interval = ARGV[1], tonumber(ARGV[2])
local moment, writer = string.match(redis.call('GET', KEYS[1]) or '', '^(%d+) (%S+)$')
if not moment or writer == by then
  return 0
end
local left = redis.call('PTTL', KEYS[1]) - interval
if left > 0 then
  redis.call('SET', KEYS[1], string.format('%.0f %s', tonumber(moment) - interval, by), 'PX', string.format('%.0f', left))
else
  redis.call('PEXPIRE', KEYS[1], 0)
end
return 0
