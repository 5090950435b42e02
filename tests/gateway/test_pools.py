"""The load of each pool of generators: what its workers run and what waits for them, by what they can run at once."""

import math
from dataclasses import replace

import pytest
from k2think.gateway.operations.pools import pool_loads
from k2think.store.gauges import QueueGauges
from k2think.store.workers import WorkerRow

ROW = WorkerRow(
    worker="w", role="generator", host="h", pid=1, version="1", backend=None, capacity=100, running=0, draining=False,
    started_at=0.0, seen_at=0.0, metrics="{}",
)  # fmt: skip
NAMES = {"fast": ("fast", "cheap"), "slow": ("slow", "cheap"), "off": ("off", "rare")}


def workers(**of: tuple[int, int]) -> list[WorkerRow]:
    """One worker for each backend: capacity and running steps. `none` is bound to no backend."""
    return [
        replace(ROW, backend=None if name == "none" else name, capacity=capacity, running=running)
        for name, (capacity, running) in of.items()
    ]


def test_nothing_to_do_is_no_load() -> None:
    assert {name: pool.load for name, pool in pool_loads([], {}, NAMES).items()} == {"fast": 0, "slow": 0, "off": 0}


def test_what_runs_counts_for_its_own_pool() -> None:
    loads = pool_loads(workers(fast=(100, 80), slow=(50, 10)), {}, NAMES)
    assert (loads["fast"].load, loads["slow"].load, loads["off"].load) == (0.8, 0.2, 0.0)


def test_the_shared_queue_counts_by_capacity() -> None:
    queues = {"generator": QueueGauges(ready=400)}
    loads = pool_loads(workers(fast=(100, 100), slow=(50, 0), none=(50, 50)), queues, NAMES)
    assert loads["fast"].load == pytest.approx((100 + 200) / 100)
    assert loads["slow"].load == pytest.approx(100 / 50)


def test_a_class_counts_for_those_that_serve_it_and_a_name_for_its_own() -> None:
    queues = {"generator.cheap": QueueGauges(ready=60), "generator.slow": QueueGauges(ready=10)}
    loads = pool_loads(workers(fast=(100, 0), slow=(50, 0), none=(50, 0)), queues, NAMES)
    assert loads["fast"].work == pytest.approx(40)
    assert loads["slow"].work == pytest.approx(20 + 10)


def test_work_that_meets_no_worker_is_infinite() -> None:
    loads = pool_loads(workers(fast=(100, 0)), {"generator.rare": QueueGauges(ready=1)}, NAMES)
    assert math.isinf(loads["off"].load)
    assert loads["fast"].load == 0


def test_a_pool_without_workers_does_not_wait_for_what_others_serve() -> None:
    loads = pool_loads(workers(fast=(100, 0)), {"generator.cheap": QueueGauges(ready=5)}, NAMES)
    assert loads["slow"].load == 0
    assert loads["fast"].work == 5
