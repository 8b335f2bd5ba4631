-- A node's sign of life; all who gave one lately. KEYS: the nodes. ARGV: id, incarnation, record, how long one
-- counts (ms). A field is "time incarnation record"; '@born' is when the registry began, which is again after
-- it was emptied.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSETNX', KEYS[1], '@born', string.format('%.0f', now))
local before = redis.call('HGET', KEYS[1], ARGV[1])
local other = before and string.match(before, '^%d+ (%d+) ')
if other and tonumber(other) > tonumber(ARGV[2]) then return { 'superseded' } end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f %s %s', now, ARGV[2], ARGV[3]))
local alive = { 'nodes' }
local fields = redis.call('HGETALL', KEYS[1])
for i = 1, #fields, 2 do
  local seen, record = string.match(fields[i + 1], '^(%d+) %d+ (.*)$')
  if seen and now - tonumber(seen) < tonumber(ARGV[4]) then
    alive[#alive + 1] = record
  elseif seen then
    redis.call('HDEL', KEYS[1], fields[i])
  end
end
return alive
