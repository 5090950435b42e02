"""What holds for every endpoint, taken from the OpenAPI document: whose things are whose, keys, keys of idempotency, no 5xx.

A new endpoint is tested without being named here. One with a new kind of id fails until `objects` has such a thing.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import hypothesis
import pytest
import schemathesis
from harness.stack import RunningUp, settings_of
from k2think.agents.backends.simulator import SimulatedEngine, SimulatedServer, SolvingResponder
from k2think.gateway.app import create_app
from k2think.gateway.keys import new_key
from k2think.gateway.ui.login import router as login_router
from k2think.gateway.ui.pages import router as pages_router
from k2think.schemas.doors import KeyScope
from k2think.schemas.settings import Settings
from k2think.store.database import Database
from k2think.store.keys import Key, add_key
from k2think.store.tenants import save_tenant
from schemathesis.checks import CheckContext
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

QUESTION = "What is 347 + 58?"
CHAT: dict[str, Any] = {"model": "k2think", "messages": [{"role": "user", "content": QUESTION}]}
OPEN_TO_ALL = {"/health/live", "/health/ready"}
"""What needs no key."""
NOBODYS = {"model"}
"""Path parameters that name what belongs to no tenant."""
MULTIPART = {"/v1/files"}
EXAMPLES = 8
"""Requests that schemathesis makes up for each endpoint."""
END_TIMEOUT_S = 60.0


DOCUMENT = create_app(Settings(_env_file=None)).openapi()  # pyright: ignore[reportCallIssue]


def names_of(operation: dict[str, Any]) -> set[str]:
    """The endpoint's parameters."""
    return {parameter["name"].lower() for parameter in operation.get("parameters", [])}


EVERY: list[tuple[str, str, dict[str, Any]]] = [
    (method.upper(), path, operation)
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
]
"""Method, path and operation of every endpoint."""
WITH_ID = [(method, path) for method, path, _ in EVERY if set(re.findall(r"{(\w+)", path)) - NOBODYS]
CREATING = [
    (path, operation) for method, path, operation in EVERY if method == "POST" and not re.search(r"{|/cancel$", path)
]
PAGES = sorted({route.path for router in (login_router, pages_router) for route in router.routes})  # type: ignore[attr-defined]


@dataclass
class Tenant:
    """Somebody with a key and one of everything."""

    http: httpx.Client
    """Sends their key."""
    ids: dict[str, str] = field(default_factory=dict[str, str])
    """By name of path parameter."""


@dataclass(frozen=True)
class Shared:
    """A whole stack with two tenants."""

    up: RunningUp
    database: Database
    owner: Tenant
    stranger: Tenant


def key_of(database: Database, tenant: str, scope: KeyScope = KeyScope.api) -> str:
    made = new_key()
    kept = Key(made.id, tenant, "", scope, made.digest, time.time(), None)
    database.run_sync(lambda connection: add_key(connection, kept))
    return made.text


def upload(http: httpx.Client, *, lines: int = 1, **headers: str) -> httpx.Response:
    line = {"method": "POST", "url": "/v1/chat/completions", "body": CHAT}
    content = "\n".join(json.dumps({"custom_id": str(i), **line}) for i in range(lines))
    return http.post("/v1/files", data={"purpose": "batch"}, files={"file": ("in.jsonl", content)}, headers=headers)


def batch_of(file_id: str) -> dict[str, Any]:
    return {"input_file_id": file_id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}


def ended(http: httpx.Client, path: str) -> dict[str, Any]:
    """Wait until the thing at this path has ended; return it."""
    deadline = time.monotonic() + END_TIMEOUT_S
    while True:
        found: dict[str, Any] = http.get(path).json()
        if found["status"] in ("succeeded", "completed"):
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.1)


def objects(http: httpx.Client) -> dict[str, str]:
    """Make one of everything that has an id, finished; return the ids by name of path parameter."""
    job_id = http.post("/v1/jobs", json={"problem": QUESTION}).json()["id"]
    response = http.post("/v1/responses", json={"model": "k2think", "input": QUESTION, "background": True}).json()
    file_id = upload(http).json()["id"]
    batch_id = http.post("/v1/batches", json=batch_of(file_id)).json()["id"]
    ended(http, f"/v1/jobs/{job_id}")
    ended(http, f"/v1/responses/{response['id']}")
    ended(http, f"/v1/batches/{batch_id}")
    return {"job_id": job_id, "response_id": response["id"], "file_id": file_id, "batch_id": batch_id}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    engine = SimulatedEngine(slots=256, token_s=0.0)
    server = SimulatedServer(SolvingResponder(accuracy=1.0, reasoning_tokens=2), engine=engine)
    asyncio.run_coroutine_threadsafe(server.start(), loop).result(10)
    environment = {
        "K2THINK_GENERATOR__BACKEND": "openai",
        "K2THINK_GENERATOR__BASE_URL": server.url,
        "K2THINK_GENERATOR__MODEL": "simulated",
    }
    up = RunningUp(Path(tmp_path_factory.mktemp("up")), environment)
    database = Database(settings_of(up).sqlalchemy_url)
    try:
        up.wait_for(
            lambda: (
                up.count("worker_started") >= 5
                and all(up.count(event) >= 1 for event in ("sweeper_started", "gateway_started"))
            ),
            "the start of `up`",
        )
        clients = [
            httpx.Client(base_url=up.url, timeout=60, headers={"Authorization": f"Bearer {key_of(database, tenant)}"})
            for tenant in ("owner", "stranger")
        ]
        # The first key needs a moment to be noticed.
        time.sleep(4)
        with clients[0] as owner, clients[1] as stranger:
            yield Shared(up, database, Tenant(owner, objects(owner)), Tenant(stranger))
    finally:
        up.stop()
        database.close()
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def filled(path: str, ids: dict[str, str]) -> str:
    """The path with these ids in the place of its parameters."""
    return re.sub(r"{(\w+)(:\w+)?}", lambda found: ids[found[1]], path)


