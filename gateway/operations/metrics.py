"""/metrics: the counters of every process, from its row, and how things stand, from the database.

All values come from SQL and none from this very process, so that it does not matter which gateway is asked: a counter
that went backwards between two gateways would look like a restart. One scrape of any of them tells of the whole system.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import redis
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector
from sqlalchemy import Connection

from ...schemas.batches import BatchStatus
from ...schemas.jobs import JobStatus
from ...schemas.messages import AgentKind
from ...schemas.settings import Settings
from ...store.door_tables import OPEN_BATCH_SQL
from ...store.gauges import Gauges, QueueGauges, read_gauges
from ...store.workers import ROLES_NEEDED, WorkerRow, roles_served, seen_workers
from ...workers.counters import counters
from ...workers.queues import INTAKE, list_keys
from ..services import Services
from .pools import pool_loads

SHOWN_S = 300.0
"""Seconds after its last sign of life in which a process's counters are still told, so that a scrape sees its last ones."""
MAX_AGE_S = 1.0
TIMEOUT_S = 10.0
CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
_NOT_WORKERS = ("sweeper", "gateway")
_ROLES_SHOWN = (*ROLES_NEEDED, INTAKE, "gateway")
_UNFINISHED = (JobStatus.queued, JobStatus.running)
_OPEN_BATCHES = tuple(status for status in BatchStatus if f"'{status.value}'" in OPEN_BATCH_SQL)


@dataclass(frozen=True, slots=True)
class Reading:
    """What one scrape tells."""

    rows: list[WorkerRow]
    """Processes heard of in the last SHOWN_S seconds."""
    alive_since: float
    """Unix time in seconds; those whose last sign is older count as dead."""
    gauges: Gauges
    """From the database."""
    messages: dict[str, int] | None
    """Messages in Redis by queue; None = it cannot be reached."""
    jobs_max: int
    """Unfinished jobs above which no new ones are accepted."""
    backends: dict[str, tuple[str, ...]]
    """Named backends, and what a request may call each."""

    def alive(self, role: str) -> list[WorkerRow]:
        """Return the processes that serve a role, and were not told to stop."""
        return [row for row in self.rows if self.is_alive(row) and not row.draining and role in roles_served(row.role)]

    def is_alive(self, row: WorkerRow) -> bool:
        """Whether a process has been heard of lately."""
        return row.seen_at >= self.alive_since


async def read_all(services: Services) -> Reading:
    """Read everything in one snapshot of the database. Raises StoreError."""
    now, settings = services.database.now(), services.settings

    def read(connection: Connection) -> tuple[list[WorkerRow], Gauges]:
        return seen_workers(connection, since=now - SHOWN_S), read_gauges(connection, now=now)

    rows, gauges = await services.database.read(read)
    messages = await _messages(services, sorted({*_queues(settings), *gauges.queues}))
    names = {name: settings.names_of(name) for name in settings.backends}
    return Reading(rows, now - settings.lease_s, gauges, messages, settings.queue_max, names)


def render(reading: Reading) -> bytes:
    """Return the text that Prometheus reads."""
    registry = CollectorRegistry()
    registry.register(_Collected(reading))
    return generate_latest(registry)


class _Collected(Collector):
    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def collect(self) -> Iterator[Metric]:
        yield from _of_processes(self._reading.rows)
        yield from _of_workers(self._reading)
        yield from _of_roles(self._reading)
        yield from _of_pools(self._reading)
        yield from _of_doors(self._reading)


def _of_processes(rows: Iterable[WorkerRow]) -> Iterator[Metric]:
    """The counters of each process, with its id as a label. Names that this version does not know are left out."""
    families = {
        family.name: Metric(family.name, family.documentation, family.type) for family in counters().registry.collect()
    }
    for row in rows:
        snapshot = cast(dict[str, list[tuple[str, dict[str, str], float]]], json.loads(row.metrics))
        for name, samples in snapshot.items():
            family = families.get(name)
            if family is not None:
                own = {"hostname" if name.startswith("celery_") else "worker": row.worker}
                for sample, labels, value in samples:
                    family.add_sample(sample, labels | own, value)
    yield from families.values()


def _of_workers(reading: Reading) -> Iterator[Metric]:
    up = GaugeMetricFamily(
        "celery_worker_up", "1 = the worker gives signs of life, 0 = it stopped.", labels=["hostname"]
    )
    active = GaugeMetricFamily("celery_worker_tasks_active", "Steps that the worker runs.", labels=["hostname"])
    for row in reading.rows:
        if row.role not in _NOT_WORKERS:
            up.add_metric([row.worker], float(reading.is_alive(row)))
            active.add_metric([row.worker], row.running if reading.is_alive(row) else 0)
    alive = GaugeMetricFamily(
        "k2think_workers", "Living processes that serve the role and were not told to stop.", labels=["role"]
    )
    for role in _ROLES_SHOWN:
        alive.add_metric([role], len(reading.alive(role)))
    yield from (up, active, alive)


