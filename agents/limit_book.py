"""The rules by which limits are kept: pure, the time is given. `workers/limits.lua` is the same in Redis' own language.

Requests and tokens are buckets that fill continuously, as the servers' own do (Cerebras and OpenAI say so); tokens are
taken up front as if all of a completion came, and what did not come is put back. How much a bucket holds, the server's
headers tell: until then it holds a tenth of a minute, and it begins with what one call needs, so that nothing floods a server
when limits begin afresh. `remaining` in a header was true when its call was taken in, so it is compared with what the bucket
held then, and the difference is carried over: the first one at once, then means, since calls overtake each other on their way.
What goes on missing is what others use of the same account: the bucket fills slower by that.

Streams in flight go by additive increase and multiplicative decrease: fewer after a refusal, or when the time to first token
rises far above the lowest; at most one decrease in the time that a stream takes, since the next one must first show its
effect. Where fewer streams do not help, the time to first token has other reasons (long prompts) and becomes the new floor.

Whoever cannot go gets a place in the line, one per process, and is told when to ask again. It goes as soon as there is enough
for those before it and for itself, so nobody starves, and one who died in line holds up nobody for long.
"""

from dataclasses import dataclass, field

from .limit_terms import UNTOLD, Answer, Both, Facts, Outcome, Terms

MARGIN_S = 1.0
"""What is never spent of a bucket: so many seconds of its rate. It takes up that the server counts a little differently."""
BURST_UNTOLD = 0.1
"""Share of a minute's quota that a bucket holds while no header has told one."""
BURST_MIN = 1 / 60
"""The same after refusals, at least; each one halves it."""
BURST_REGROWTH_S = 3600.0
"""Seconds in which a bucket that was halved down to nothing grows to a whole minute's quota again."""
HEED_S = 3.0
"""Seconds over which a mean of differences between the server and a bucket goes, at least ..."""
HEED_HOLDS = 2.0
"""... and the same in lengths of a stream, ways included, so that it covers calls with long ways ..."""
HEED_MAX_S = 10.0
"""... but no longer, and so long where the server seems to have more."""
OTHERS_WEIGHT = 0.3
"""Share of the pace at which something went missing that is taken for the use of others from then on."""
OTHERS_STEP = 0.1
"""Share of a limit's rate by which that grows at once, at most."""
OTHERS_MAX = 0.8
"""Share of a limit's rate that others are thought to use, at most."""
PAUSE_S = 1.0
"""Pause of all after a refusal without Retry-After."""
STREAMS_FIRST = 8.0
"""Streams in flight at first, where they are found by trial; doubled with each round until the first decrease."""
STREAMS_CEILING = 10_000.0
DECREASE = 0.7
"""What is left of the streams after a decrease."""
BUSY_SHARE = 0.8
"""Share of the streams allowed that must be in flight for more to be tried."""
FIRST_TOKENS = 10
"""Times to first token in one mean: single ones differ by their prompts."""
FIRST_TOKEN_RISE = 3.0
"""A mean so many times the lowest one ..."""
FIRST_TOKEN_SLACK_S = 0.1
"""... and so much more is a rise."""
FIRST_TOKEN_TESTED = 0.8
"""Share of the former streams in flight at which it can be seen whether fewer of them help ..."""
FIRST_TOKEN_HELPED = 0.9
"""... which they do if the mean is below this share of the former one,"""
FIRST_TOKEN_WORSE = 1.2
"""and cannot be seen if it is above this one: then it goes on getting worse."""
HOLD_FIRST_S = 1.0
"""Seconds that a stream is thought to take before any has ended."""
HOLD_WEIGHT = 0.1
POLL_MIN_S = 0.005
POLL_MAX_S = 0.1
"""Seconds until the first in line asks again, where others may give back what they did not use. The second asks after twice
as long, and so on."""
WAIT_MAX_S = 1.0
"""The same for everybody, where only time helps."""
WAITER_TTL_S = 2.0
"""Seconds after which a process that does not ask again loses its place."""
STREAM_TTL_S = 15.0
"""Seconds after which a stream that nobody renews counts as ended: its process died."""
PEER_TTL_S = 30.0
"""Seconds for which a process counts as one that shares the limits."""
ENOUGH = 1e-6
"""What may be missing from a sum of fractions."""


