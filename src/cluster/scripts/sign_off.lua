-- A node goes. KEYS: the nodes. ARGV: id, incarnation.
local before = redis.call('HGET', KEYS[1], ARGV[1])
local incarnation = before and string.match(before, '^%d+ (%d+) ')
if incarnation == ARGV[2] then redis.call('HDEL', KEYS[1], ARGV[1]) end
return 0
