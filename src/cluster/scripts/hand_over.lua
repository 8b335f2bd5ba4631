-- A room from its holder to another node. KEYS: the room. ARGV: node, incarnation, epoch, lease (ms), the
-- other's node and incarnation.
local room = redis.call('HMGET', KEYS[1], 'node', 'incarnation', 'epoch')
if room[1] ~= ARGV[1] or room[2] ~= ARGV[2] or room[3] ~= ARGV[3] then return '' end
local time = redis.call('TIME')
local ends = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[4])
local epoch = string.format('%.0f', room[3] + 1)
redis.call('HSET', KEYS[1], 'node', ARGV[5], 'incarnation', ARGV[6], 'epoch', epoch, 'until', ends)
return epoch
