"""/health/live, /health/ready and /metrics: on real databases and Redis, with and without workers."""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from harness.asgi import gateway_settings, serving
from k2think.agents.pipeline import first_step
from k2think.gateway.keys import new_key
from k2think.gateway.operations.metrics import SHOWN_S
from k2think.gateway.operations.once import AskedOnce
from k2think.schemas.backend_settings import BackendSettings
from k2think.schemas.doors import KeyScope
from k2think.schemas.health import Health
from k2think.schemas.jobs import SolveRequest
from k2think.store.database import Database
from k2think.store.jobs import accept_job
from k2think.store.keys import Key, add_key
from k2think.store.migrate import upgrade
from k2think.store.workers import ROLES_NEEDED, WorkerRow, sign_of_life
from k2think.workers.queues import list_keys
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from sqlalchemy import text

if TYPE_CHECKING:
    from .conftest import LiveGateway

BOUND_S = 5.0
"""Far more than the time-outs of the checks, far less than for ever."""
SERVICES = ("database", "redis", "schema")
COUNTED = {"sample": [["k2think_attempts_lost_total", {}, 3.0]]}


class Place:
    """A database with tables and a Redis, and a gateway on them when one is served."""

    def __init__(self, folder: Path, url: str, redis_server: Any) -> None:
        self.url = url
        self.redis = redis_server
        self.settings = gateway_settings(folder, database_url=url, broker_url=redis_server.url)
        self.database = Database(url)

    def sign(self, role: str, *, age_s: float = 0.0, **fields: Any) -> WorkerRow:
        """Write the row of a process whose last sign of life is that old."""
        now = time.time()
        row = WorkerRow(
            **{
                "worker": f"{role}-{len(fields)}-{age_s:g}",
                "role": role,
                "host": "a-secret-host",
                "pid": 1,
                "version": "0.1.0",
                "backend": None,
                "capacity": 4,
                "running": 2,
                "draining": False,
                "started_at": now - 1000,
                "seen_at": now - age_s,
                "metrics": "{}",
                **fields,
            }
        )
        self.database.run_sync(lambda conn: sign_of_life(conn, row))
        return row


@pytest.fixture
def place(tmp_path: Path, redis_server: Any) -> Any:
    """On SQLite."""
    url = f"sqlite:///{tmp_path / 'k2think.db'}"
    upgrade(url)
    made = Place(tmp_path, url, redis_server)
    yield made
    made.database.close()


def checks_of(answer: httpx.Response) -> dict[str, bool]:
    health = Health.model_validate_json(answer.content)
    assert [check.name for check in health.checks] == [*SERVICES, *ROLES_NEEDED]
    assert health.ready == all(check.ok for check in health.checks)
    assert answer.status_code == (200 if health.ready else 503)
    return {check.name: check.ok for check in health.checks}


def bad(answer: httpx.Response) -> set[str]:
    return {name for name, ok in checks_of(answer).items() if not ok}


def samples_of(answer: httpx.Response) -> list[Sample]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return [sample for family in text_string_to_metric_families(answer.text) for sample in family.samples]


def total(samples: list[Sample], name: str, /, **labels: str) -> float:
    """Sum of the samples of that name that have these labels; there must be one."""
    found = [sample.value for sample in samples if sample.name == name and labels.items() <= sample.labels.items()]
    assert found, f"no {name}{labels}"
    return sum(found)


# ---- Health


async def test_a_gateway_is_ready_once_every_role_that_jobs_need_is_alive(place: Place) -> None:
    async with serving(place.settings) as http:
        assert bad(await http.get("/health/ready")) == set(ROLES_NEEDED)

        for role in ROLES_NEEDED:
            place.sign(role)
        await asyncio.sleep(0.6)

        assert bad(await http.get("/health/ready")) == set()


async def test_one_process_of_role_all_is_enough(place: Place) -> None:
    place.sign("all")
    async with serving(place.settings) as http:
        assert bad(await http.get("/health/ready")) == set()


async def test_those_who_fell_silent_or_were_told_to_stop_do_not_count(place: Place) -> None:
    for role in ROLES_NEEDED:
        place.sign(role)
    place.sign("planner", worker="planner-0-0", draining=True)
    place.sign("verifier", worker="verifier-0-0", age_s=place.settings.lease_s + 5)
    async with serving(place.settings) as http:
        assert bad(await http.get("/health/ready")) == {"planner", "verifier"}


