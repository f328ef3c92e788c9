"""The script that claims, remembers and releases: many requests in one step, on the server's clock.

A key is absent, `P <lapses at, ms> <doubt> <token>` for a claim, `D` for done, or `B <place> <doubt>` for the record at
that place that became a dead letter. The doubt is `?` where an earlier send may have arrived, else `-`. A lapsed claim
stays as a key, which is how it can be told from no claim at all.
The generation is `<name>@<made at, ms>`; made at 0 means that nothing can have been sent before it.
"""

from __future__ import annotations

from hashlib import sha1

# What the script answers to a claim; a positive number is how many milliseconds somebody else's claim still holds.
GRANTED, UNCERTAIN, DONE, BURIED = 0, -1, -2, -3
# KEYS: the counter, the generation, then one per request.
# ARGV: seconds to keep, a new generation's name, and a line per request, all in one argument because the client's price
# is per argument: verb, lease (ms), moment of acceptance (ms), place, token.
SCRIPT = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local keep = ARGV[1]
local generation = redis.call('GET', KEYS[2])
if not generation then
  generation = ARGV[2] .. '@' .. string.format('%d', now)
  redis.call('SET', KEYS[2], generation)
end
local made_at = tonumber(string.match(generation, '%d+$')) or now
local doubts = 0

local function claim(key, token, lease_ms, accepted_at, place)
  local value = redis.call('GET', key)
  if value == 'D' then return -2 end
  local doubt = '-'
  local buried, doubt_when_buried = string.match(value or '', '^B (%S+) (.)$')
  if buried then
    if buried == place then return -3 end
    doubt = doubt_when_buried
    if doubt == '?' then doubts = doubts + 1 end
  elseif value then
    local lapses_at, earlier_doubt, holder = string.match(value, '^P (%d+) (.) (.*)$')
    lapses_at = tonumber(lapses_at) or 0
    if holder == token then
      doubt = earlier_doubt
    elseif lapses_at > now then
      return lapses_at - now
    else
      doubt = '?'
      doubts = doubts + 1
    end
  elseif tonumber(accepted_at) <= made_at then
    doubt = '?'
    doubts = doubts + 1
  end
  redis.call('SET', key, 'P ' .. string.format('%d', now + lease_ms) .. ' ' .. doubt .. ' ' .. token, 'EX', keep)
  return doubt == '?' and -1 or 0
end

local function release(key, token, is_uncertain)
  local value = redis.call('GET', key)
  if not value or string.match(value, '^P %d+ . (.*)$') ~= token then return 0 end
  if is_uncertain then redis.call('SET', key, 'P 0 ? ' .. token, 'KEEPTTL') else redis.call('DEL', key) end
  return 0
end

local function bury(key, place)
  local value = redis.call('GET', key) or ''
  if value == 'D' then return 0 end
  local doubt = string.match(value, '^B %S+ (.)$') or (value == '' and '-' or '?')
  redis.call('SET', key, 'B ' .. place .. ' ' .. doubt, 'EX', keep)
  return 0
end

local answers = {generation}
local i = 2
for verb, lease_ms, accepted_at, place, token in string.gmatch(ARGV[3], '(%a+) (%d+) (%d+) (%S+) (%C*)%c') do
  i = i + 1
  if verb == 'claim' then
    answers[i - 1] = claim(KEYS[i], token, lease_ms, accepted_at, place)
  elseif verb == 'bury' then
    answers[i - 1] = bury(KEYS[i], place)
  elseif verb == 'done' then
    redis.call('SET', KEYS[i], 'D', 'EX', keep)
    answers[i - 1] = 0
  else
    answers[i - 1] = release(KEYS[i], token, verb == 'doubt')
  end
end
if doubts > 0 then redis.call('INCRBY', KEYS[1], doubts) end
return table.concat(answers, ' ')
"""
SCRIPT_SHA = sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()  # the name Redis knows it by
