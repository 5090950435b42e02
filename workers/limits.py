"""A backend's limits, kept in Redis for all workers: who may call it now, and what the calls tell of the limits.

One script does each step of it, so that it is atomic and one round trip; one task per limiter speaks with Redis, so that a
cancelled caller leaves nothing behind. While Redis is away the same rules are kept by each process for its share.
"""

import asyncio
import contextlib
import hashlib
import json
import random
import time
import uuid
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields, is_dataclass
from importlib.resources import files
from typing import Any, TypeVar, cast

import redis
import redis.asyncio
import structlog
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from ..agents import limit_book
from ..agents.limit_book import STREAM_TTL_S, Book
from ..agents.limit_terms import Answer, Both, Facts, Outcome, Terms
from ..agents.limits import Reservation, read_rate_limits
from ..schemas.backend_settings import BackendSettings
from ..schemas.errors import RateLimited
from .counters import counters
from .ending import end_tasks
from .outage import REDIS, outage_of
from .redis_clients import async_redis_client

KEY_PREFIX = "k2think.limits."
STATE_TTL_S = 3600
"""Seconds after the last call for which what was learned is kept."""
EPOCH_S = 1_700_000_000
"""Times in the script count from here: its JSON has 14 digits."""
REDIS_TIMEOUT_S = 1.0
AWAY_S = 2.0
"""Seconds after a failure for which Redis is not tried again."""
RENEW_S = 5.0
"""Seconds between two signs of life of the streams in flight."""
POLL_SPREAD = 0.1
"""Share of a wait that is added at random."""
CLOSE_S = 1.0
_CONSTANTS = {
    name: value for name, value in vars(limit_book).items() if name.isupper() and isinstance(value, float | int)
}
SCRIPT = "".join(
    f"local {name} = {value}\n"
    for name, value in {**_CONSTANTS, "STATE_TTL_S": STATE_TTL_S, "EPOCH_S": EPOCH_S}.items()
) + files("k2think.workers").joinpath("limits.lua").read_text(encoding="utf-8")
F = TypeVar("F", bound=Facts)
log = structlog.stdlib.get_logger(__name__)


def limiter_of(name: str, settings: BackendSettings, *, broker_url: str) -> "RedisLimiter | None":
    """Return what keeps the limits of a backend; None = it has none."""
    return RedisLimiter(name, settings, broker_url=broker_url) if settings.limited else None


class LimitScript:
    """The script in Redis, for one backend."""

    def __init__(self, client: "redis.asyncio.Redis", name: str) -> None:
        # Braces: a cluster puts both keys into one slot.
        key = f"{KEY_PREFIX}{{{name}}}"
        self.keys = [f"{key}.state", f"{key}.streams"]
        self._run = client.register_script(SCRIPT)

    async def reserve(self, terms: Terms, *, process: str, id: str, tokens: int, now: float | None = None) -> Answer:
        """As `Book.reserve`, at `now` or by the clock of Redis. Raises redis-py's errors and OSError."""
        said = await self._do("reserve", terms, now, process=process, id=id, tokens=tokens)
        for pair in ("held", "carried"):
            if pair in said:
                said[pair] = Both[float](**said[pair])
        return Answer(**said)

    async def settle(self, terms: Terms, outcome: Outcome, *, now: float | None = None) -> Facts:
        """As `Book.settle`."""
        return Facts(**await self._do("settle", terms, now, outcome=outcome))

    async def renew(self, terms: Terms, *, process: str, ids: list[str], now: float | None = None) -> Facts:
        """As `Book.renew`."""
        return Facts(**await self._do("renew", terms, now, process=process, ids=ids))

    async def leave(self, terms: Terms, *, process: str, now: float | None = None) -> Facts:
        """As `Book.leave`."""
        return Facts(**await self._do("leave", terms, now, process=process))

    async def _do(self, what: str, terms: Terms, now: float | None, **more: object) -> dict[str, Any]:
        arguments = json.dumps(_plain({"terms": terms, **more}))
        said = await self._run(keys=self.keys, args=[what, arguments, "" if now is None else repr(now)])
        return json.loads(said)


@dataclass(eq=False, slots=True)
class _Turn:
    """A turn that was granted."""

    id: str
    answer: Answer
    local: bool
    """Whether it was granted here, while Redis was away."""


@dataclass(eq=False, slots=True)
class _Waiter:
    tokens: int
    turn: "asyncio.Future[_Turn]"


