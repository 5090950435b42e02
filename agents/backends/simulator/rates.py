"""The simulated server's rate limits: quotas of requests and tokens per minute, taken up front as Cerebras takes them.

A call takes one request and, in tokens, its prompt and `max_completion_tokens` before it begins; what of them was not used is
put back when it ends. A call that does not fit is refused with 429, the quota's code and Retry-After.
"""

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

MINUTE_S = 60.0
DAY_HEADERS = {"x-ratelimit-limit-requests-day": "14400", "x-ratelimit-remaining-requests-day": "14399"}


class Refill(StrEnum):
    """How a quota comes back."""

    continuous = "continuous"
    """A token bucket that holds a minute's quota and fills all the time: Cerebras, OpenAI."""
    sliding = "sliding"
    """What was used comes back a minute later."""


class RateHeaders(StrEnum):
    """How the answers tell of quotas."""

    cerebras = "cerebras"
    """`x-ratelimit-remaining-tokens-minute`, resets in seconds."""
    openai = "openai"
    """`x-ratelimit-remaining-tokens`, resets as `6m0s`."""
    none = "none"
    """Not at all."""


class Quota:
    """So much per minute."""

    def __init__(self, limit: int, refill: Refill, clock: Callable[[], float]) -> None:
        """`clock` gives seconds."""
        self.limit = limit
        self._refill = refill
        self._clock = clock
        self._level = float(limit)
        self._at = clock()
        self._taken: deque[tuple[float, float]] = deque()

    @property
    def remaining(self) -> float:
        """What can be taken now."""
        now = self._clock()
        if self._refill is Refill.continuous:
            self._level = min(self.limit, self._level + (now - self._at) * self.limit / MINUTE_S)
            self._at = now
            return self._level
        while self._taken and self._taken[0][0] <= now - MINUTE_S:
            self._level += self._taken.popleft()[1]
        return self._level

    def take(self, amount: float) -> float:
        """Take `amount`, or put back what is less than 0; return when it was taken."""
        self._level = self.remaining - amount
        now = self._clock()
        if self._refill is Refill.sliding:
            self._taken.append((now, amount))
        return now

    def put_back(self, amount: float, *, taken_at: float) -> None:
        """Put back a part of what was taken at this time."""
        self._level = min(self.limit, self.remaining + amount)
        if self._refill is Refill.sliding and taken_at > self._clock() - MINUTE_S:
            # Else the whole has come back already.
            self._taken.append((taken_at, -amount))
            self._taken = deque(sorted(self._taken))

    def wait_s(self, amount: float) -> float:
        """Return the seconds until `amount` can be taken, or all there ever is; 0 = now."""
        lacking = min(amount, self.limit) - self.remaining
        if lacking <= 0:
            return 0.0
        if self._refill is Refill.continuous:
            return lacking * MINUTE_S / self.limit
        for taken_at, taken in self._taken:
            lacking -= taken
            if lacking <= 0:
                return max(0.0, taken_at + MINUTE_S - self._clock())
        return MINUTE_S

    @property
    def reset_s(self) -> float:
        """Seconds until all of it is there again."""
        return self.wait_s(self.limit)


@dataclass
class Admission:
    """A call that was let in."""

    tokens: float
    """Taken up front."""
    at: float
    headers: dict[str, str]
    """Of its answer."""


@dataclass
class Refusal:
    """A call that was not."""

    code: str
    retry_after_s: int
    headers: dict[str, str]


class ServerRates:
    """The quotas of one simulated server."""

    def __init__(
        self,
        *,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        refill: Refill = Refill.continuous,
        headers: RateHeaders = RateHeaders.cerebras,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Set the quotas; None = none."""
        self.requests = None if requests_per_minute is None else Quota(requests_per_minute, refill, clock)
        self.tokens = None if tokens_per_minute is None else Quota(tokens_per_minute, refill, clock)
        self.admitted = 0
        """Calls."""
        self.refused = 0
        """Calls."""
        self.used_tokens = 0
        """Of the calls that have ended."""
        self._style = headers
        self._clock = clock

    def admit(self, *, prompt_tokens: int, completion_max: int) -> Admission | Refusal:
        """Take what the call may need, or refuse it."""
        tokens = float(prompt_tokens + completion_max)
        for quota, amount, code in (
            (self.requests, 1.0, "request_quota_exceeded"),
            (self.tokens, tokens, "token_quota_exceeded"),
        ):
            if quota is not None and (wait_s := quota.wait_s(amount)) > 0:
                self.refused += 1
                return Refusal(code, max(1, math.ceil(wait_s)), self.headers())
        for quota, amount in ((self.requests, 1.0), (self.tokens, tokens)):
            if quota is not None:
                quota.take(amount)
        self.admitted += 1
        return Admission(tokens, self._clock(), self.headers())

    def settle(self, admission: Admission, *, used_tokens: int) -> None:
        """Put back what the call did not use."""
        self.used_tokens += used_tokens
        if self.tokens is not None:
            self.tokens.put_back(admission.tokens - used_tokens, taken_at=admission.at)

    def headers(self) -> dict[str, str]:
        """Return the rate headers of an answer given now."""
        found: dict[str, str] = {}
        suffix, unit = ("-minute", "") if self._style is RateHeaders.cerebras else ("", "s")
        for name, quota in (("requests", self.requests), ("tokens", self.tokens)):
            if quota is not None and self._style is not RateHeaders.none:
                found[f"x-ratelimit-limit-{name}{suffix}"] = str(quota.limit)
                found[f"x-ratelimit-remaining-{name}{suffix}"] = str(max(0, math.floor(quota.remaining)))
                found[f"x-ratelimit-reset-{name}{suffix}"] = f"{quota.reset_s:.3f}{unit}"
        return found | DAY_HEADERS if self._style is RateHeaders.cerebras else found
