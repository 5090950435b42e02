"""The bells of the jobs that are waited for here: one connection to Redis, however many they are.

A subscription to a job's channel is also how the sweeper sees that the job's client is there. Bells only make waiting
prompt: SQL tells all the same, so whoever waits looks there now and then, more often while Redis is away.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterable

import redis
from redis.asyncio.client import PubSub

from ..schemas.errors import Stopping
from .ending import end_tasks
from .queues import ENDED_NOTICE, job_channel
from .subscriptions import SILENT_S, heard, subscriber

POLL_S = 0.5
"""Seconds between two looks while Redis is away."""
POLL_CONNECTED_S = 2.0
"""Seconds between two looks while bells can be heard: a sender may have lost Redis all the same."""
CONNECT_TIMEOUT_S = 2.0
RECONNECT_S = 0.1
CONFIRM_S = SILENT_S + CONNECT_TIMEOUT_S
"""Seconds for Redis to confirm a subscription, on a new connection if the old one went silent."""
OWN_CHANNEL = "k2think.bells"
"""Nothing is published on it: it keeps the connection subscribed while nobody waits."""


class Bell:
    """What one waiter listens to."""

    def __init__(self, bells: "Doorbells") -> None:
        self._bells = bells
        self._rung = asyncio.Event()
        self._ended = asyncio.Event()
        self.subscribed = asyncio.Event()
        """Whether Redis has confirmed that the bell can be heard."""

    async def ring(self) -> None:
        """Wait until something may have happened. Raises Stopping."""
        await self._wait(self._rung)

    async def end(self) -> None:
        """Wait until the job may have ended. Raises Stopping."""
        await self._wait(self._ended)

    def strike(self, *, ended: bool) -> None:
        """Something happened; `ended`: the job may have ended by it."""
        self._rung.set()
        if ended:
            self._ended.set()

    async def _wait(self, event: asyncio.Event) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(event.wait(), POLL_CONNECTED_S if self._bells.connected else POLL_S)
        event.clear()
        if self._bells.stopping:
            raise Stopping("this gateway is being stopped: send the request again, and another one answers")


class Doorbells:
    """All bells of a process; belongs to one event loop. Connected while a bell is listened to, or `kept`."""

    def __init__(self, broker_url: str) -> None:
        self._url = broker_url
        self._bells: dict[str, set[Bell]] = {}
        self._channel: PubSub | None = None
        self._tried = asyncio.Event()
        """Set when the connection was made, or could not be."""
        self._listener: asyncio.Task[None] | None = None
        self._users = 0
        self.stopping = False
        """Whether nobody may wait here any more."""

    def stop_waiting(self) -> None:
        """Let all who wait for a bell, or will, get Stopping instead: this process is about to end."""
        self.stopping = True
        self._strike(self._bells)

    @property
    def connected(self) -> bool:
        """Whether Redis can be heard."""
        return self._channel is not None

    def is_heard(self, job_id: str) -> bool:
        """Whether Redis has confirmed that somebody here listens to the job's bell, and can be heard now."""
        return self.connected and any(bell.subscribed.is_set() for bell in self._bells.get(job_channel(job_id), ()))

    @contextlib.asynccontextmanager
    async def at(self, job_id: str) -> AsyncGenerator[Bell]:
        """Yield the job's bell. Redis has confirmed before that its channel is subscribed to, if it can be reached."""
        name, bell = job_channel(job_id), Bell(self)
        async with self.kept():
            listeners = self._bells.setdefault(name, set())
            listeners.add(bell)
            try:
                await self._tried.wait()
                await self._tell("subscribe", name)
                if self.connected:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(bell.subscribed.wait(), CONFIRM_S)
                yield bell
            finally:
                listeners.discard(bell)
                if not listeners and self._bells.get(name) is listeners:
                    del self._bells[name]
                    await self._tell("unsubscribe", name)

    @contextlib.asynccontextmanager
    async def kept(self) -> AsyncGenerator[None]:
        """Keep the connection open, so that the next bell needs none."""
        self._users += 1
        if self._listener is None:
            self._tried.clear()
            self._listener = asyncio.get_running_loop().create_task(self._listen())
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                listener, self._listener = self._listener, None
                await end_tasks(listener)

    async def _tell(self, command: str, name: str) -> None:
        """Send a command; when that fails, the listener subscribes to everything anew."""
        channel = self._channel
        if channel is not None:
            with contextlib.suppress(redis.RedisError, OSError):
                await getattr(channel, command)(name)

    async def _listen(self) -> None:
        while True:
            client = subscriber(self._url, timeout_s=CONNECT_TIMEOUT_S)
            channel = client.pubsub()
            try:
                await self._subscribe(channel)
                self._channel = channel
                self._tried.set()
                self._strike(self._bells)  # what was rung meanwhile was not heard
                async for message in heard(channel):
                    if message["type"] == "message":
                        self._strike((message["channel"].decode(),), ended=message["data"].decode() == ENDED_NOTICE)
                    elif message["type"] == "subscribe":
                        for bell in self._bells.get(message["channel"].decode(), ()):
                            bell.subscribed.set()
            except (redis.RedisError, OSError):
                pass
            finally:
                if self._channel is channel:  # another listener may have begun while this one ends
                    self._channel = None
                self._tried.set()
                with contextlib.suppress(redis.RedisError, OSError):
                    await channel.aclose()
                    await client.aclose()
            await asyncio.sleep(RECONNECT_S)

    async def _subscribe(self, channel: PubSub) -> None:
        """Subscribe to what is listened to, and to nothing else: bells may come and go meanwhile."""
        known: set[str] = set()
        while (wanted := {OWN_CHANNEL, *self._bells}) != known:
            if missing := wanted - known:
                await channel.subscribe(*missing)
            if left := known - wanted:
                await channel.unsubscribe(*left)
            known = wanted

    def _strike(self, names: Iterable[str], *, ended: bool = True) -> None:
        for name in names:
            for bell in self._bells.get(name, ()):
                bell.strike(ended=ended)