@dataclass
class Bucket:
    """Requests or tokens."""

    limit: float | None = None
    """Per minute, as headers tell; None = not told."""
    level: float = 0.0
    """What it holds; less than 0 = more was used than there was. Means nothing while no limit is known."""
    carried: float = 0.0
    """Sum of the differences to the server that were carried over."""
    known: bool = False
    """Whether the level means something."""
    heeded: bool = False
    """Whether it was compared with the server's."""
    sum: float = 0.0
    """Of what should have been carried over by then, as each answer tells since `since`."""
    count: int = 0
    """Answers in that sum."""
    since: float = 0.0
    """When that sum was begun."""
    others: float = 0.0
    """What others use of it in a second."""

    def carry(self, level: float) -> None:
        """Set the level to what it should have been; those under way are not to set it right once more."""
        self.carried += level - self.level
        self.level = level


@dataclass
class Place:
    """A process's place in the line."""

    since: float
    due: float
    """When it asks again."""
    tokens: float


@dataclass
class Book:
    """The limits of one backend, and what is under way. Times in seconds of any clock that does not jump."""

    at: float | None = None
    burst: float = BURST_UNTOLD
    """Share of a minute's quota that the buckets hold."""
    told: bool = False
    """Whether headers have told a limit."""
    pause_until: float = 0.0
    requests: Bucket = field(default_factory=Bucket)
    tokens: Bucket = field(default_factory=Bucket)
    allowed: float = STREAMS_FIRST
    """Streams allowed by trial."""
    doubling: bool = True
    """Whether no decrease has been yet."""
    cut_at: float = 0.0
    """When the last decrease was."""
    hold_s: float = HOLD_FIRST_S
    """Mean of the seconds that a stream takes."""
    first_sum: float = 0.0
    first_count: int = 0
    first_streams: int = 0
    """Sum of the streams in flight with those counted."""
    first_floor: float = 0.0
    """Lowest mean of times to first token; 0 = none yet."""
    before_s: float = 0.0
    """The mean that led to the last decrease; 0 = nothing is to be seen of one."""
    before_streams: float = 0.0
    """Streams that were in flight then."""
    streams: dict[str, float] = field(default_factory=dict[str, float])
    """When each stream in flight counts as ended, soonest first."""
    line: dict[str, Place] = field(default_factory=dict[str, Place])
    """Who waits, by process."""
    peers: dict[str, float] = field(default_factory=dict[str, float])
    """When each process asked last."""

    def reserve(self, now: float, terms: Terms, *, process: str, id: str, tokens: int) -> Answer:
        """Grant a turn, or say when to ask again."""
        self._pass(now, terms)
        self.peers[process] = now
        place = self.line.get(process)
        since = now if place is None else place.since
        before = [other for name, other in self.line.items() if name != process and other.since < since]
        pause_s = max(0.0, self.pause_until - now)
        due_s = pause_s
        soonest_s = WAIT_MAX_S
        wishes = (
            (self.requests, terms.requests, 1.0, float(len(before))),
            (self.tokens, terms.tokens, float(tokens), sum(other.tokens for other in before)),
        )
        for bucket, configured, cost, cost_before in wishes:
            limit = _lesser(configured, bucket.limit)
            if limit is None:
                bucket.known = bucket.heeded = False
                continue
            need = min(cost + limit / 60 * MARGIN_S, self._room(limit))
            if not bucket.known:
                bucket.known = True
                bucket.carry(need)
            lacking = cost_before + need - bucket.level
            if lacking > ENOUGH:
                due_s = max(due_s, lacking * 60 / limit)
                if bucket is self.tokens:
                    soonest_s = POLL_MAX_S * (1 + len(before))
        allowed = self._allowed(terms)
        missing = 0 if allowed is None else len(self.streams) + len(before) + 1 - allowed
        if missing > 0:
            due_s = max(due_s, self.hold_s * missing / (2 * max(1, len(self.streams))), POLL_MIN_S)
            soonest_s = POLL_MAX_S * (1 + len(before))
        facts = vars(self._facts(terms))
        if due_s > 0:
            wait_s = max(pause_s, POLL_MIN_S, min(due_s, soonest_s))
            self.line[process] = Place(since, now + wait_s, float(tokens))
            return Answer(**facts, at=now, wait_s=wait_s, due_s=due_s, pause_s=pause_s)
        self.line.pop(process, None)
        self.streams[id] = now + STREAM_TTL_S
        self.requests.level -= 1
        self.tokens.level -= tokens
        return Answer(
            **facts,
            granted=True,
            at=now,
            in_flight=len(self.streams),
            busy=allowed is not None and len(self.streams) >= BUSY_SHARE * allowed,
            held=Both(self.requests.level, self.tokens.level),
            carried=Both(self.requests.carried, self.tokens.carried),
        )

    def settle(self, now: float, terms: Terms, outcome: Outcome) -> Facts:
        """Take back what a turn did not use, and learn from it."""
        self._pass(now, terms)
        ours = self.streams.pop(outcome.id, None) is not None
        if ours:
            self.tokens.level += outcome.tokens - (outcome.used or 0)
            if outcome.used is None:
                self.requests.level += 1
            else:
                self.hold_s += HOLD_WEIGHT * (now - outcome.granted.at - self.hold_s)
        buckets = ((self.requests, terms.requests, 1.0), (self.tokens, terms.tokens, float(outcome.tokens)))
        for number, (bucket, configured, cost) in enumerate(buckets):
            self._heed(now, bucket, configured, cost, number, outcome, ours=ours)
        if outcome.refused:
            pause_s = PAUSE_S if outcome.retry_after_s is None else outcome.retry_after_s
            self.pause_until = max(self.pause_until, now + pause_s)
            if outcome.remaining == UNTOLD:
                for bucket in (self.requests, self.tokens):
                    bucket.carry(min(bucket.level, 0.0))
        elif outcome.overloaded and outcome.retry_after_s is not None:
            self.pause_until = max(self.pause_until, now + outcome.retry_after_s)
        self.pause_until = max(self.pause_until, now + outcome.spent_s)
        if outcome.granted.at > self.cut_at:
            self._adapt(now, terms, outcome)
        return self._facts(terms)

    def renew(self, now: float, terms: Terms, *, process: str, ids: list[str]) -> Facts:
        """These streams of a process are still in flight."""
        self._pass(now, terms)
        self.peers[process] = now
        for id in ids:
            self.streams.pop(id, None)
            self.streams[id] = now + STREAM_TTL_S
        return self._facts(terms)

    def leave(self, process: str) -> None:
        """Nobody of this process waits any more."""
        self.line.pop(process, None)

    def _pass(self, now: float, terms: Terms) -> None:
        """Let time pass: buckets fill, who does not show up any more is forgotten."""
        past_s = 0.0 if self.at is None else max(0.0, now - self.at)
        self.at = now if self.at is None else max(self.at, now)
        self.burst = min(1.0 if self.told else BURST_UNTOLD, self.burst + past_s / BURST_REGROWTH_S)
        for bucket, configured in ((self.requests, terms.requests), (self.tokens, terms.tokens)):
            limit = _lesser(configured, bucket.limit)
            if limit is not None and bucket.known:
                bucket.level = min(self._room(limit), bucket.level + (limit / 60 - bucket.others) * past_s)
        while self.streams and next(iter(self.streams.values())) <= now:
            del self.streams[next(iter(self.streams))]
        self.line = {name: place for name, place in self.line.items() if place.due + WAITER_TTL_S > now}
        self.peers = {name: seen for name, seen in self.peers.items() if seen + PEER_TTL_S > now}

    def _heed(
        self,
        now: float,
        bucket: Bucket,
        configured: float | None,
        cost: float,
        number: int,
        outcome: Outcome,
        *,
        ours: bool,
    ) -> None:
        """Learn what headers tell of a bucket."""
        told, remaining = outcome.limits[number], outcome.remaining[number]
        if told is not None:
            bucket.limit = told
            if not self.told:
                self.told, self.burst = True, 1.0
        limit = _lesser(configured, bucket.limit)
        if limit is None:
            return
        level = bucket.level
        if ours and told is not None and remaining is not None:
            granted = outcome.granted
            then = granted.held[number] + (cost if outcome.used is None else 0.0)
            change = remaining - then + granted.carried[number] - bucket.carried
            past_s, least_s = now - bucket.since, 0.0
            if outcome.refused:
                # Its answer came at once: that is what is left now, but for calls still on their way.
                change = min(0.0, remaining - level) if bucket.heeded else remaining - level
            elif bucket.heeded:
                bucket.sum += change + bucket.carried
                bucket.count += 1
                change = bucket.sum / bucket.count - bucket.carried
                # What seems to be left over may yet be taken by calls with long ways.
                least_s = HEED_MAX_S if change > 0 else max(HEED_S, min(HEED_MAX_S, HEED_HOLDS * self.hold_s))
            if past_s >= least_s:
                # A limit of ours that is lower than the server's is not raised by what is left there.
                level += change if limit >= told or change < 0 else 0.0
                if bucket.heeded:
                    more = min(OTHERS_STEP * limit / 60, -OTHERS_WEIGHT * change / max(HEED_S, past_s))
                    bucket.others = min(OTHERS_MAX * limit / 60, max(0.0, bucket.others + more))
                bucket.sum, bucket.count, bucket.since = 0.0, 0, now
            bucket.known = bucket.heeded = True
        bucket.carry(max(-limit, min(self._room(limit), level)))

    def _adapt(self, now: float, terms: Terms, outcome: Outcome) -> None:
        if outcome.refused:
            self.burst = max(BURST_MIN, self.burst / 2)
        if outcome.refused or outcome.overloaded:
            self._decrease(now, before_s=0.0, before_streams=0.0)
            return
        if outcome.used is None:
            return
        if terms.adaptive and outcome.granted.busy:
            self.allowed = min(STREAMS_CEILING, self.allowed + (1 if self.doubling else 1 / self.allowed))
        if outcome.first_token_s is not None:
            self.first_sum += outcome.first_token_s
            self.first_count += 1
            self.first_streams += outcome.granted.in_flight
        if self.first_count >= FIRST_TOKENS:
            self._judge_first_tokens(now)

    def _judge_first_tokens(self, now: float) -> None:
        mean_s, streams = self.first_sum / self.first_count, self.first_streams / self.first_count
        self.first_sum, self.first_count, self.first_streams = 0.0, 0, 0
        if self.first_floor == 0 or mean_s < self.first_floor:
            self.first_floor = mean_s
        if mean_s <= FIRST_TOKEN_RISE * self.first_floor + FIRST_TOKEN_SLACK_S:
            self.before_s, self.before_streams = 0.0, 0.0
            return
        tested = self.before_s > 0 and streams <= FIRST_TOKEN_TESTED * self.before_streams
        worse = mean_s > FIRST_TOKEN_WORSE * self.before_s
        if tested and not worse and mean_s > FIRST_TOKEN_HELPED * self.before_s:
            self.first_floor, self.before_s, self.before_streams = mean_s, 0.0, 0.0
        elif tested or worse:
            self._decrease(now, before_s=mean_s, before_streams=streams)
        else:
            self._decrease(now, before_s=self.before_s, before_streams=self.before_streams)

    def _decrease(self, now: float, *, before_s: float, before_streams: float) -> None:
        self.allowed = max(1.0, self.allowed * DECREASE)
        self.doubling = False
        self.cut_at = now
        self.before_s, self.before_streams = before_s, before_streams
        self.first_sum, self.first_count, self.first_streams = 0.0, 0, 0

    def _room(self, limit: float) -> float:
        return max(1.0, limit * self.burst)

    def _allowed(self, terms: Terms) -> int | None:
        found = int(self.allowed) if terms.adaptive else None
        return found if terms.streams is None else min(terms.streams, found or terms.streams)

    def _facts(self, terms: Terms) -> Facts:
        return Facts(
            requests=_lesser(terms.requests, self.requests.limit),
            tokens=_lesser(terms.tokens, self.tokens.limit),
            streams=self._allowed(terms),
            peers=max(1, len(self.peers)),
        )


def _lesser(first: float | None, second: float | None) -> float | None:
    if first is None or second is None:
        return second if first is None else first
    return min(first, second)
