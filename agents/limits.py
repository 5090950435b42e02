"""Limits that all callers of a backend share, as an agent meets them: it waits for its turn, and tells what came of it.

Who keeps the limits is not known here: `workers/limits.py` keeps them in Redis, by the rules of `limit_book.py`.
"""

import re
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Protocol

DAY_FROM_S = 1800.0
"""A quota without a name of its time that would take longer than this to fill anew is not one of a minute."""
MINUTE_S = 60.0
_HEADER = re.compile(r"x-ratelimit-(limit|remaining|reset)-(requests|tokens)(?:[-_](?:per[-_])?(minute|hour|day))?")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|)")
_UNIT_S = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


@dataclass
class Reservation:
    """One turn at a backend. What is not settled when it is left, was not used and is given back whole."""

    tokens: int
    """Tokens reserved: prompt and completion at most."""
    waited_s: float | None = None
    """Seconds that the turn was waited for; None = there is nothing to wait for."""
    used_tokens: int | None = None
    """Tokens of the call; None = it was not begun, or refused."""
    first_token_s: float | None = None
    """Seconds from the turn to the first token; None = none came."""
    rate_limits: Mapping[str, str] = field(default_factory=dict[str, str])
    """The `x-ratelimit-…` headers of the answer."""
    refusal: bool = False
    """Whether the server said that too much is sent (429): everybody pauses."""
    overload: bool = False
    """Whether the server said that it has too much to do: fewer streams, but no pause unless it named one."""
    retry_after_s: float | None = None
    """Seconds to wait as told with a refusal or overload; None = not told."""

    def settle(self, used_tokens: int) -> None:
        """The call has ended, or broke off, after so many tokens of prompt and completion."""
        self.used_tokens = used_tokens

    def refused(self, retry_after_s: float | None) -> None:
        """The server takes no more for now: 429."""
        self.refusal, self.retry_after_s = True, retry_after_s

    def overloaded(self, retry_after_s: float | None) -> None:
        """The server cannot keep up: 503, or a 429 about its own queue."""
        self.overload, self.retry_after_s = True, retry_after_s

    def told(self, rate_limits: Mapping[str, str]) -> None:
        """The answer had these rate headers."""
        self.rate_limits = rate_limits

    def first_token(self, seconds: float) -> None:
        """The first token came so many seconds after the turn."""
        self.first_token_s = seconds


class Limiter(Protocol):
    """Whoever keeps a backend's limits."""

    def reserve(self, *, tokens: int) -> AbstractAsyncContextManager[Reservation]:
        """Wait for a turn to use `tokens` at most. Raises RateLimited when the server has asked for a pause that is not
        waited for.
        """
        ...


class Unlimited:
    """No limits."""

    def reserve(self, *, tokens: int) -> AbstractAsyncContextManager[Reservation]:
        """Let everybody pass."""
        return nullcontext(Reservation(tokens))


UNLIMITED = Unlimited()


@dataclass(frozen=True)
class Quota:
    """A quota per minute, as the server tells it."""

    limit: int
    """Requests or tokens per minute."""
    remaining: int | None
    """What is left of it; None = not told."""


@dataclass(frozen=True)
class ToldLimits:
    """What rate headers say."""

    requests: Quota | None = None
    """None = not told."""
    tokens: Quota | None = None
    """None = not told."""
    spent_s: float = 0.0
    """Seconds until a quota per hour or day, of which nothing is left, is there again; 0 = something is left of all."""


def read_rate_limits(headers: Mapping[str, str]) -> ToldLimits:
    """Read `x-ratelimit-{limit,remaining,reset}-{requests,tokens}[-minute|-hour|-day]` (names in lower case).

    Cerebras names the time of each quota and tells resets in seconds; OpenAI and Groq name none, tell resets as `6m0s`, and
    mean a day by some: there, the time is what filling up takes at the pace that reset and remaining tell. Limits of 0 and
    -1 (Azure) say nothing.
    """
    found: dict[tuple[str, str | None], dict[str, float]] = {}
    for name, text in headers.items():
        matched = _HEADER.fullmatch(name)
        value = _seconds(text) if matched and matched[1] == "reset" else _count(text)
        if matched is not None and value is not None:
            found.setdefault((matched[2], matched[3]), {})[matched[1]] = value
    quotas: dict[str, Quota] = {}
    spent_s = 0.0
    for (kind, span), values in found.items():
        limit, remaining, reset_s = values.get("limit", 0.0), values.get("remaining"), values.get("reset", 0.0)
        if limit <= 0:
            continue
        if span == "minute" or (span is None and _fill_s(limit, remaining, reset_s) < DAY_FROM_S):
            quota = Quota(int(limit), None if remaining is None else int(remaining))
            if kind not in quotas or quota.limit < quotas[kind].limit:
                quotas[kind] = quota
        elif remaining is not None and remaining < 1:
            spent_s = max(spent_s, reset_s)
    return ToldLimits(requests=quotas.get("requests"), tokens=quotas.get("tokens"), spent_s=spent_s)


def _fill_s(limit: float, remaining: float | None, reset_s: float) -> float:
    """Return the seconds in which an empty quota is full; a minute where the headers do not say."""
    if remaining is None or remaining >= limit or reset_s <= 0:
        return MINUTE_S
    return reset_s * limit / (limit - remaining)


def _count(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value < 1e15 else None


def _seconds(text: str) -> float | None:
    """Read `11.5`, `12ms`, `6m0s` or `1h2m3.5s`; None = something else, or a point in time."""
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text.strip():
        return None
    seconds = sum(float(number) * _UNIT_S[unit] for number, unit in parts)
    return seconds if seconds < 366 * _UNIT_S["d"] else None
