"""Spans: one trace from a client's traceparent to the model call, on a whole stack and a real collector; and its absence."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from harness.cli import Cli
from harness.collector import Collector, TakenSpan
from harness.stack import RunningUp, clean_environment
from k2think.agents.backends.simulator import SimulatedEngine, SimulatedServer, SolvingResponder
from k2think.schemas.errors import StoreUnavailable
from k2think.schemas.settings import Settings
from k2think.workers.telemetry import FLUSH_TIMEOUT_S, Telemetry, valid_traceparent

pytestmark = pytest.mark.timeout(300)  # a guard against hanging, for machines that are busy with other things
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
CHATS = {False: "a" * 32, True: "b" * 32}
"""Traces of a chat completion, plain and streamed."""


@pytest.fixture(scope="module")
def model_server() -> Iterator[SimulatedServer]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = SimulatedServer(
        SolvingResponder(accuracy=0.6, reasoning_tokens=20), engine=SimulatedEngine(slots=64, token_s=0.001)
    )
    asyncio.run_coroutine_threadsafe(server.start(), loop).result(10)
    yield server
    asyncio.run_coroutine_threadsafe(server.stop(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


@pytest.fixture(scope="module")
def start_traced(start_up: Callable[..., RunningUp], model_server: SimulatedServer) -> Callable[[str], RunningUp]:
    """A function that starts a stack whose spans go to this address."""
    return lambda endpoint: start_up(
        K2THINK_GENERATOR__BACKEND="openai",
        K2THINK_GENERATOR__BASE_URL=model_server.url,
        K2THINK_GENERATOR__MODEL="simulated",
        K2THINK_OTLP_ENDPOINT=endpoint,
        OTEL_BSP_SCHEDULE_DELAY="200",
    )


def solve(up: RunningUp, problem: str = "What is 347 + 58?", **headers: str) -> dict[str, Any]:
    """Run one job through the gateway; return it once it has ended."""
    with httpx.Client(base_url=up.url, timeout=60) as http:
        job = http.post("/v1/jobs", json={"problem": problem}, headers=headers).json()
        with http.stream("GET", f"/v1/jobs/{job['id']}/events") as events:
            events.read()
        return http.get(f"/v1/jobs/{job['id']}").json()


def chat(up: RunningUp, *, stream: bool, **headers: str) -> None:
    """Ask for one chat completion and read it to its end."""
    body = {"model": "k2think", "messages": [{"role": "user", "content": "What is 347 + 58?"}], "stream": stream}
    with httpx.Client(base_url=up.url, timeout=60) as http:
        answer = http.post("/v1/chat/completions", json=body, headers=headers)
    assert answer.status_code == 200, answer.text


def test_one_trace_goes_from_the_client_through_the_queue_to_the_model(
    start_traced: Callable[[str], RunningUp], model_server: SimulatedServer
) -> None:
    collector = Collector()
    mark = uuid.uuid4().hex
    try:
        up = start_traced(collector.url)
        job = solve(up, f"What is 347 + 58? ({mark})", traceparent=TRACEPARENT)
        untraced = solve(up)
        for stream in (False, True):
            chat(up, stream=stream, traceparent=f"00-{CHATS[stream]}-{PARENT}-01")
        assert [one["status"] for one in (job, untraced)] == ["succeeded"] * 2, (
            job["result"]["error"],
            untraced["result"]["error"],
        )
        assert up.stop() == 0  # sends what waits
    finally:
        collector.close()

    spans = [span for span in collector.spans if span.trace_id == TRACE]
    of_id = {span.span_id: span for span in spans}

    def named(name: str) -> list[TakenSpan]:
        return [span for span in spans if span.name == name]

    # The request is a child of the client's span; the job of the request; each step of the job; the call of its step.
    (request,) = named("POST /v1/jobs")
    assert (request.service, request.kind, request.parent_id) == ("k2think-gateway", "SERVER", PARENT)
    assert request.attributes["http.route"] == "/v1/jobs"
    assert request.attributes["http.response.status_code"] == 202
    (accepted,) = named("accept_job")
    assert (accepted.kind, accepted.parent_id) == ("PRODUCER", request.span_id)
    assert accepted.attributes["k2think.job_id"] == job["id"]
    steps = [span for span in spans if span.kind == "CONSUMER"]
    assert {span.name for span in steps} >= {"screen_input", "make_plan", "generate_candidate", "screen_output"}
    assert {span.parent_id for span in steps} == {accepted.span_id}
    assert {span.service for span in steps} >= {"k2think-safety", "k2think-planner", "k2think-generator"}
    for step in steps:
        assert step.attributes["k2think.job_id"] == job["id"]
        assert step.attributes["k2think.queue_wait_s"] >= 0
        assert step.attributes["messaging.destination.name"] in ("safety", "planner", "generator", "verifier")
    calls = named("chat simulated")
    assert len(calls) >= 4
    for call in calls:
        assert call.kind == "CLIENT"
        assert of_id[call.parent_id].name in ("make_plan", "generate_candidate", "compare_pair")
        assert call.attributes["gen_ai.operation.name"] == "chat"
        assert call.attributes["gen_ai.request.model"] == "simulated"
        assert call.attributes["server.port"] == int(model_server.url.rsplit(":", 1)[1].split("/", 1)[0])
    paid = [call.attributes for call in calls if call.attributes["gen_ai.agent.name"] == "planner"]
    assert [facts["gen_ai.usage.output_tokens"] for facts in paid] == [job["result"]["usage"]["planner"]["completion"]]
    assert all(facts["gen_ai.response.finish_reasons"] == ["stop"] for facts in paid)

    # Another client's job is another trace, from its own request on.
    others = {span.trace_id for span in collector.spans if span.attributes.get("k2think.job_id") == untraced["id"]}
    assert len(others) == 1
    assert others != {TRACE}

    # A chat completion is traced all the way, too, whether it is streamed or not.
    for trace in CHATS.values():
        chatted = [span for span in collector.spans if span.trace_id == trace]
        (asked,) = [span for span in chatted if span.kind == "SERVER"]
        assert (asked.name, asked.parent_id) == ("POST /v1/chat/completions", PARENT)
        (started,) = [span for span in chatted if span.kind == "PRODUCER"]
        assert started.parent_id == asked.span_id
        assert len([span for span in chatted if span.kind == "CLIENT"]) >= 4

    # Neither question nor answer is in any span.
    for text in (mark, "347 +", job["result"]["content"], job["result"]["plan"] or mark):
        assert text.encode() not in collector.raw
    assert not [span for span in collector.spans if "/health" in span.name or "/metrics" in span.name]


@pytest.mark.parametrize("hangs", [False, True], ids=["absent", "hanging"])
def test_a_collector_that_is_not_there_slows_nothing_and_is_told_of_once(
    start_traced: Callable[[str], RunningUp], hangs: bool
) -> None:
    collector = Collector(hangs=True)
    if not hangs:
        collector.close()
    try:
        up = start_traced(collector.url)
        solve(up)  # the first one finds everything cold
        began = time.monotonic()
        for _ in range(3):
            assert solve(up, traceparent=TRACEPARENT)["status"] == "succeeded"
        assert time.monotonic() - began < 15, "one export alone may take longer than that"
        service = {"service": "OpenTelemetry collector"}
        up.wait_for(lambda: up.count("service_unavailable", role="generator", **service) == 1, "the warning")
        for _ in range(3):
            solve(up)
            time.sleep(0.3)
        for role in ("generator", "planner", "safety", "gateway"):
            assert up.count("service_unavailable", role=role, **service) <= 1
        assert not [line for line in up.lines() if str(line.get("logger", "")).startswith("opentelemetry")]
        stopping = time.monotonic()
        assert up.stop() == 0
        assert time.monotonic() - stopping < FLUSH_TIMEOUT_S + 15
    finally:
        if hangs:
            collector.close()


def test_without_the_packages_it_says_what_to_install(tmp_path: Path) -> None:
    # Read by every interpreter as it starts: as if the packages were not there.
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['opentelemetry.sdk'] = None")
    environment = {
        **clean_environment(),
        "K2THINK_DATA_DIR": str(tmp_path / "data"),
        "K2THINK_BROKER_URL": "redis://127.0.0.1:1/0",
        "K2THINK_OTLP_ENDPOINT": "http://127.0.0.1:4318",
        "PYTHONPATH": os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", ""))).rstrip(os.pathsep),
    }
    for command in (("gateway",), ("sweeper",), ("worker", "safety")):
        done = Cli(tmp_path, environment).run(*command)
        assert done.returncode == 2, done.stderr
        assert "K2THINK_OTLP_ENDPOINT" in done.stderr
        assert "k2think[otel]" in done.stderr
        assert "Traceback" not in done.stderr


def test_nothing_of_it_is_loaded_while_it_is_off() -> None:
    code = (
        "import sys; from k2think.schemas.settings import Settings; from k2think.workers.telemetry import telemetry; "
        "telemetry().start(Settings(_env_file=None), role='x')\n"
        "with telemetry().span('x', kind='server'): pass\n"
        "telemetry().stop(); print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


# ---- One process


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        (TRACEPARENT, TRACEPARENT),
        (f"cc-{TRACE}-{PARENT}-01-of-the-future", TRACEPARENT),
        (f"ff-{TRACE}-{PARENT}-01", None),
        (f"00-{'0' * 32}-{PARENT}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE.upper()}-{PARENT}-01", None),
        ("", None),
        (None, None),
    ],
)
def test_a_traceparent_is_taken_as_the_w3c_says(given: str | None, taken: str | None) -> None:
    assert valid_traceparent(given) == taken


def test_while_it_is_off_a_callers_trace_travels_on() -> None:
    off = Telemetry()
    outer = off.span("outer", kind="server", traceparent=TRACEPARENT)
    with outer as given, off.span("inner", kind="producer") as inner:
        assert inner.traceparent == given.traceparent == TRACEPARENT
    with off.span("another", kind="server") as another:
        assert another.traceparent is None


def test_a_failure_is_marked_by_its_code_and_quotes_nothing() -> None:
    collector = Collector()
    traced = Telemetry()
    settings = Settings(_env_file=None, otlp_endpoint=collector.url)  # pyright: ignore[reportCallIssue]
    try:
        traced.start(settings, role="test")
        with pytest.raises(StoreUnavailable), traced.span("a", kind="server"):
            raise StoreUnavailable("a secret")
        with pytest.raises(ValueError), traced.span("b", kind="server"):
            raise ValueError("a secret")
        traced.stop()
        with traced.span("c", kind="server") as after:
            assert after.traceparent is None
    finally:
        collector.close()

    found = {span.name: (span.failed, span.attributes.get("error.type")) for span in collector.spans}
    assert found == {"a": (True, "store_unavailable"), "b": (True, "ValueError")}
    assert b"a secret" not in collector.raw


def test_an_unsampled_trace_is_carried_on_and_not_sent() -> None:
    collector = Collector()
    traced = Telemetry()
    settings = Settings(_env_file=None, otlp_endpoint=collector.url)  # pyright: ignore[reportCallIssue]
    try:
        traced.start(settings, role="test")
        with traced.span("a", kind="server", traceparent=f"00-{TRACE}-{PARENT}-00") as span:
            assert (span.traceparent or "").startswith(f"00-{TRACE}-")
            assert (span.traceparent or "").endswith("-00")
        traced.stop()
    finally:
        collector.close()

    assert collector.spans == []


def test_starting_needs_an_endpoint_and_stopping_no_start() -> None:
    never = Telemetry()
    never.stop()
    never.start(Settings(_env_file=None), role="test")  # pyright: ignore[reportCallIssue]
    with never.span("a", kind="server") as span:
        assert span.traceparent is None
