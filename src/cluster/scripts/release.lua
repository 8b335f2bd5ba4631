-- Lets a room go. KEYS: the room. ARGV: node, incarnation, epoch, 1 if it has ended, how long its epoch is
-- remembered then (ms): later the event log alone knows it.
local room = redis.call('HMGET', KEYS[1], 'node', 'incarnation', 'epoch')
if room[1] ~= ARGV[1] or room[2] ~= ARGV[2] or room[3] ~= ARGV[3] then return 0 end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', KEYS[1], 'node', '', 'incarnation', '0', 'until', string.format('%.0f', now))
if ARGV[4] == '1' then redis.call('HDEL', KEYS[1], 'settings') end
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return 1