async def test_nothing_is_told_that_only_an_operator_should_know(place: Place) -> None:
    place.sign("all")
    async with serving(place.settings) as http:
        for path in ("/health/live", "/health/ready"):
            said = (await http.get(path)).text
            for secret in ("a-secret-host", socket.gethostname(), str(place.redis.socket), place.url, "0.1.0"):
                assert secret not in said


async def test_a_schema_of_another_version_is_told(place: Place) -> None:
    place.sign("all")
    for revision, words in (("0001", "older"), ("9999", "newer")):
        async with serving(place.settings) as http:
            place.database.run_sync(
                lambda conn, one=revision: conn.execute(
                    text("UPDATE alembic_version SET version_num = :one"), {"one": one}
                )
            )
            answer = await http.get("/health/ready")
        assert not checks_of(answer)["schema"]
        assert words in answer.text


async def test_a_redis_that_is_gone_makes_it_unready_and_the_process_stays_alive(place: Place) -> None:
    place.sign("all")
    async with serving(place.settings) as http:
        assert bad(await http.get("/health/ready")) == set()
        place.redis.kill()
        await asyncio.sleep(0.6)

        assert bad(await http.get("/health/ready")) == {"redis"}
        assert (await http.get("/health/live")).json() == {"alive": True}

        place.redis.start()
        await asyncio.sleep(0.6)
        assert bad(await http.get("/health/ready")) == set()


async def test_a_redis_that_hangs_delays_the_answer_only_so_long(place: Place) -> None:
    place.sign("all")
    os.kill(place.redis.pid, signal.SIGSTOP)
    try:
        async with serving(place.settings) as http:
            began = time.monotonic()
            assert bad(await http.get("/health/ready")) == {"redis"}
            assert time.monotonic() - began < BOUND_S
    finally:
        os.kill(place.redis.pid, signal.SIGCONT)


async def test_a_database_that_hangs_is_asked_once_however_many_ask(
    tmp_path: Path, redis_server: Any, postgres_server: Any
) -> None:
    url = postgres_server.new_database()
    upgrade(url)
    place = Place(tmp_path, url, redis_server)
    place.sign("all")
    locker = Database(url)
    locked, release = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def lock(conn: Any) -> None:
        conn.execute(text("LOCK TABLE alembic_version IN ACCESS EXCLUSIVE MODE"))
        loop.call_soon_threadsafe(locked.set)
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result(60)

    holding = asyncio.ensure_future(locker.run(lock))
    try:
        async with serving(place.settings) as http:
            await locked.wait()
            began = time.monotonic()
            answers = await asyncio.gather(*(http.get("/health/ready") for _ in range(50)))
            answers += [await http.get("/health/ready")]
            assert time.monotonic() - began < 2 * BOUND_S
            assert all(bad(answer) == {"database", "schema", *ROLES_NEEDED} for answer in answers)
            waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            assert place.database.read_sync(lambda conn: conn.execute(text(waiting)).scalar_one()) == 1

            release.set()
            await holding
            await asyncio.sleep(0.6)
            assert bad(await http.get("/health/ready")) == set()
    finally:
        release.set()
        await holding
        locker.close()
        place.database.close()


async def test_being_alive_asks_nobody(tmp_path: Path) -> None:
    nowhere = gateway_settings(
        tmp_path, database_url="postgresql://nobody@127.0.0.1:1/none", broker_url="redis://127.0.0.1:1/0"
    )
    async with serving(nowhere) as http:
        began = time.monotonic()
        assert (await http.get("/health/live")).status_code == 200
        assert time.monotonic() - began < 1.0


# ---- Metrics


async def test_each_process_has_its_counters_under_its_own_name(place: Place) -> None:
    lost = json.dumps({"k2think_attempts_lost": COUNTED["sample"]})
    task = [["celery_task_started_total", {"name": "k2think.plan", "queue_name": "planner"}, 2.0]]
    place.sign("sweeper", worker="sweeper-a-1-x", metrics=lost)
    place.sign("sweeper", worker="sweeper-b-2-y", metrics=lost)
    place.sign("planner", worker="planner-a-3-z", metrics=json.dumps({"celery_task_started": task}))
    async with serving(place.settings) as http:
        samples = samples_of(await http.get("/metrics"))

    assert total(samples, "k2think_attempts_lost_total", worker="sweeper-a-1-x") == 3.0
    assert total(samples, "k2think_attempts_lost_total", worker="sweeper-b-2-y") == 3.0
    assert total(samples, "celery_task_started_total", hostname="planner-a-3-z", queue_name="planner") == 2.0
    assert total(samples, "k2think_workers", role="sweeper") == 2.0


