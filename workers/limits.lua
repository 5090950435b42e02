-- The rules of agents/limit_book.py, kept in Redis for all processes; a test plays both side by side. Constants of that
-- module are put before this text. KEYS: state (a JSON text), streams (sorted by when each counts as ended).
-- ARGV: what to do, its arguments as JSON, and for tests the time in seconds. Answers in JSON.

local args = cjson.decode(ARGV[2])
local now = tonumber(ARGV[3] or '')
if not now then
  local clock = redis.call('TIME')
  now = clock[1] - EPOCH_S + clock[2] / 1000000
end

local text = redis.call('GET', KEYS[1])
local book = text and cjson.decode(text) or {
  at = now, burst = BURST_UNTOLD, told = false, pause_until = 0,
  requests = {level = 0, carried = 0, known = false, heeded = false, sum = 0, count = 0, since = 0, others = 0},
  tokens = {level = 0, carried = 0, known = false, heeded = false, sum = 0, count = 0, since = 0, others = 0},
  allowed = STREAMS_FIRST, doubling = true, cut_at = 0, hold_s = HOLD_FIRST_S,
  first_sum = 0, first_count = 0, first_streams = 0, first_floor = 0, before_s = 0, before_streams = 0,
  line = {}, peers = {},
}
local terms = args.terms

local function lesser(first, second)
  if not first or not second then return first or second end
  return math.min(first, second)
end

local function limit_of(kind) return lesser(terms[kind], book[kind].limit) end

local function room(limit) return math.max(1, limit * book.burst) end

local function allowed()
  local found = terms.adaptive and math.floor(book.allowed) or nil
  return lesser(terms.streams, found)
end

local function carry(bucket, level)
  bucket.carried = bucket.carried + level - bucket.level
  bucket.level = level
end

local function pass()
  local past_s = math.max(0, now - book.at)
  book.at = math.max(book.at, now)
  book.burst = math.min(book.told and 1 or BURST_UNTOLD, book.burst + past_s / BURST_REGROWTH_S)
  for _, kind in ipairs({'requests', 'tokens'}) do
    local limit, bucket = limit_of(kind), book[kind]
    if limit and bucket.known then
      bucket.level = math.min(room(limit), bucket.level + (limit / 60 - bucket.others) * past_s)
    end
  end
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
  for name, place in pairs(book.line) do
    if place.due + WAITER_TTL_S <= now then book.line[name] = nil end
  end
  for name, seen in pairs(book.peers) do
    if seen + PEER_TTL_S <= now then book.peers[name] = nil end
  end
end

local function answer(more)
  more.requests, more.tokens, more.streams = limit_of('requests'), limit_of('tokens'), allowed()
  more.peers = 0
  for _ in pairs(book.peers) do more.peers = more.peers + 1 end
  more.peers = math.max(1, more.peers)
  return more
end

local function decrease(before_s, before_streams)
  book.allowed = math.max(1, book.allowed * DECREASE)
  book.doubling = false
  book.cut_at = now
  book.before_s, book.before_streams = before_s, before_streams
  book.first_sum, book.first_count, book.first_streams = 0, 0, 0
end

local function heed(kind, cost, outcome, ours)
  local bucket, granted = book[kind], outcome.granted
  local told, remaining = outcome.limits[kind], outcome.remaining[kind]
  if told then
    bucket.limit = told
    if not book.told then book.told, book.burst = true, 1 end
  end
  local limit = limit_of(kind)
  if not limit then return end
  local level = bucket.level
  if ours and told and remaining then
    local held = granted.held[kind] + (outcome.used and 0 or cost)
    local change = remaining - held + granted.carried[kind] - bucket.carried
    local past_s, least_s = now - bucket.since, 0
    if outcome.refused then
      change = bucket.heeded and math.min(0, remaining - level) or remaining - level
    elseif bucket.heeded then
      bucket.sum = bucket.sum + change + bucket.carried
      bucket.count = bucket.count + 1
      change = bucket.sum / bucket.count - bucket.carried
      least_s = change > 0 and HEED_MAX_S or math.max(HEED_S, math.min(HEED_MAX_S, HEED_HOLDS * book.hold_s))
    end
    if past_s >= least_s then
      if limit >= told or change < 0 then level = level + change end
      if bucket.heeded then
        local more = math.min(OTHERS_STEP * limit / 60, -OTHERS_WEIGHT * change / math.max(HEED_S, past_s))
        bucket.others = math.min(OTHERS_MAX * limit / 60, math.max(0, bucket.others + more))
      end
      bucket.sum, bucket.count, bucket.since = 0, 0, now
    end
    bucket.known, bucket.heeded = true, true
  end
  carry(bucket, math.max(-limit, math.min(room(limit), level)))
end

local function judge_first_tokens()
  local mean_s, streams = book.first_sum / book.first_count, book.first_streams / book.first_count
  book.first_sum, book.first_count, book.first_streams = 0, 0, 0
  if book.first_floor == 0 or mean_s < book.first_floor then book.first_floor = mean_s end
  if mean_s <= FIRST_TOKEN_RISE * book.first_floor + FIRST_TOKEN_SLACK_S then
    book.before_s, book.before_streams = 0, 0
    return
  end
  local tested = book.before_s > 0 and streams <= FIRST_TOKEN_TESTED * book.before_streams
  local worse = mean_s > FIRST_TOKEN_WORSE * book.before_s
  if tested and not worse and mean_s > FIRST_TOKEN_HELPED * book.before_s then
    book.first_floor, book.before_s, book.before_streams = mean_s, 0, 0
  elseif tested or worse then
    decrease(mean_s, streams)
  else
    decrease(book.before_s, book.before_streams)
  end
