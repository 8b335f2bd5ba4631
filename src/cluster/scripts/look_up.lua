-- Who holds a room. KEYS: the room. ARGV: how long a room waits for a new holder (ms).
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local room = redis.call('HMGET', KEYS[1], 'node', 'incarnation', 'epoch', 'until', 'settings')
if room[1] and room[1] ~= '' and tonumber(room[4]) > now then
  return { 'held', room[1], room[2], room[3] }
end
local waits = room[5] and tonumber(room[4]) + ARGV[1] > now
return { waits and 'orphaned' or 'free' }
