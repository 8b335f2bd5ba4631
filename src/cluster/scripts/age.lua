-- Milliseconds since the registry began. KEYS: the nodes.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSETNX', KEYS[1], '@born', string.format('%.0f', now))
return now - redis.call('HGET', KEYS[1], '@born')
