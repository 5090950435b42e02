"""What every backend that speaks to a server makes of refusals, broken connections and nonsense. See test_conformance.py."""

import logging
import re
import socket
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from harness.conformance import HELLO, KEY, Connect, ask, collect, pieces
from k2think.agents.backends.simulator import Fault, FaultKind, Reply, Script, SimulatedServer
from k2think.schemas.errors import (
    BackendError,
    BadRequest,
    ContextTooLong,
    MalformedResponse,
    ModelNotFound,
    Overloaded,
    PaymentRequired,
    RateLimited,
    StreamBroken,
    Unauthorized,
    Unreachable,
)


async def failure(connect: Connect, fault: Fault, **fields: Any) -> BackendError:
    """Return the error that a call meets with the fault."""
    async with SimulatedServer(Script(Reply(text="one two three four", fault=fault))) as server:
        with pytest.raises(BackendError) as caught:
            await collect(connect(server, **fields), ask())
    return caught.value


async def test_429_tells_the_seconds_to_wait(connect: Connect) -> None:
    error = await failure(connect, Fault.rate_limited(retry_after="7"))
    assert isinstance(error, RateLimited)
    assert (error.status, error.retry_after_s) == (429, 7.0)
    assert error.rate_limits["x-ratelimit-remaining-tokens-minute"] == "59000"


async def test_429_tells_the_date_to_wait_for(connect: Connect) -> None:
    due = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    error = await failure(connect, Fault.rate_limited(retry_after=due))
    assert isinstance(error, RateLimited)
    assert error.retry_after_s is not None
    assert 60 < error.retry_after_s <= 91


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (307, BadRequest),
        (400, BadRequest),
        (402, PaymentRequired),
        (403, Unauthorized),
        (404, ModelNotFound),
        (408, Overloaded),
        (413, ContextTooLong),
        (422, BadRequest),
        (429, RateLimited),
        (500, Overloaded),
        (502, Overloaded),
        (503, Overloaded),
        (529, Overloaded),
    ],
)
async def test_statuses_are_mapped(connect: Connect, status: int, expected: type[BackendError]) -> None:
    headers = {"Location": "http://192.0.2.1/v1/chat/completions"} if status == 307 else {}
    error = await failure(connect, Fault(FaultKind.status, status=status, message="as it is", headers=headers))
    assert type(error) is expected
    assert error.status == status


async def test_503_tells_the_seconds_to_wait(connect: Connect) -> None:
    error = await failure(connect, Fault(FaultKind.status, status=503, headers={"Retry-After": "3"}))
    assert isinstance(error, Overloaded)
    assert error.retry_after_s == 3.0


async def test_an_exhausted_quota_is_not_a_rate_limit(connect: Connect) -> None:
    error = await failure(connect, Fault(FaultKind.status, status=429, code="insufficient_quota"))
    assert isinstance(error, PaymentRequired)


async def test_context_too_long_by_code_and_by_words(connect: Connect) -> None:
    async with SimulatedServer(Script(HELLO), context_tokens=50) as server:
        with pytest.raises(ContextTooLong):
            await collect(connect(server), ask("word " * 60))
    words = Fault(
        FaultKind.status, status=400, message="the request exceeds the available context size, try increasing it"
    )
    assert isinstance(await failure(connect, words), ContextTooLong)


async def test_an_unknown_model(connect: Connect) -> None:
    async with SimulatedServer(Script(HELLO)) as server:
        backend = connect(server, model="nothing-of-the-kind")
        with pytest.raises(ModelNotFound, match="nothing-of-the-kind"):
            await collect(backend, ask())
        with pytest.raises(ModelNotFound, match="serves simulated"):
            await backend.probe()


async def test_a_wrong_key_is_named_but_never_shown(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with SimulatedServer(Script(HELLO), api_key="another") as server:
        backend = connect(server)
        with pytest.raises(Unauthorized, match="API_KEY") as caught:
            await collect(backend, ask())
        with pytest.raises(Unauthorized):
            await backend.probe()
    assert caught.value.status == 401
    assert KEY not in str(caught.value)
    assert KEY not in caplog.text
    assert KEY not in repr(backend)


async def test_a_connection_reset_before_the_answer(connect: Connect) -> None:
    assert isinstance(await failure(connect, Fault(FaultKind.reset)), Unreachable)


@pytest.mark.parametrize("fault", [FaultKind.reset, FaultKind.truncated, FaultKind.no_end])
async def test_a_stream_that_ends_early_is_broken(connect: Connect, fault: FaultKind) -> None:
    async with SimulatedServer(Script(Reply(text="one two three four", fault=Fault(fault, after_tokens=2)))) as server:
        seen: list[Any] = []
        with pytest.raises(StreamBroken):
            await collect(connect(server), ask(), seen)
    # A reset may overtake tokens that were on their way; an orderly end may not.
    assert pieces(seen) == 2 or fault is FaultKind.reset


async def test_a_refused_connection(connect: Connect) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        with pytest.raises(Unreachable, match=f"127.0.0.1:{port}"):
            await collect(connect(f"http://127.0.0.1:{port}"), ask())


@pytest.mark.parametrize("fault", [FaultKind.malformed_json, FaultKind.html])
async def test_nonsense_is_malformed(connect: Connect, fault: FaultKind) -> None:
    assert isinstance(await failure(connect, Fault(fault, after_tokens=1)), MalformedResponse)


@pytest.mark.parametrize(
    ("code", "expected"),
    [(None, Overloaded), ("rate_limit_exceeded", RateLimited), ("context_length_exceeded", ContextTooLong)],
)
async def test_an_error_in_the_middle_of_the_stream(
    connect: Connect, code: str | None, expected: type[BackendError]
) -> None:
    fault = Fault(FaultKind.error_mid_stream, after_tokens=2, code=code, message="engine died")
    error = await failure(connect, fault)
    assert type(error) is expected


async def test_a_line_without_end_is_refused_before_it_fills_the_memory(connect: Connect) -> None:
    assert isinstance(await failure(connect, Fault(FaultKind.endless_line, after_tokens=1)), MalformedResponse)


async def test_messages_name_the_backend_and_stay_in_one_line(connect: Connect, kind: str) -> None:
    error = await failure(connect, Fault(FaultKind.status, status=500, message="first line\nsecond " + "x" * 5000))
    assert re.match(rf"backend '{kind}' at http://127\.0\.0\.1:\d+", str(error))
    assert "\n" not in str(error)
    assert len(str(error)) < 700
