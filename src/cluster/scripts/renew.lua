-- Another lease's time for its holder. KEYS: the room. ARGV: node, incarnation, epoch, lease (ms), settings,
-- how long the epoch is remembered (ms).
local time = redis.call('TIME')
local ends = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[4])
local room = redis.call('HMGET', KEYS[1], 'node', 'incarnation', 'epoch')
local mine = room[1] == ARGV[1] and room[2] == ARGV[2] and tonumber(ARGV[3]) <= tonumber(room[3])
if mine then
  redis.call('HSET', KEYS[1], 'until', ends, 'settings', ARGV[5])
  redis.call('PEXPIRE', KEYS[1], ARGV[6])
  return 'renewed'
end
if room[3] and tonumber(room[3]) >= tonumber(ARGV[3]) then return 'lost' end
redis.call('HSET', KEYS[1], 'node', ARGV[1], 'incarnation', ARGV[2], 'epoch', ARGV[3], 'until', ends,
  'settings', ARGV[5])
redis.call('PEXPIRE', KEYS[1], ARGV[6])
return 'reasserted'