end

local function adapt(outcome)
  if outcome.refused then book.burst = math.max(BURST_MIN, book.burst / 2) end
  if outcome.refused or outcome.overloaded then return decrease(0, 0) end
  if not outcome.used then return end
  if terms.adaptive and outcome.granted.busy then
    book.allowed = math.min(STREAMS_CEILING, book.allowed + (book.doubling and 1 or 1 / book.allowed))
  end
  if outcome.first_token_s then
    book.first_sum = book.first_sum + outcome.first_token_s
    book.first_count = book.first_count + 1
    book.first_streams = book.first_streams + outcome.granted.in_flight
  end
  if book.first_count >= FIRST_TOKENS then judge_first_tokens() end
end

local ways = {}

function ways.reserve()
  pass()
  book.peers[args.process] = now
  local place = book.line[args.process]
  local since = place and place.since or now
  local before, tokens_before = 0, 0
  for name, other in pairs(book.line) do
    if name ~= args.process and other.since < since then
      before, tokens_before = before + 1, tokens_before + other.tokens
    end
  end
  local pause_s = math.max(0, book.pause_until - now)
  local due_s, soonest_s = pause_s, WAIT_MAX_S
  for kind, wish in pairs({requests = {1, before}, tokens = {args.tokens, tokens_before}}) do
    local limit, bucket = limit_of(kind), book[kind]
    if limit then
      local need = math.min(wish[1] + limit / 60 * MARGIN_S, room(limit))
      if not bucket.known then
        bucket.known = true
        carry(bucket, need)
      end
      local lacking = wish[2] + need - bucket.level
      if lacking > ENOUGH then
        due_s = math.max(due_s, lacking * 60 / limit)
        if kind == 'tokens' then soonest_s = POLL_MAX_S * (1 + before) end
      end
    else
      bucket.known, bucket.heeded = false, false
    end
  end
  local most, busy = allowed(), redis.call('ZCARD', KEYS[2])
  local missing = most and busy + before + 1 - most or 0
  if missing > 0 then
    due_s = math.max(due_s, book.hold_s * missing / (2 * math.max(1, busy)), POLL_MIN_S)
    soonest_s = POLL_MAX_S * (1 + before)
  end
  if due_s > 0 then
    local wait_s = math.max(pause_s, POLL_MIN_S, math.min(due_s, soonest_s))
    book.line[args.process] = {since = since, due = now + wait_s, tokens = args.tokens}
    return answer({granted = false, at = now, wait_s = wait_s, due_s = due_s, pause_s = pause_s})
  end
  book.line[args.process] = nil
  redis.call('ZADD', KEYS[2], now + STREAM_TTL_S, args.id)
  book.requests.level = book.requests.level - 1
  book.tokens.level = book.tokens.level - args.tokens
  return answer({
    granted = true, at = now, in_flight = busy + 1,
    busy = most ~= nil and busy + 1 >= BUSY_SHARE * most,
    held = {requests = book.requests.level, tokens = book.tokens.level},
    carried = {requests = book.requests.carried, tokens = book.tokens.carried},
  })
end

function ways.settle()
  pass()
  local outcome = args.outcome
  local ours = redis.call('ZREM', KEYS[2], outcome.id) == 1
  if ours then
    book.tokens.level = book.tokens.level + outcome.tokens - (outcome.used or 0)
    if outcome.used then
      book.hold_s = book.hold_s + HOLD_WEIGHT * (now - outcome.granted.at - book.hold_s)
    else
      book.requests.level = book.requests.level + 1
    end
  end
  heed('requests', 1, outcome, ours)
  heed('tokens', outcome.tokens, outcome, ours)
  if outcome.refused then
    book.pause_until = math.max(book.pause_until, now + (outcome.retry_after_s or PAUSE_S))
    if not outcome.remaining.requests and not outcome.remaining.tokens then
      carry(book.requests, math.min(book.requests.level, 0))
      carry(book.tokens, math.min(book.tokens.level, 0))
    end
  elseif outcome.overloaded and outcome.retry_after_s then
    book.pause_until = math.max(book.pause_until, now + outcome.retry_after_s)
  end
  book.pause_until = math.max(book.pause_until, now + outcome.spent_s)
  if outcome.granted.at > book.cut_at then adapt(outcome) end
  return answer({})
end

function ways.renew()
  pass()
  book.peers[args.process] = now
  for _, id in ipairs(args.ids) do redis.call('ZADD', KEYS[2], now + STREAM_TTL_S, id) end
  return answer({})
end

function ways.leave()
  pass()
  book.line[args.process] = nil
  return answer({})
end

local said = ways[ARGV[1]]()
redis.call('SET', KEYS[1], cjson.encode(book), 'EX', STATE_TTL_S)
redis.call('EXPIRE', KEYS[2], STATE_TTL_S)
return cjson.encode(said)
