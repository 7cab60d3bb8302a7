-- Copyright The Tokenward Authors.
-- SPDX-License-Identifier: Apache-2.0
--
-- check does once what the other scripts do, on keys of its own, so that a user who
-- may not do one of it is found before a session needs it.
-- KEYS: a string, a stream, a sorted set.
redis.call('PEXPIRE', KEYS[1], 1000)
redis.call('SET', KEYS[1], '1', 'PX', 1000)
redis.call('GET', KEYS[1])
local id = redis.call('XADD', KEYS[2], '*', 'id', '1')
redis.call('PEXPIRE', KEYS[2], 1000)
redis.call('PTTL', KEYS[2])
redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)
redis.call('XREAD', 'COUNT', 1, 'STREAMS', KEYS[2], '0-0')
redis.call('XDEL', KEYS[2], id)
redis.call('ZADD', KEYS[3], 0, '1')
redis.call('PEXPIRE', KEYS[3], 1000)
redis.call('ZRANGEBYLEX', KEYS[3], '-', '+', 'LIMIT', 0, 1)
redis.call('ZREM', KEYS[3], '1')
return 'ok'
