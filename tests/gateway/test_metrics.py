"""/metrics: what a gateway tells of processes, queues and loads, on a real database and Redis."""

from __future__ import annotations

import asyncio
import json
import math
import time
from typing import Any

from harness.asgi import serving
from harness.operations import Place, samples_of, total
from k2think.agents.pipeline import first_step
from k2think.gateway.keys import new_key
from k2think.gateway.operations.metrics import SHOWN_S
from k2think.schemas.backend_settings import BackendSettings
from k2think.schemas.doors import KeyScope
from k2think.schemas.jobs import SolveRequest
from k2think.store.jobs import accept_job
from k2think.store.keys import Key, add_key
from k2think.workers.queues import list_keys
from prometheus_client.samples import Sample

COUNTED = {"sample": [["k2think_attempts_lost_total", {}, 3.0]]}


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
