"""How much each tenant may, and what happens when the queue is full: 429 and 503, both with a Retry-After that is true."""

from __future__ import annotations

import asyncio
import random
import statistics
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from harness.gateway import RunningGateway
from harness.stack import RunningUp
from k2think.agents.backends.simulator import SimulatedEngine, SimulatedServer, SolvingResponder
from k2think.gateway.limits import MINUTE_S, wait_of
from k2think.store.tables import jobs
from k2think.workers.submit import FULL_REMEMBERED_S
from sqlalchemy import func, select, update

if TYPE_CHECKING:
    from .conftest import StartGateway

PROBLEM: dict[str, Any] = {"problem": "What is 347 + 58?"}
FULL_ANSWER_S = 0.1
"""Within which a full queue is told."""


@pytest.fixture(scope="module")
def gateway(start_gateway: StartGateway) -> RunningGateway:
    """A gateway without workers: what it accepts stays unfinished."""
    return start_gateway()


@pytest.fixture
def http(gateway: RunningGateway, tenant: str) -> Iterator[httpx.Client]:
    with gateway.client(gateway.key(tenant)) as client:
        yield client


def submit(http: httpx.Client, **headers: str) -> httpx.Response:
    return http.post("/v1/jobs", json=PROBLEM, headers=headers)


def is_limited(answer: httpx.Response) -> int:
    """Check the form of a 429; return its Retry-After in seconds."""
    assert answer.status_code == 429, answer.text
    error = answer.json()["error"]
    assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
    return int(answer.headers["retry-after"])


def unfinished(gateway: RunningGateway, tenant: str) -> int:
    count = select(func.count()).where(jobs.c.tenant == tenant, jobs.c.finished_at.is_(None))
    return gateway.database.read_sync(lambda conn: conn.execute(count).scalar_one())


# ---- Requests a minute


def test_a_minutes_requests_are_counted_for_each_tenant(gateway: RunningGateway, tenant: str) -> None:
    gateway.limit(tenant, requests_per_minute=3)
    other = gateway.key(f"{tenant}-other")
    with gateway.client(gateway.key(tenant)) as http, gateway.client(gateway.key(tenant)) as same_tenant:
        assert [submit(http).status_code for _ in range(3)] == [202] * 3
        assert 1 <= is_limited(submit(http)) <= 2 * MINUTE_S
        assert is_limited(submit(same_tenant))
        assert is_limited(http.post("/v1/chat/completions", json={"model": "k2think", "messages": []}))
        # Looking is free.
        assert http.get("/v1/jobs").status_code == 200
        with gateway.client(other) as neighbour:
            assert submit(neighbour).status_code == 202


def test_without_a_redis_requests_pass(tmp_path: Path) -> None:
    from conftest import RedisServer

    server = RedisServer(tmp_path)
    with RunningGateway(tmp_path, server.url) as gateway, gateway.client() as http:
        gateway.limit("default", requests_per_minute=1)
        assert submit(http).status_code == 202
        assert is_limited(submit(http))
        server.kill()
        assert [submit(http).status_code for _ in range(3)] == [202] * 3


def test_the_wait_that_is_told_is_enough_and_not_much_too_long() -> None:
    chance = random.Random(7)
    for _ in range(2_000):
        limit, before, now = chance.randint(1, 50), chance.randint(0, 60), chance.randint(1, 60)
        elapsed_s = chance.random() * MINUTE_S
        wait_s = wait_of(limit, before=before, now=now, elapsed_s=elapsed_s)
        if wait_s is None:
            assert now <= limit
            continue

        def admitted(after_s: float, now: int = now, before: int = before, elapsed_s: float = elapsed_s) -> bool:
            # Refused requests are not counted; this one comes again.
            minutes, at_s = divmod(elapsed_s + after_s, MINUTE_S)
            counts = {0: (before, now), 1: (now - 1, 1)}.get(int(minutes), (0, 1))
            return wait_of(limit, before=counts[0], now=counts[1], elapsed_s=at_s) is None  # noqa: B023

        assert admitted(wait_s + 0.001)
        assert not admitted(max(0.0, wait_s - 1.0)) or wait_s <= 1.0


def test_a_new_minute_does_not_give_the_limit_a_second_time() -> None:
    assert wait_of(10, before=10, now=1, elapsed_s=0.0) == pytest.approx(6.0)
    assert wait_of(10, before=10, now=5, elapsed_s=30.0) is None
    assert wait_of(10, before=10, now=6, elapsed_s=30.0) == pytest.approx(6.0)
    assert wait_of(0, before=0, now=1, elapsed_s=0.0) == MINUTE_S


# ---- Tokens a day


def test_a_days_tokens_stop_new_work_until_midnight_utc(
    gateway: RunningGateway, http: httpx.Client, tenant: str
) -> None:
    gateway.limit(tenant, tokens_per_day=1_000)
    job_id = submit(http).json()["id"]
    used = update(jobs).where(jobs.c.id == job_id).values(tokens=1_000, finished_at=time.time(), status="succeeded")
    gateway.database.run_sync(lambda conn: conn.execute(used))
    time.sleep(3.5)  # what the gateway remembers

    wait_s = is_limited(submit(http))

    now = time.time()
    assert abs((now + wait_s) % 86_400) < 5 or abs((now + wait_s) % 86_400 - 86_400) < 5


