-- A room for whoever asks, if nobody holds it. KEYS: the room. ARGV: node, incarnation, floor of the epoch,
-- lease (ms), 1 if on another's behalf, how long the registry settles yet (ms), how long a room waits for a new
-- holder (ms), how long its epoch is remembered (ms).
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local room = redis.call('HMGET', KEYS[1], 'node', 'incarnation', 'epoch', 'until', 'settings')
local held = room[1] and room[1] ~= '' and tonumber(room[4]) > now
if held and (room[1] ~= ARGV[1] or ARGV[5] == '1') then
  return { 'held', room[1], room[2], room[3] }
end
if not room[3] and tonumber(ARGV[6]) > 0 then
  return { 'settling', ARGV[6] }
end
local epoch = string.format('%.0f', math.max(tonumber(room[3] or '0'), tonumber(ARGV[3])) + 1)
local ends = string.format('%.0f', now + ARGV[4])
redis.call('HSET', KEYS[1], 'node', ARGV[1], 'incarnation', ARGV[2], 'epoch', epoch, 'until', ends)
local waits = room[5] and tonumber(room[4]) + ARGV[7] > now
if not waits then redis.call('HSET', KEYS[1], 'settings', '') end
redis.call('PEXPIRE', KEYS[1], ARGV[8])
return { 'won', epoch, waits and room[5] or '' }