def unused(ids: dict[str, str]) -> dict[str, str]:
    """Ids of the same form that nobody has."""
    random = {name: re.sub(r"[0-9a-f-]{32,36}$", "", value) for name, value in ids.items()}
    fresh = uuid.uuid4()
    return {name: f"{prefix}{fresh if '-' in ids[name][6:] else fresh.hex}" for name, prefix in random.items()}


def without_ids(text: str, ids: dict[str, str]) -> str:
    for name, value in ids.items():
        text = text.replace(value, f"<{name}>")
    return text


# ---- Whose things are whose


def test_the_document_lists_what_there_is() -> None:
    paths = {path for _, path, _ in EVERY}
    assert {"/v1/chat/completions", "/v1/models", "/v1/files", "/v1/batches", "/v1/responses", "/v1/jobs"} <= paths
    assert len(WITH_ID) >= 12
    assert len(CREATING) == 5


@pytest.mark.parametrize(("method", "path"), WITH_ID)
def test_another_tenants_thing_is_not_there(shared: Shared, method: str, path: str) -> None:
    owned, nobodys = shared.owner.ids, unused(shared.owner.ids)

    foreign = shared.stranger.http.request(method, filled(path, owned))
    missing = shared.stranger.http.request(method, filled(path, nobodys))

    assert foreign.status_code == missing.status_code == 404
    # Not by a word is it told that there is such a thing.
    assert without_ids(foreign.text, owned) == without_ids(missing.text, nobodys)
    assert foreign.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(("method", "path"), [pair for pair in WITH_ID if pair[0] == "GET"])
def test_its_owner_finds_it(shared: Shared, method: str, path: str) -> None:
    assert shared.owner.http.request(method, filled(path, shared.owner.ids)).status_code == 200


@pytest.mark.parametrize(("method", "path"), [pair for pair in WITH_ID if pair[0] != "GET"])
def test_its_owner_changes_it(shared: Shared, method: str, path: str) -> None:
    answer = shared.owner.http.request(method, filled(path, objects(shared.owner.http)))

    # All of these have ended: what can no longer be cancelled says so.
    assert answer.status_code in (200, 400, 409), answer.text


@pytest.mark.parametrize("path", [path for path in PAGES if "{job_id}" in path])
def test_another_tenants_page_is_not_there(shared: Shared, path: str) -> None:
    assert shared.owner.http.get(filled(path, shared.owner.ids)).status_code in (200, 286)
    assert shared.stranger.http.get(filled(path, shared.owner.ids)).status_code == 404


def test_two_runs_are_compared_only_by_their_owner(shared: Shared) -> None:
    mine = shared.stranger.http.post("/v1/jobs", json={"problem": QUESTION}).json()["id"]
    theirs = shared.owner.ids["job_id"]

    for pair in ((mine, theirs), (theirs, mine)):
        assert shared.stranger.http.get("/ui/compare", params=dict(zip("ab", pair, strict=True))).status_code == 404
    assert shared.owner.http.get("/ui/compare", params={"a": theirs, "b": theirs}).status_code == 200


@pytest.mark.parametrize(
    ("path", "names"),
    [
        (path, names_of(operation))
        for method, path, operation in EVERY
        if method == "GET" and "{" not in path and "limit" in names_of(operation)
    ],
)
def test_lists_hold_nothing_of_another_tenant(shared: Shared, path: str, names: set[str]) -> None:
    own = shared.owner.http.get(path).text
    found = [value for value in shared.owner.ids.values() if value in own]
    assert found, "the owner's list shows what the owner has"
    queries: list[dict[str, str]] = [{}]
    if "after" in names:
        queries += [{"after": value} for value in found]
    for query in queries:
        answer = shared.stranger.http.get(path, params=query)
        assert answer.status_code in (200, 400, 404)
        assert not [value for value in shared.owner.ids.values() if f'"{value}"' in answer.text]


