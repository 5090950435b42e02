"""Webhooks: what the stock client verifies, sent once for each end, repeated until they are taken, never led astray."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest
from harness.cli import Cli
from harness.stack import RunningUp, clean_environment, settings_of
from harness.webhook_target import Received, WebhookTarget
from k2think.agents.backends.simulator import SimulatedEngine, SimulatedServer, SolvingResponder
from k2think.agents.pipeline import first_step
from k2think.gateway.keys import new_key
from k2think.schemas.doors import Door, DoorNote, KeyScope
from k2think.schemas.jobs import JobError, SolveRequest
from k2think.schemas.settings import GatewaySettings, Settings
from k2think.schemas.webhooks import new_secret
from k2think.store.database import Database
from k2think.store.deliveries import add_delivery
from k2think.store.door_tables import deliveries
from k2think.store.jobs import accept_job, request_cancel
from k2think.store.keys import Key, add_key
from k2think.store.migrate import upgrade
from k2think.store.tenants import save_tenant
from k2think.workers import webhooks
from k2think.workers.counters import counters
from k2think.workers.webhooks import BACKOFF_MAX_S, WebhookSender, backoff_s
from pydantic import SecretStr
from sqlalchemy import delete, select

PROBLEM: dict[str, Any] = {"problem": "What is 347 + 58?"}
QUESTION = "What is 347 + 58?"
SECRET = new_secret()


@dataclass(frozen=True)
class Notified:
    """A whole stack, whose notices go to a target by the settings."""

    up: RunningUp
    target: WebhookTarget
    database: Database

    def client(self, tenant: str) -> openai.OpenAI:
        """The stock client with a key of this tenant; the caller closes it."""
        made = new_key()
        kept = Key(made.id, tenant, "", KeyScope.api, made.digest, time.time(), None)
        self.database.run_sync(lambda connection: add_key(connection, kept))
        return openai.OpenAI(base_url=f"{self.up.url}/v1", api_key=made.text, max_retries=0, timeout=60)

    def told_of(self, subject_id: str) -> Received:
        """Wait for the notice of this subject."""
        found = self.target.wait_for(lambda all_: any(subject_id in each.body.decode() for each in all_))
        (only,) = [each for each in found if subject_id in each.body.decode()]
        return only


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notified]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = SimulatedServer(SolvingResponder(accuracy=1.0, reasoning_tokens=5), engine=SimulatedEngine(slots=64))
    asyncio.run_coroutine_threadsafe(server.start(), loop).result(10)
    with WebhookTarget() as target:
        environment = {
            "K2THINK_GENERATOR__BACKEND": "openai",
            "K2THINK_GENERATOR__BASE_URL": server.url,
            "K2THINK_GENERATOR__MODEL": "simulated",
            "K2THINK_GATEWAY__WEBHOOK_URL": target.url,
            "K2THINK_GATEWAY__WEBHOOK_SECRET": SECRET,
        }
        up = RunningUp(tmp_path_factory.mktemp("up"), environment)
        database = Database(settings_of(up).sqlalchemy_url)
        try:
            up.wait_for(
                lambda: (
                    up.count("worker_started") >= 5
                    and all(up.count(event) >= 1 for event in ("sweeper_started", "gateway_started"))
                ),
                "the start of `up`",
            )
            yield Notified(up, target, database)
        finally:
            up.stop()
            database.close()
            asyncio.run_coroutine_threadsafe(server.stop(), loop).result(10)
            loop.call_soon_threadsafe(loop.stop)
            thread.join(10)
            loop.close()


# ---- On a whole stack, with the stock client


def test_a_background_response_is_told_of_as_the_client_expects(stack: Notified) -> None:
    with stack.client("responses") as client:
        response = client.responses.create(model="k2think", input=QUESTION, background=True)

        received = stack.told_of(response.id)

        event = received.event(SECRET)
        assert (event.type, event.object, event.data.id) == ("response.completed", "event", response.id)
        assert event.id == received.headers["webhook-id"]
        assert received.headers["content-type"] == "application/json"
        assert client.responses.retrieve(response.id).status == "completed"


def test_a_batch_is_told_of_once_and_not_by_its_lines(stack: Notified) -> None:
    body = {"model": "k2think", "messages": [{"role": "user", "content": QUESTION}]}
    lines = [
        json.dumps({"custom_id": str(i), "method": "POST", "url": "/v1/chat/completions", "body": body})
        for i in range(3)
    ]
    with stack.client("batches") as client:
        file = client.files.create(file=("in.jsonl", "\n".join(lines).encode()), purpose="batch")
        batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")

        event = stack.told_of(batch.id).event(SECRET)

        assert (event.type, event.data.id) == ("batch.completed", batch.id)
        assert client.batches.retrieve(batch.id).status == "completed"
        told = stack.database.read_sync(
            lambda conn: conn.execute(select(deliveries.c.subject).where(deliveries.c.tenant == "batches")).all()
        )
        assert [row.subject for row in told] == ["batch"]


def test_a_native_job_is_told_of_and_a_chat_that_waits_is_not(stack: Notified) -> None:
    with stack.client("native") as client:
        job = client.post("/jobs", body=PROBLEM, cast_to=object)
        job_id = job["id"]  # type: ignore[index]
        client.chat.completions.create(model="k2think", messages=[{"role": "user", "content": QUESTION}])

        received = stack.told_of(job_id)

        client.webhooks.verify_signature(received.body, received.headers, secret=SECRET)
        assert json.loads(received.body)["type"] == "job.succeeded"
        assert json.loads(received.body)["data"] == {"id": job_id}
        subjects = select(deliveries.c.subject_id).where(deliveries.c.tenant == "native")
        asked = stack.database.read_sync(lambda conn: conn.execute(subjects).all())
        assert [row.subject_id for row in asked] == [job_id]


def test_a_tenants_own_target_gets_its_notices_under_its_own_secret(stack: Notified) -> None:
    secret = new_secret()
    with WebhookTarget() as own, stack.client("own") as client:
        changes = {"webhook_url": own.url, "webhook_secret": secret}
        stack.database.run_sync(lambda conn: save_tenant(conn, "own", changes, now=time.time()))
        response = client.responses.create(model="k2think", input=QUESTION, background=True)
        (received,) = own.wait_for(bool)

        assert received.event(secret).data.id == response.id
        with pytest.raises(openai.InvalidWebhookSignatureError):
            received.event(SECRET)
        forged = Received(received.path, received.headers, received.body.replace(b"completed", b"cancelled"), 0.0)
        with pytest.raises(openai.InvalidWebhookSignatureError):
            forged.event(secret)
        assert not any(response.id in each.body.decode() for each in stack.target.received)


def test_no_request_can_name_a_target(stack: Notified) -> None:
    with WebhookTarget() as elsewhere, stack.client("evil") as client:
        for body in ({**PROBLEM, "webhook_url": elsewhere.url}, {**PROBLEM, "policy": {"webhook_url": elsewhere.url}}):
            with pytest.raises(openai.BadRequestError):
                client.post("/jobs", body=body, cast_to=object)
        assert elsewhere.received == []


# ---- The sender by itself


class Sending:
    """A database with ended jobs, and a sender on it."""

    def __init__(self, folder: Path, target: WebhookTarget | None, *, attempts_max: int = 10) -> None:
        folder.mkdir(exist_ok=True)
        place = f"sqlite:///{folder / 'k2think.db'}"
        upgrade(place)
        self.database = Database(place)
        url, secret = (None, None) if target is None else (target.url, SecretStr(SECRET))
        gateway = GatewaySettings(webhook_url=url, webhook_secret=secret, webhook_attempts_max=attempts_max)
        self.settings = Settings(_env_file=None, data_dir=folder, gateway=gateway)  # pyright: ignore[reportCallIssue]

    def ended_job(self, tenant: str = "default", *, door: Door = Door.jobs) -> str:
        """A job that was cancelled, with a notice to send."""
        request = SolveRequest(problem=QUESTION)
        now = time.time()

        def make(connection: Any) -> str:
            note = DoorNote(door=door).model_dump_json()
            job_id = accept_job(
                connection, request=request, first=first_step(request), tenant=tenant, now=now, door=note
            ).job_id
            add_delivery(connection, tenant=tenant, subject="job", subject_id=job_id, now=now)
            error = JobError(code="cancelled", message="cancelled by the caller")
            request_cancel(connection, job_id, now=now, error=error)
            return job_id

        return self.database.run_sync(make)

    def state(self, subject_id: str) -> Any:
        """The row of its notice."""
        query = select(deliveries).where(deliveries.c.subject_id == subject_id)
        return self.database.read_sync(lambda conn: conn.execute(query).one())

    async def run_until(self, done: Any, *, timeout_s: float = 30.0, senders: int = 1) -> None:
        """Send until `done()`."""
        running = [asyncio.ensure_future(WebhookSender(self.settings, self.database).run()) for _ in range(senders)]
        try:
            async with asyncio.timeout(timeout_s):
                while not await asyncio.to_thread(done):
                    await asyncio.sleep(0.02)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "POLL_S", 0.02)
    monkeypatch.setattr(webhooks, "BACKOFF_FIRST_S", 0.05)


def counted(outcome: str) -> float:
    """Tries of this process that ended so."""
    (family,) = (each for each in counters().registry.collect() if each.name == "k2think_webhooks")
    (sample,) = (each for each in family.samples if each.name.endswith("_total") and each.labels["outcome"] == outcome)
    return sample.value


async def test_what_is_not_taken_is_sent_again_under_the_same_id(tmp_path: Path) -> None:
    with WebhookTarget(500, 429, 302, 404) as target:
        sending = Sending(tmp_path, target)
        job_id = sending.ended_job()
        before = counted("retried")

        await sending.run_until(lambda: sending.state(job_id).delivered_at is not None)

        assert len(target.received) == 5
        assert counted("retried") == before + 4
        assert {each.path for each in target.received} == {"/hook"}, "a redirect is not followed"
        assert len({each.headers["webhook-id"] for each in target.received}) == 1
        assert len({each.body for each in target.received}) == 1
        assert [each.event(SECRET).data.id for each in target.received] == [job_id] * 5
        assert sending.state(job_id).attempts == 5
        assert sending.state(job_id).last_error is None
        sending.database.close()


@pytest.mark.parametrize(("statuses", "attempts"), [((500,) * 10, 3), ((410,), 1)])
async def test_a_notice_is_given_up_after_its_last_try(
    tmp_path: Path, statuses: tuple[int, ...], attempts: int
) -> None:
    with WebhookTarget(*statuses) as target:
        sending = Sending(tmp_path, target, attempts_max=3)
        job_id = sending.ended_job()

        await sending.run_until(lambda: sending.state(job_id).given_up_at is not None)

        assert (sending.state(job_id).attempts, sending.state(job_id).last_error) == (attempts, str(statuses[0]))
        assert len(target.received) == attempts
        sending.database.close()


async def test_a_target_that_cannot_be_reached_is_tried_again(tmp_path: Path) -> None:
    gone = WebhookTarget()
    gone._server.server_close()
    sending = Sending(tmp_path, gone)
    job_id = sending.ended_job()

    await sending.run_until(lambda: sending.state(job_id).attempts >= 3)

    assert sending.state(job_id).last_error == "ClientConnectorError"
    assert "127.0.0.1" not in sending.state(job_id).last_error
    sending.database.close()


async def test_a_dead_target_does_not_hold_up_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "TIMEOUT_S", 2.0)
    with WebhookTarget() as target, socket.create_server(("127.0.0.1", 0)) as silent:
        sending = Sending(tmp_path, target)
        port = silent.getsockname()[1]
        changes = {"webhook_url": f"http://127.0.0.1:{port}/", "webhook_secret": SECRET}
        sending.database.run_sync(lambda conn: save_tenant(conn, "slow", changes, now=1.0))
        first = sending.ended_job("slow")
        other = sending.ended_job()

        await sending.run_until(lambda: sending.state(first).last_error is not None)

        assert sending.state(first).last_error == "TimeoutError"
        (received,) = target.received
        assert received.event(SECRET).data.id == other
        assert received.at < sending.state(first).due_at - 0.06, "it did not wait for the other's time to be over"
        sending.database.close()


async def test_several_senders_send_each_notice_once(tmp_path: Path) -> None:
    with WebhookTarget() as target:
        sending = Sending(tmp_path, target)
        ids = [sending.ended_job() for _ in range(30)]

        await sending.run_until(lambda: all(sending.state(each).delivered_at for each in ids), senders=4)

        assert sorted(each.event(SECRET).data.id for each in target.received) == sorted(ids)
        sending.database.close()


async def test_what_was_deleted_or_has_no_target_any_more_is_given_up(tmp_path: Path) -> None:
    from k2think.store.tables import jobs

    with WebhookTarget() as target:
        sending = Sending(tmp_path / "a", target)
        deleted = sending.ended_job()
        sending.database.run_sync(lambda conn: conn.execute(delete(jobs).where(jobs.c.id == deleted)))
        await sending.run_until(lambda: sending.state(deleted).given_up_at is not None)
        assert target.received == []
        sending.database.close()

    nowhere = Sending(tmp_path / "b", None)
    job_id = nowhere.ended_job()
    await nowhere.run_until(lambda: nowhere.state(job_id).given_up_at is not None)
    nowhere.database.close()


async def test_a_cancelled_response_is_told_of_as_such(tmp_path: Path) -> None:
    with WebhookTarget() as target:
        sending = Sending(tmp_path, target)
        job_id = sending.ended_job(door=Door.responses)

        await sending.run_until(lambda: sending.state(job_id).delivered_at is not None)

        event = target.received[0].event(SECRET)
        assert (event.type, event.data.id) == ("response.cancelled", f"resp_{uuid.UUID(job_id).hex}")
        sending.database.close()


def test_the_back_off_doubles_from_two_seconds_to_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    for attempt, about in enumerate((2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048), start=1):
        waits = {backoff_s(attempt) for _ in range(50)}
        assert all(0.79 * about <= wait <= 1.21 * about for wait in waits)
        assert len(waits) > 1, "all would come back at once"
    assert backoff_s(13) == backoff_s(1_000) == BACKOFF_MAX_S
    assert backoff_s(1, wait_s=60.0) == 60.0
    assert backoff_s(1, wait_s=1e9) == BACKOFF_MAX_S


@pytest.mark.parametrize("command", ["gateway", "sweeper"])
def test_a_target_without_a_secret_keeps_a_process_from_starting(tmp_path: Path, command: str) -> None:
    cli = Cli(
        tmp_path,
        {
            **clean_environment(),
            "K2THINK_DATA_DIR": str(tmp_path),
            "K2THINK_BROKER_URL": "redis://127.0.0.1:1/0",
            "K2THINK_GATEWAY__WEBHOOK_URL": "https://hooks.example/",
        },
    )
    done = cli.run(command)

    assert done.returncode == 2
    assert "K2THINK_GATEWAY__WEBHOOK_SECRET" in done.stderr
    assert "Traceback" not in done.stderr