class RedisLimiter:
    """Keeps the limits of one backend. Belongs to the event loop on which it is used."""

    def __init__(self, name: str, settings: BackendSettings, *, broker_url: str) -> None:
        """Connect to nothing yet. Raises ConfigurationError."""
        self.name = name
        """Name of the backend."""
        self._terms = Terms(
            requests=settings.requests_per_minute,
            tokens=settings.tokens_per_minute,
            streams=settings.streams_max,
            adaptive=settings.adapts,
        )
        self._patience_s = settings.retry_after_max_s
        self._process = uuid.uuid4().hex
        self._client = async_redis_client(
            broker_url,
            socket_timeout=REDIS_TIMEOUT_S,
            socket_connect_timeout=REDIS_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
        )
        self._script = LimitScript(self._client, f"{name}.{_place(settings)}")
        self._outage = outage_of(REDIS)
        self._away_until = 0.0
        """Until when (monotonic) Redis is not tried."""
        self._book = Book()
        """Kept here while Redis is away."""
        self._facts = Facts()
        """What Redis said last."""
        self._waiting: deque[_Waiter] = deque()
        self._ended: deque[tuple[_Turn, Outcome]] = deque()
        self._unheard: deque[tuple[float, Outcome]] = deque()
        """What Redis may not have heard, and until when (monotonic) it matters. It takes none of it twice."""
        self._in_flight: dict[str, _Turn] = {}
        self._in_line = False
        """Whether this process has a place in the line."""
        self._renew_at = 0.0
        self._news = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._closing = False

    @asynccontextmanager
    async def reserve(self, *, tokens: int) -> AsyncGenerator[Reservation]:
        """Wait for a turn. See `Limiter.reserve`."""
        began = time.monotonic()
        turn = await self._turn(tokens)
        reservation = Reservation(tokens, waited_s=time.monotonic() - began)
        try:
            yield reservation
        finally:
            self._end(turn, reservation)

    @property
    def shared(self) -> bool:
        """Whether the limits are kept in Redis; False = it is away."""
        return time.monotonic() >= self._away_until

    async def aclose(self) -> None:
        """Give back what has ended, and disconnect."""
        if self._keeper is not None:
            self._closing = True
            self._news.set()
            await asyncio.wait([self._keeper], timeout=CLOSE_S)
            await end_tasks(self._keeper)
        for waiter in self._waiting:
            waiter.turn.cancel()
        await self._client.aclose()

    async def _turn(self, tokens: int) -> _Turn:
        loop = asyncio.get_running_loop()
        waiter = _Waiter(tokens, loop.create_future())
        self._waiting.append(waiter)
        if self._keeper is None or self._keeper.done():
            self._keeper = loop.create_task(self._keep())
        elif len(self._waiting) == 1:
            self._news.set()
        try:
            return await waiter.turn
        except BaseException:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
                self._news.set()
            elif not waiter.turn.cancelled() and waiter.turn.exception() is None:
                # It was granted, and its caller was cancelled before it could know.
                self._end(waiter.turn.result(), Reservation(tokens))
            raise

    def _end(self, turn: _Turn, reservation: Reservation) -> None:
        told = read_rate_limits(reservation.rate_limits)
        quotas = (told.requests, told.tokens)
        outcome = Outcome(
            id=turn.id,
            granted=turn.answer,
            tokens=reservation.tokens,
            used=reservation.used_tokens,
            refused=reservation.refusal,
            overloaded=reservation.overload,
            retry_after_s=reservation.retry_after_s,
            first_token_s=reservation.first_token_s,
            limits=Both(*(None if quota is None else quota.limit for quota in quotas)),
            remaining=Both(*(None if quota is None else quota.remaining for quota in quotas)),
            spent_s=told.spent_s,
        )
        if reservation.refusal:
            counters().throttled(self.name)
        self._ended.append((turn, outcome))
        self._news.set()

    async def _keep(self) -> None:
        """Speak with Redis for all callers, one thing after the other."""
        while not self._closing or self._ended:
            self._news.clear()
            try:
                wait_s = await self._round()
            except Exception as exc:
                log.exception("limiter_crashed", backend=self.name)
                self._fail(exc)
                wait_s = None
            if wait_s != 0 and not self._closing:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await self._news.wait()

    async def _round(self) -> float | None:
        """Settle what has ended, then ask for the first in line; return when to do so again, None = when there is news."""
        while self._unheard and self.shared:
            until, outcome = self._unheard.popleft()
            if time.monotonic() < until:
                await self._settle_in_redis(outcome)
        while self._ended:
            await self._settle(*self._ended.popleft())
        now = time.monotonic()
        if self._in_flight and now >= self._renew_at:
            await self._renew()
            self._renew_at = now + RENEW_S
        renew_s = AWAY_S if self._unheard else None
        if self._in_flight:
            renew_s = max(0.001, self._renew_at - now)
        if not self._waiting:
            if self._in_line:
                await self._leave()
            return renew_s
        waiter = self._waiting[0]
        turn = await self._ask(waiter.tokens)
        answer = turn.answer
        self._in_line = not answer.granted
        if answer.granted:
            if not self._in_flight:
                self._renew_at = time.monotonic() + RENEW_S
            self._in_flight[turn.id] = turn
            if waiter.turn.done() or waiter not in self._waiting:
                self._end(turn, Reservation(waiter.tokens))
            else:
                self._waiting.remove(waiter)
                waiter.turn.set_result(turn)
            return 0
        if answer.pause_s > self._patience_s:
            self._fail(
                RateLimited(
                    f"backend {self.name!r} asked all callers to wait {answer.pause_s:.0f} s more; retry after that",
                    retry_after_s=answer.pause_s,
                )
            )
            return 0
        wait_s = answer.wait_s * (1 + random.uniform(0.0, POLL_SPREAD))
        return wait_s if renew_s is None else min(wait_s, renew_s)

    def _fail(self, exc: Exception) -> None:
        while self._waiting:
            turn = self._waiting.popleft().turn
            if not turn.done():
                turn.set_exception(exc)

    async def _ask(self, tokens: int) -> _Turn:
        id = uuid.uuid4().hex
        process, tried = self._process, self.shared
        answer = await self._in_redis(lambda: self._script.reserve(self._terms, process=process, id=id, tokens=tokens))
        if answer is not None:
            return _Turn(id, answer, local=False)
        if tried:
            # It may have been granted by a Redis that could not say so.
            self._unheard.append((time.monotonic() + STREAM_TTL_S, Outcome(id=id, granted=Answer(), tokens=tokens)))
        answer = self._book.reserve(time.monotonic(), self._share(), process=process, id=id, tokens=tokens)
        return _Turn(id, answer, local=True)

    async def _settle(self, turn: _Turn, outcome: Outcome) -> None:
        self._in_flight.pop(turn.id, None)
        if turn.local:
            self._book.settle(time.monotonic(), self._share(), outcome)
        else:
            await self._settle_in_redis(outcome)

    async def _settle_in_redis(self, outcome: Outcome) -> None:
        if await self._in_redis(lambda: self._script.settle(self._terms, outcome)) is None:
            self._unheard.append((time.monotonic() + STREAM_TTL_S, outcome))

    async def _renew(self) -> None:
        local = [id for id, turn in self._in_flight.items() if turn.local]
        remote = [id for id, turn in self._in_flight.items() if not turn.local]
        if local:
            self._book.renew(time.monotonic(), self._share(), process=self._process, ids=local)
        if remote:
            await self._in_redis(lambda: self._script.renew(self._terms, process=self._process, ids=remote))

    async def _leave(self) -> None:
        self._in_line = False
        self._book.leave(self._process)
        await self._in_redis(lambda: self._script.leave(self._terms, process=self._process))

    async def _in_redis(self, call: Callable[[], Awaitable[F]]) -> F | None:
        """Return what Redis says; None = it is away."""
        if not self.shared:
            return None
        try:
            said = await call()
        except (redis.RedisError, OSError) as exc:
            self._outage.lost(exc)
            self._away_until = time.monotonic() + AWAY_S
            return None
        self._outage.back()
        self._facts = said
        counters().streams_allowed(self.name, said.streams)
        return said

    def _share(self) -> Terms:
        """Return the limits of this process alone, by what Redis said last."""
        facts = self._facts
        known = self._terms
        requests, tokens = facts.requests or known.requests, facts.tokens or known.tokens
        streams = facts.streams or known.streams
        return Terms(
            requests=None if requests is None else requests / facts.peers,
            tokens=None if tokens is None else tokens / facts.peers,
            streams=None if streams is None else max(1, streams // facts.peers),
            adaptive=known.adaptive,
        )


def _place(settings: BackendSettings) -> str:
    """Return a short name of a server and model: two roles may call different servers by one kind's name."""
    return hashlib.sha256(f"{settings.base_url} {settings.model}".encode()).hexdigest()[:8]


def _plain(value: Any) -> Any:
    """Return what JSON can say, without what is None: Lua would take it for something."""
    if isinstance(value, Both):
        pair = cast("Both[Any]", value)
        return _plain(pair._asdict())
    if is_dataclass(value) and not isinstance(value, type):
        return _plain({field.name: getattr(value, field.name) for field in fields(value)})
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in cast("dict[str, Any]", value).items() if part is not None}
    return value