# ---- Jobs in flight


def test_a_tenant_has_so_many_unfinished_jobs_and_no_more(
    gateway: RunningGateway, http: httpx.Client, tenant: str
) -> None:
    gateway.limit(tenant, jobs_in_flight=2)
    key = uuid.uuid4().hex
    first = submit(http, **{"Idempotency-Key": key}).json()["id"]
    assert submit(http).status_code == 202
    assert is_limited(submit(http))
    # One that is sent again is the same job, and no further one.
    assert submit(http, **{"Idempotency-Key": key}).json()["id"] == first

    assert http.post(f"/v1/jobs/{first}/cancel").status_code == 200
    assert submit(http).status_code == 202
    assert is_limited(submit(http))


def test_many_at_once_do_not_get_past_the_limit(gateway: RunningGateway, tenant: str) -> None:
    gateway.limit(tenant, jobs_in_flight=5)
    key = gateway.key(tenant)
    with gateway.client(key) as http, ThreadPoolExecutor(20) as threads:
        answers = list(threads.map(lambda _: submit(http).status_code, range(40)))

    assert sorted(answers) == [202] * 5 + [429] * 35
    assert unfinished(gateway, tenant) == 5


def test_choices_that_do_not_all_fit_leave_nothing_behind(
    gateway: RunningGateway, http: httpx.Client, tenant: str
) -> None:
    gateway.limit(tenant, jobs_in_flight=2)
    body = {"model": "k2think", "n": 3, "messages": [{"role": "user", "content": "What is 1 + 1?"}]}

    assert is_limited(http.post("/v1/chat/completions", json=body))

    assert unfinished(gateway, tenant) == 0


# ---- The bounded queue


def test_beyond_the_queues_limit_no_job_is_accepted_of_any_tenant(tmp_path: Path) -> None:
    from conftest import RedisServer

    server = RedisServer(tmp_path)
    try:
        with (
            RunningGateway(tmp_path, server.url, K2THINK_QUEUE_MAX="3") as gateway,
            gateway.client(gateway.key("a")) as one,
            gateway.client(gateway.key("b")) as other,
        ):
            key = {"Idempotency-Key": uuid.uuid4().hex}
            first = submit(one, **key).json()["id"]
            assert [submit(one).status_code for _ in range(2)] == [202] * 2
            for http in (one, other, one):
                refused = submit(http)
                assert refused.status_code == 503
                assert int(refused.headers["retry-after"]) >= 1
                assert refused.json()["error"]["code"] == "queue_full"
            assert submit(one, **key).json()["id"] == first, "it was accepted, and is found again"
            assert one.post(f"/v1/jobs/{first}/cancel").status_code == 200
            time.sleep(FULL_REMEMBERED_S)
            assert submit(other).status_code == 202
    finally:
        server.kill()


@pytest.fixture
def slow_server() -> Iterator[SimulatedServer]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    engine = SimulatedEngine(slots=64, token_s=0.05)
    server = SimulatedServer(SolvingResponder(accuracy=1.0, reasoning_tokens=40), engine=engine)
    asyncio.run_coroutine_threadsafe(server.start(), loop).result(10)
    try:
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def test_a_full_queue_is_told_at_once_and_what_was_accepted_is_finished(
    tmp_path: Path, slow_server: SimulatedServer
) -> None:
    up = RunningUp(
        tmp_path,
        {
            "K2THINK_GENERATOR__BACKEND": "openai",
            "K2THINK_GENERATOR__BASE_URL": slow_server.url,
            "K2THINK_GENERATOR__MODEL": "simulated",
            "K2THINK_QUEUE_MAX": "25",
        },
    )
    try:
        up.wait_for(lambda: up.count("worker_started") >= 5 and up.count("gateway_started") >= 1, "the start of `up`")
        with httpx.Client(base_url=up.url, timeout=60) as http, ThreadPoolExecutor(10) as threads:
            answers = list(threads.map(lambda _: submit(http), range(60)))
            accepted = [answer.json()["id"] for answer in answers if answer.status_code == 202]
            refused = [answer for answer in answers if answer.status_code == 503]
            # The queue is full and the workers are busy with it.
            told_in_s = [answer.elapsed.total_seconds() for answer in refused[-20:]]
            assert len(accepted) + len(refused) == 60
            assert len(accepted) >= 25
            assert len(refused) >= 20
            assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
            assert statistics.median(told_in_s) < FULL_ANSWER_S, told_in_s

            deadline = time.monotonic() + 90
            waiting = set(accepted)
            while waiting and time.monotonic() < deadline:
                waiting -= {each for each in waiting if http.get(f"/v1/jobs/{each}").json()["status"] == "succeeded"}
                time.sleep(0.2)
            assert not waiting
            # And there is room again.
            assert submit(http).status_code == 202
    finally:
        up.stop()
