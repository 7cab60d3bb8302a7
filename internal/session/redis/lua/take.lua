-- Copyright The Tokenward Authors.
-- SPDX-License-Identifier: Apache-2.0
--
-- take takes one attempt out of an allowance (attempts.Limit.Take). A value is the
-- moment at which the allowance is whole again, in ms, and who wrote it.
-- KEYS: the allowance. ARGV: who asks, the time, when an allowance that is used up now is
-- whole again, the last moment that can be, ms for an attempt.
-- Returns how long to wait, in ms; 0 if an attempt was taken.
local by, now, usedup, furthest, interval =
  ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local function keep(moment)
  redis.call('SET', KEYS[1], string.format('%.0f %s', moment, by), 'PX', string.format('%.0f', math.max(moment - now, 1)))
end
local moment, writer = string.match(redis.call('GET', KEYS[1]) or '', '^(%d+) (%S+)$')
-- The client sends a command again when the connection broke before the answer.
if writer == by then
  return 0
end
local whole = math.max(tonumber(moment or 0), now)
if whole > furthest then
  whole = usedup
  keep(whole)
end
local wait = whole + interval - usedup
if wait > 0 then
  return wait
end
keep(whole + interval)
return 0