async def test_a_process_that_died_is_told_of_for_a_while(place: Place) -> None:
    lost = json.dumps({"k2think_attempts_lost": COUNTED["sample"]})
    place.sign("all", worker="dead", age_s=60, metrics=lost)
    place.sign("all", worker="long-dead", age_s=SHOWN_S + 5, metrics=lost)
    place.sign("generator", worker="alive")
    async with serving(place.settings) as http:
        samples = samples_of(await http.get("/metrics"))

    assert total(samples, "k2think_attempts_lost_total", worker="dead") == 3.0
    assert total(samples, "celery_worker_up", hostname="dead") == 0.0
    assert total(samples, "celery_worker_tasks_active", hostname="dead") == 0.0
    assert total(samples, "celery_worker_up", hostname="alive") == 1.0
    assert total(samples, "celery_worker_tasks_active", hostname="alive") == 2.0
    assert total(samples, "k2think_workers", role="generator") == 1.0
    assert total(samples, "k2think_workers", role="verifier") == 0.0
    assert not [sample for sample in samples if "long-dead" in sample.labels.values()]


async def test_counters_of_another_version_do_no_harm(place: Place) -> None:
    place.sign("all", metrics=json.dumps({"k2think_from_the_future": [["k2think_from_the_future_total", {}, 1.0]]}))
    async with serving(place.settings) as http:
        answer = await http.get("/metrics")

    assert samples_of(answer)
    assert "future" not in answer.text


async def test_the_load_of_a_named_backend_is_told_too(place: Place) -> None:
    settings = place.settings.model_copy(update={"backends": {"fast": BackendSettings(), "idle": BackendSettings()}})
    place.sign("generator", worker="bound", backend="fast", capacity=10, running=4)
    async with serving(settings) as http:
        samples = samples_of(await http.get("/metrics"))

    assert total(samples, "k2think_backend_load", backend="fast") == 0.4
    assert total(samples, "k2think_backend_capacity", backend="fast") == 10
    assert total(samples, "k2think_backend_load", backend="idle") == 0.0


async def test_load_is_work_by_capacity(place: Place) -> None:
    def accept(connection: Any) -> None:
        request = SolveRequest(problem="What is 1 + 1?")
        accept_job(connection, request=request, first=first_step(request), tenant="default", now=time.time() - 30)

    async with serving(place.settings) as http:
        idle = samples_of(await http.get("/metrics"))
        for _ in range(3):
            place.database.run_sync(accept)
        await asyncio.sleep(1.1)
        alone = samples_of(await http.get("/metrics"))
        place.sign("safety", capacity=12)
        await asyncio.sleep(1.1)
        served = samples_of(await http.get("/metrics"))

    assert total(idle, "k2think_load", role="safety") == 0.0
    assert math.isinf(total(alone, "k2think_load", role="safety"))
    assert total(served, "k2think_load", role="safety") == 3 / 12
    assert total(served, "k2think_capacity", role="safety") == 12
    assert total(served, "k2think_steps_ready", role="safety", queue="safety") == 3
    assert total(served, "k2think_jobs_unfinished", status="queued") == 3
    assert 30 <= total(served, "k2think_oldest_ready_step_seconds", role="safety") < 90
    assert total(served, "k2think_jobs_unfinished_max") == place.settings.queue_max


async def test_messages_are_counted_in_redis_and_left_out_without_it(place: Place) -> None:
    import redis

    with redis.Redis(unix_socket_path=str(place.redis.socket)) as client:
        client.rpush("generator", "a", "b")
        client.rpush(list_keys("generator")[-1], "c")
    async with serving(place.settings) as http:
        full = samples_of(await http.get("/metrics"))
        place.redis.kill()
        await asyncio.sleep(1.1)
        without = samples_of(await http.get("/metrics"))

    assert total(full, "celery_queue_length", queue_name="generator") == 3
    assert total(full, "celery_queue_length", queue_name="intake") == 0
    assert not [sample for sample in without if sample.name == "celery_queue_length"]
    assert total(without, "k2think_workers", role="gateway") == 1


async def test_two_gateways_tell_the_same(place: Place) -> None:
    place.sign("all", metrics=json.dumps({"k2think_attempts_lost": COUNTED["sample"]}))
    async with serving(place.settings) as one, serving(place.settings) as other:
        await asyncio.sleep(1.0)
        first, second = samples_of(await one.get("/metrics")), samples_of(await other.get("/metrics"))

    def of_all(samples: list[Sample]) -> list[Sample]:
        return [sample for sample in samples if sample.labels.get("worker") == "all-1-0"]

    assert of_all(first) == of_all(second) != []
    assert total(first, "k2think_workers", role="gateway") == total(second, "k2think_workers", role="gateway") == 2