def _of_roles(reading: Reading) -> Iterator[Metric]:
    places = ["role", "queue"]
    ready = GaugeMetricFamily("k2think_steps_ready", "Steps that wait for a worker.", labels=places)
    running = GaugeMetricFamily("k2think_steps_running", "Steps under a worker's lease.", labels=places)
    oldest = GaugeMetricFamily(
        "k2think_oldest_ready_step_seconds", "Seconds that the longest waiting step has been ready.", labels=places
    )
    capacity = GaugeMetricFamily(
        "k2think_capacity",
        "Steps that the role's living workers run at once; a worker of role all counts in each.",
        labels=["role"],
    )
    load = GaugeMetricFamily(
        "k2think_load", "(waiting + running) / capacity; +Inf = work, and nobody to do it.", labels=["role"]
    )
    for agent in AgentKind:
        role = agent.value
        found = {queue: gauges for queue, gauges in reading.gauges.queues.items() if queue.split(".", 1)[0] == role}
        for queue, gauges in ({role: QueueGauges()} | found).items():
            ready.add_metric([role, queue], gauges.ready)
            running.add_metric([role, queue], gauges.running)
            oldest.add_metric([role, queue], gauges.oldest_ready_s)
        room = sum(row.capacity for row in reading.alive(role))
        work = sum(gauges.ready + gauges.running for gauges in found.values())
        capacity.add_metric([role], room)
        load.add_metric([role], work / room if room else float("inf") if work else 0.0)
    yield from (ready, running, oldest, capacity, load)
    if reading.messages is not None:
        length = GaugeMetricFamily(
            "celery_queue_length", "Messages in Redis that no worker has fetched yet.", labels=["queue_name"]
        )
        for queue, count in reading.messages.items():
            length.add_metric([queue], count)
        yield length


def _of_pools(reading: Reading) -> Iterator[Metric]:
    capacity = GaugeMetricFamily(
        "k2think_backend_capacity",
        "Steps that the living generators bound to the named backend run at once.",
        labels=["backend"],
    )
    load = GaugeMetricFamily(
        "k2think_backend_load",
        "As k2think_load, of the generators bound to the named backend; what several of them serve counts by capacity.",
        labels=["backend"],
    )
    generators = reading.alive(AgentKind.generator.value)
    for backend, pool in pool_loads(generators, reading.gauges.queues, reading.backends).items():
        capacity.add_metric([backend], pool.capacity)
        load.add_metric([backend], pool.load)
    yield from (capacity, load)


def _of_doors(reading: Reading) -> Iterator[Metric]:
    gauges = reading.gauges
    unfinished = GaugeMetricFamily("k2think_jobs_unfinished", "Jobs that have not ended, by status.", labels=["status"])
    for status in _UNFINISHED:
        unfinished.add_metric([status.value], gauges.jobs.get(status.value, 0))
    open_batches = GaugeMetricFamily(
        "k2think_batches_open", "Batches that have not ended, by status.", labels=["status"]
    )
    for status in _OPEN_BATCHES:
        open_batches.add_metric([status.value], gauges.batches.get(status.value, 0))
    deliveries = GaugeMetricFamily(
        "k2think_deliveries_open",
        "Webhooks to send: waiting for the end of what they tell of or for a first try, or retrying after a failed one.",
        labels=["state"],
    )
    for state, count in gauges.deliveries.items():
        deliveries.add_metric([state], count)
    yield from (unfinished, open_batches, deliveries)
    for name, text, value in (
        ("k2think_jobs_unfinished_max", "Unfinished jobs above which none is accepted.", reading.jobs_max),
        ("k2think_batch_lines_open", "Lines of open batches that have not ended.", gauges.batch_lines),
        ("k2think_dead_letter_steps", "Steps given up, as long as their jobs are kept.", gauges.dead_letter_steps),
    ):
        yield GaugeMetricFamily(name, text, value=value)


def _queues(settings: Settings) -> list[str]:
    return [INTAKE, *(agent.value for agent in AgentKind), *(f"generator.{name}" for name in settings.generator_names)]


async def _messages(services: Services, queues: list[str]) -> dict[str, int] | None:
    """Count the messages of each queue; None = Redis cannot be reached, which its own check tells of."""
    try:
        async with services.redis.pipeline(transaction=False) as pipeline:
            for queue in queues:
                for key in list_keys(queue):
                    cast(Any, pipeline).llen(key)
            lengths = cast(list[int], await pipeline.execute())
    except (redis.RedisError, OSError):
        return None
    each = len(list_keys(INTAKE))
    return {queue: sum(lengths[number * each : (number + 1) * each]) for number, queue in enumerate(queues)}