def test_another_tenants_file_cannot_be_made_a_batch(shared: Shared) -> None:
    owned, nobodys = shared.owner.ids, unused(shared.owner.ids)
    foreign, missing = (
        shared.stranger.http.post("/v1/batches", json=batch_of(ids["file_id"])) for ids in (owned, nobodys)
    )

    assert foreign.status_code == missing.status_code
    assert 400 <= foreign.status_code < 500
    assert without_ids(foreign.text, owned) == without_ids(missing.text, nobodys)


# ---- Keys


@pytest.mark.parametrize(
    ("method", "path", "locked"), [(method, path, path not in OPEN_TO_ALL) for method, path, _ in EVERY]
)
def test_a_key_is_needed(shared: Shared, method: str, path: str, *, locked: bool) -> None:
    url = f"{shared.up.url}{filled(path, {**shared.owner.ids, 'model': 'k2think'})}"
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Bearer {new_key().text}"}):
        answer = httpx.request(method, url, headers=headers)
        if locked:
            assert answer.status_code == 401
            assert answer.json()["error"]["code"] == "invalid_api_key"
        else:
            assert answer.status_code == 200


@pytest.mark.parametrize("path", [path for path in PAGES if "login" not in path and "static" not in path])
def test_the_trace_page_asks_for_a_key(shared: Shared, path: str) -> None:
    ids = {**shared.owner.ids, "path": "nothing"}
    answer = httpx.get(f"{shared.up.url}{filled(path, ids)}")

    assert answer.status_code in (303, 308, 404, 405)
    assert shared.owner.ids["job_id"] not in answer.text


def test_the_document_says_where_a_key_is_needed() -> None:
    for _, path, operation in EVERY:
        assert bool(operation.get("security")) is (path not in OPEN_TO_ALL), path


# ---- Idempotency keys


def create(http: httpx.Client, path: str, body: dict[str, Any] | None, key: str) -> httpx.Response:
    headers = {"Idempotency-Key": key}
    if path in MULTIPART:
        return upload(http, lines=1 if body is None else 2, **headers)
    bodies: dict[str, dict[str, Any]] = {
        "/v1/chat/completions": CHAT,
        "/v1/responses": {"model": "k2think", "input": QUESTION},
        "/v1/batches": {},
        "/v1/jobs": {"problem": QUESTION},
    }
    return http.post(path, json={**bodies[path], **(body or {})}, headers=headers)


@pytest.mark.parametrize(("path", "operation"), CREATING)
def test_whatever_creates_takes_an_idempotency_key(shared: Shared, path: str, operation: dict[str, Any]) -> None:
    assert "idempotency-key" in names_of(operation)
    file_id = upload(shared.stranger.http).json()["id"]
    body = batch_of(file_id) if path == "/v1/batches" else None
    other = {"metadata": {"other": "yes"}} | (body or {})
    key = uuid.uuid4().hex

    first, again = (create(shared.stranger.http, path, body, key) for _ in range(2))
    conflict = create(shared.stranger.http, path, other, key)
    of_another = create(shared.owner.http, path, batch_of(shared.owner.ids["file_id"]) if body else None, key)

    assert first.status_code in (200, 201, 202), first.text
    assert again.status_code == first.status_code
    assert again.json()["id"] == first.json()["id"]
    assert conflict.status_code == 409, conflict.text
    assert conflict.json()["error"]["code"] == "idempotency_conflict"
    # The same key of another tenant is another key.
    assert of_another.status_code == first.status_code, of_another.text
    assert of_another.json()["id"] != first.json()["id"]


# ---- Made-up requests


def no_5xx_but_503(ctx: CheckContext, response: Any, case: Any) -> None:
    assert response.status_code < 500 or response.status_code == 503, response.text
    if response.status_code >= 400:
        error = response.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}


@pytest.fixture(scope="module")
def fuzz_keys(shared: Shared) -> dict[str, str]:
    """A key for /metrics, and one for all else."""
    limits = {"jobs_in_flight": 200}
    shared.database.run_sync(lambda connection: save_tenant(connection, "fuzz", limits, now=time.time()))
    return {
        "/metrics": key_of(shared.database, "fuzz", KeyScope.metrics),
        "": key_of(shared.database, "fuzz"),
    }


@schemathesis.openapi.from_dict(DOCUMENT).parametrize()
@hypothesis.settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(hypothesis.HealthCheck),
)
def test_no_made_up_request_breaks_anything(case: Any, shared: Shared, fuzz_keys: dict[str, str]) -> None:
    key = fuzz_keys.get(case.operation.path, fuzz_keys[""])
    case.call_and_validate(
        base_url=shared.up.url,
        headers={"Authorization": f"Bearer {key}"},
        timeout=60,
        checks=[no_5xx_but_503, status_code_conformance, content_type_conformance, response_schema_conformance],
    )