async def test_a_key_of_scope_metrics_opens_it_and_no_tenants_key(place: Place) -> None:
    keys = {scope: new_key() for scope in KeyScope}
    for scope, key in keys.items():
        row = Key(
            id=key.id,
            tenant="default",
            name="",
            scope=scope,
            digest=key.digest,
            created_at=time.time(),
            expires_at=None,
        )
        place.database.run_sync(lambda conn, one=row: add_key(conn, one))

    async with serving(place.settings) as http:
        statuses = {
            scope: (await http.get("/metrics", headers={"Authorization": f"Bearer {key.text}"})).status_code
            for scope, key in keys.items()
        }
        assert (await http.get("/metrics")).status_code == 401
        assert (await http.get("/health/live")).status_code == 200
        assert (await http.get("/health/ready")).status_code == 503

    assert statuses == {KeyScope.metrics: 200, KeyScope.api: 403}


async def test_one_question_is_under_way_and_its_answer_kept_for_a_moment() -> None:
    asked = 0
    gate = asyncio.Event()

    async def ask() -> int:
        nonlocal asked
        asked += 1
        await gate.wait()
        if asked == 2:
            raise ValueError("no")
        return asked

    once = AskedOnce(ask, max_age_s=0.2)
    with pytest.raises(TimeoutError):
        await once.get(timeout_s=0.05)
    waiting = [asyncio.ensure_future(once.get(timeout_s=5)) for _ in range(20)]
    gate.set()

    assert await asyncio.gather(*waiting) == [1] * 20
    await asyncio.sleep(0.3)
    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            await once.get(timeout_s=5)
    await asyncio.sleep(0.3)
    assert await once.get(timeout_s=5) == 3


# ---- On the whole stack


def until(condition: Callable[[], bool], what: str, *, timeout_s: float = 60.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.2)


def scraped(live_gateway: LiveGateway) -> list[Sample]:
    return samples_of(httpx.get(f"{live_gateway.url}/metrics", timeout=30))


def test_a_stack_that_has_started_becomes_ready(live_gateway: LiveGateway) -> None:
    until(lambda: not bad(httpx.get(f"{live_gateway.url}/health/ready", timeout=30)), "the stack is ready")


def test_the_values_move_when_a_job_runs(live_gateway: LiveGateway) -> None:
    before = scraped(live_gateway)

    with httpx.Client(base_url=live_gateway.url, timeout=60) as http:
        job = http.post("/v1/jobs", json={"problem": "What is 347 + 58?"}).json()
        with http.stream("GET", f"/v1/jobs/{job['id']}/events") as events:
            events.read()
        usage = http.get(f"/v1/jobs/{job['id']}").json()["result"]["usage"]
    paid = usage["planner"]["completion"]
    assert paid > 0

    def moved(name: str, /, **labels: str) -> float:
        return total(scraped(live_gateway), name, **labels) - total(before, name, **labels)

    until(lambda: moved("k2think_jobs_finished_total", status="succeeded") >= 1, "the job is counted")
    until(lambda: moved("celery_task_succeeded_total", name="k2think.plan", queue_name="planner") >= 1, "the plan is")
    until(lambda: moved("celery_task_runtime_count", queue_name="safety") >= 2, "both screenings are")
    until(lambda: moved("k2think_step_wait_seconds_count", role="generator") >= 3, "the candidates are")
    until(lambda: moved("k2think_time_to_first_token_seconds_count", backend="openai") >= 3, "first tokens are")
    until(lambda: moved("k2think_model_calls_total", agent="planner", outcome="ok") >= 1, "the planner's call is")
    until(lambda: moved("k2think_screenings_total", kind="screen_input", verdict="safe") >= 1, "the verdict is")
    until(lambda: moved("k2think_tokens_total", agent="planner", kind="completion") >= paid, "its tokens are")


def test_every_process_of_the_stack_is_there(live_gateway: LiveGateway) -> None:
    def there() -> bool:
        samples = scraped(live_gateway)
        return all(total(samples, "k2think_workers", role=role) for role in (*ROLES_NEEDED, "intake", "gateway"))

    until(there, "every process is seen")
    assert total(scraped(live_gateway), "k2think_capacity", role="generator") > 0
