"""Each request is counted by its route, and told in one line of the log, without what its sender would not want in it."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from harness.asgi import gateway_settings, serving
from k2think.gateway.observe import CLIENT_LEFT, UNMATCHED, Observe
from k2think.store.migrate import upgrade
from k2think.workers.counters import counters

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import LiveGateway


def requests_of(**labels: str) -> float:
    """Requests that this process has counted under these labels."""
    return sum(
        sample.value
        for family in counters().registry.collect()
        for sample in family.samples
        if sample.name == "k2think_http_requests_total" and labels.items() <= sample.labels.items()
    )


@pytest.fixture
def settings(tmp_path: Path, redis_server: Any) -> Any:
    url = f"sqlite:///{tmp_path / 'k2think.db'}"
    upgrade(url)
    return gateway_settings(tmp_path, database_url=url, broker_url=redis_server.url)


@pytest.mark.parametrize(
    ("method", "path", "route", "code"),
    [
        ("GET", "/v1/jobs", "/v1/jobs", "200"),
        ("GET", "/v1/jobs/00000000-0000-4000-8000-000000000000", "/v1/jobs/{job_id}", "404"),
        ("POST", "/v1/jobs", "/v1/jobs", "400"),
        ("GET", "/health/live", "/health/live", "200"),
        ("GET", "/nothing-here", UNMATCHED, "404"),
        ("GET", "/v1/nothing-here", UNMATCHED, "404"),
    ],
)
async def test_a_request_is_counted_by_its_route(settings: Any, method: str, path: str, route: str, code: str) -> None:
    before = requests_of(method=method, route=route, code=code)
    async with serving(settings) as http:
        answer = await http.request(method, path, json={} if method == "POST" else None)

    assert str(answer.status_code) == code, answer.text
    assert requests_of(method=method, route=route, code=code) == before + 1


async def test_what_anyone_may_choose_makes_no_new_series(settings: Any) -> None:
    async with serving(settings) as http:
        for _ in range(5):
            await http.request(f"X{uuid.uuid4().hex}", f"/{uuid.uuid4()}")

    assert requests_of(method="OTHER", route=UNMATCHED) >= 5
    methods = {
        sample.labels["method"]
        for family in counters().registry.collect()
        for sample in family.samples
        if sample.name == "k2think_http_requests_total"
    }
    assert methods <= {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "OTHER"}


def scope_of(path: str) -> dict[str, Any]:
    return {"type": "http", "method": "GET", "path": path, "headers": [], "scheme": "http"}


async def nothing(_message: Any = None) -> Any:
    return {"type": "http.disconnect"}


async def test_a_client_that_left_before_its_answer_is_told_from_one_that_got_it() -> None:
    async def leaves(_scope: Any, receive: Any, _send: Any) -> None:
        await receive()

    before = requests_of(code=str(CLIENT_LEFT))
    await Observe(leaves)(scope_of("/"), nothing, nothing)

    assert requests_of(code=str(CLIENT_LEFT)) == before + 1


async def test_what_breaks_is_a_500_also_when_another_answers_it() -> None:
    async def breaks(_scope: Any, _receive: Any, _send: Any) -> None:
        raise RuntimeError("broken")

    before = requests_of(code="500")
    with pytest.raises(RuntimeError):
        await Observe(breaks)(scope_of("/"), nothing, nothing)

    assert requests_of(code="500") == before + 1


async def test_a_stream_counts_once_it_has_ended() -> None:
    gate = asyncio.Event()

    async def streams(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 299, "headers": []})
        await gate.wait()

    running = asyncio.ensure_future(Observe(streams)(scope_of("/"), nothing, nothing))
    await asyncio.sleep(0.05)
    assert requests_of(code="299") == 0

    gate.set()
    await running
    assert requests_of(code="299") == 1


async def test_what_is_not_http_passes() -> None:
    seen: list[Any] = []

    async def app(scope: Any, _receive: Any, _send: Any) -> None:
        seen.append(scope)

    await Observe(app)({"type": "lifespan"}, nothing, nothing)

    assert seen == [{"type": "lifespan"}]


def test_one_line_says_who_asked_what_and_how_it_went(live_gateway: LiveGateway) -> None:
    mark = uuid.uuid4().hex
    before = len(live_gateway.up.lines())
    with httpx.Client(base_url=live_gateway.url, timeout=30) as http:
        job = http.post("/v1/jobs", json={"problem": f"What is 347 + 58? {mark}"}).json()
        http.get(f"/v1/jobs/{job['id']}", headers={"X-Mark": mark, "Cookie": f"k2think_session={mark}"})
        http.get(f"/v1/jobs/{mark}")
        http.get(f"/{mark}", params={"q": mark})
        for path in ("/health/live", "/health/ready"):
            http.get(path)

    def told() -> list[dict[str, Any]]:
        return [line for line in live_gateway.up.lines()[before:] if line.get("event") == "request"]

    def facts() -> list[tuple[Any, ...]]:
        return [(line["method"], line["route"], line["status"], line["tenant"]) for line in told()]

    ours = [
        ("POST", "/v1/jobs", 202, "default"),
        ("GET", "/v1/jobs/{job_id}", 200, "default"),
        ("GET", "/v1/jobs/{job_id}", 404, "default"),
        ("GET", UNMATCHED, 404, None),
    ]
    live_gateway.up.wait_for(lambda: all(each in facts() for each in ours), "the lines of the requests")
    lines = told()
    assert all(line["seconds"] >= 0 and line["level"] == "info" for line in lines)
    assert not [line for line in lines if mark in str(line)]
    assert not [line for line in lines if line["route"].startswith("/health")], "those are told at level debug"
