"""What a client does when the way to the gateway, or the gateway, fails: on real gateways, with a transport that loses things."""

from __future__ import annotations

import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from harness.gateway import RunningGateway
from k2think.agents.backends.simulator import Reply
from k2think.schemas.doors import KeyScope
from k2think.schemas.errors import (
    AccessDenied,
    BrokerUnavailable,
    ConfigurationError,
    GatewayError,
    GatewayUnreachable,
    InvalidRequest,
    LimitReached,
    NotFound,
    QueueFull,
    StoreUnavailable,
    WaitTimedOut,
)
from k2think.schemas.jobs import JobStatus
from k2think.schemas.trace import EventKind

if TYPE_CHECKING:
    from harness.live import LiveGateway

    from .conftest import Clients

PROBLEM = "What is 347 + 58?"
QUEUE_MAX = 2
QUICKLY_S = 20.0
"""Generous: what is meant is that it does not take the patience of minutes."""


class Fragile(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """A real transport on which a test's faults happen, one per request whose path has the word in it."""

    def __init__(self, word: str, *faults: Callable[[httpx.Request], httpx.Response | None]) -> None:
        self.word = word
        self.faults = list(faults)
        self.requests: list[httpx.Request] = []
        self._sync = httpx.HTTPTransport()
        self._async = httpx.AsyncHTTPTransport()

    def _fault(self, request: httpx.Request) -> httpx.Response | None:
        if self.word not in request.url.path:
            return None
        self.requests.append(request)
        return self.faults.pop(0)(request) if self.faults else None

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer = self._sync.handle_request(request)
        try:
            instead = self._fault(request)
        except httpx.TransportError:
            answer.close()
            raise
        if instead is not None:
            answer.close()
        return instead or answer

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        answer = await self._async.handle_async_request(request)
        try:
            instead = self._fault(request)
        except httpx.TransportError:
            await answer.aclose()
            raise
        if instead is not None:
            await answer.aclose()
        return instead or answer

    def close(self) -> None:
        self._sync.close()

    async def aclose(self) -> None:
        await self._async.aclose()


def lose(request: httpx.Request) -> httpx.Response:
    """The request has arrived, its answer never does."""
    raise httpx.ReadError("connection reset", request=request)


def refuse(status: int, body: Any = None, **headers: str) -> Callable[[httpx.Request], httpx.Response]:
    """Something on the way answers instead."""

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(status, json=body, headers=headers, request=request)

    return answer


def cut(size: int) -> Callable[[httpx.Request], httpx.Response]:
    """The answer breaks off after that many bytes."""

    class Cut(httpx.SyncByteStream, httpx.AsyncByteStream):
        def __init__(self, request: httpx.Request) -> None:
            self.request = request

        def __iter__(self) -> Iterator[bytes]:
            headers = {name: value for name, value in self.request.headers.items() if name != "host"}
            with httpx.stream(self.request.method, self.request.url, headers=headers) as answer:
                content = answer.read()
            yield content[:size]
            raise httpx.ReadError("connection reset", request=self.request)

        async def __aiter__(self) -> Any:
            for piece in self:
                yield piece

    return lambda request: httpx.Response(200, stream=Cut(request), request=request)


# ---- Nobody there, or not the right one


def test_a_gateway_that_never_answered_is_given_up_soon(clients: Clients) -> None:
    client = clients("http://127.0.0.1:9")

    start = time.monotonic()
    with pytest.raises(GatewayUnreachable, match="k2think up") as caught:
        client.solve(PROBLEM)

    assert time.monotonic() - start < QUICKLY_S
    assert not caught.value.sent
    assert "http://127.0.0.1:9" in str(caught.value)


@pytest.mark.parametrize("url", ["", "127.0.0.1:8400", "ftp://127.0.0.1", "http://", "/v1"])
def test_what_is_no_address_is_refused(clients: Clients, url: str) -> None:
    with pytest.raises(ConfigurationError, match="base_url"):
        clients(url)


@pytest.mark.parametrize("options", [{"timeout_s": 0}, {"patience_s": -1}, {"timeout_s": float("nan")}])
def test_times_that_cannot_be_are_refused(clients: Clients, options: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match="seconds"):
        clients("http://127.0.0.1:9", **options)


def test_an_openai_address_is_as_good(clients: Clients, live_gateway: LiveGateway) -> None:
    for url in (f"{live_gateway.url}/v1", f"{live_gateway.url}/v1/", f"{live_gateway.url}/"):
        with pytest.raises(NotFound):
            clients(url).get(str(uuid.uuid4()))


def test_the_key_is_not_shown(clients: Clients) -> None:
    client = clients("http://127.0.0.1:9", api_key="k2t-secret")
    shown = repr(client._client if hasattr(client, "_client") else client)
    assert "127.0.0.1:9" in shown
    assert "secret" not in shown


@pytest.mark.parametrize(
    ("answer", "error", "word"),
    [
        (refuse(502), GatewayError, "502"),
        (refuse(500, {"error": {"message": "it broke", "type": "server_error", "extra": 1}}), GatewayError, "it broke"),
        (refuse(302, None, Location="http://127.0.0.1:9/"), GatewayError, "elsewhere"),
        (refuse(200, {"hello": "world"}), GatewayError, "JobObject"),
        (refuse(418, ["what"]), InvalidRequest, "418"),
        (refuse(503, {"error": {"message": "x", "type": "", "code": "store_unavailable"}}), StoreUnavailable, "x"),
        (refuse(503, {"error": {"message": "x", "type": "", "code": "broker_unavailable"}}), BrokerUnavailable, "x"),
        (lose, GatewayUnreachable, "broke"),
    ],
)
def test_whatever_comes_is_an_error_of_ours(
    clients: Clients, live_gateway: LiveGateway, answer: Any, error: type[Exception], word: str
) -> None:
    client = clients(live_gateway.url, transport=Fragile("jobs", answer), patience_s=0)
    with pytest.raises(error, match=word) as caught:
        client.get(str(uuid.uuid4()))
    assert type(caught.value) is error


# ---- Tried again, and done once


def test_a_create_whose_answer_is_lost_is_one_job(clients: Clients, live_gateway: LiveGateway) -> None:
    way = Fragile("/v1/jobs", lose, refuse(503), refuse(429, None, **{"Retry-After": "0"}))
    start = time.time()

    job = clients(live_gateway.url, transport=way).submit(PROBLEM)

    assert len(way.requests) == 4
    assert len({request.headers["idempotency-key"] for request in way.requests}) == 1
    window = {"created_after": start, "created_before": time.time()}
    assert [one.id for one in clients(live_gateway.url).list(**window)] == [job.id]


def test_a_wait_goes_on_over_lost_connections(clients: Clients, live_gateway: LiveGateway) -> None:
    way = Fragile("/v1/jobs/", lose, lose, cut(100), refuse(503), cut(0))
    client = clients(live_gateway.url, transport=way)

    job = client.submit(PROBLEM)

    assert client.wait(job.id, timeout_s=100).status is JobStatus.succeeded
    assert len(way.requests) > 5


def test_events_come_once_over_any_number_of_cuts(clients: Clients, live_gateway: LiveGateway) -> None:
    whole = clients(live_gateway.url)
    job = whole.submit(PROBLEM)
    whole.wait(job.id)
    cuts = [cut(size) for size in (0, 1, 400, 70, 700, 5, 333)]
    way = Fragile("/events", *cuts)

    events = list(clients(live_gateway.url, transport=way).stream(job.id))

    assert events == list(whole.trace(job.id).events)
    assert len(way.requests) == len(cuts) + 1
    assert events[-1].kind is EventKind.finished


def test_streams_that_end_too_early_are_opened_again(clients: Clients, live_gateway: LiveGateway) -> None:
    slow = PROBLEM + live_gateway.replies.to_mark(generator=Reply(text="<answer>405</answer>", first_token_s=1.0))
    way = Fragile("/events", *[refuse(200)] * 5)
    client = clients(live_gateway.url, transport=way)
    job = client.submit(slow)

    assert client.wait(job.id, timeout_s=100).status is JobStatus.succeeded
    way.faults = [refuse(200)]
    assert list(client.stream(job.id)) == list(client.trace(job.id).events)


def test_without_patience_a_stream_still_ends_in_peace(clients: Clients, live_gateway: LiveGateway) -> None:
    client = clients(live_gateway.url, patience_s=0)
    job = client.submit(PROBLEM)
    events = list(client.stream(job.id))

    assert events[-1].kind is EventKind.finished
    assert list(client.stream(job.id, after=events[-1].seq)) == []


def test_where_no_stream_comes_through_a_wait_looks_again_and_again(
    clients: Clients, live_gateway: LiveGateway
) -> None:
    class Silent(httpx.SyncByteStream, httpx.AsyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            time.sleep(0.3)
            raise httpx.ReadTimeout("")
            yield b""

        async def __aiter__(self) -> Any:
            for piece in self:
                yield piece

    def swallow(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=Silent(), request=request)

    way = Fragile("/events", *[swallow] * 1000)
    client = clients(live_gateway.url, transport=way, timeout_s=0.3)
    slow = PROBLEM + live_gateway.replies.to_mark(generator=Reply(text="<answer>405</answer>", first_token_s=2.0))

    result = client.solve(slow, timeout_s=100)

    assert result.status is JobStatus.succeeded
    assert len(way.requests) == 1, "one such stream says it all"


def test_a_download_that_breaks_is_whole(clients: Clients, live_gateway: LiveGateway, tmp_path: Path) -> None:
    content = b"".join(b'{"line": %d}\n' % number for number in range(5000))
    file = clients(live_gateway.url).upload_file(content)
    way = Fragile("/content", cut(10), cut(0), cut(len(content) - 1))

    clients(live_gateway.url, transport=way).download_file(file.id, tmp_path / "content")

    assert (tmp_path / "content").read_bytes() == content
    assert clients(live_gateway.url, transport=Fragile("/content", cut(7))).file_content(file.id) == content


def test_an_upload_whose_answer_is_lost_is_one_file(
    clients: Clients, live_gateway: LiveGateway, tmp_path: Path
) -> None:
    path = tmp_path / f"{uuid.uuid4().hex}.jsonl"
    path.write_bytes(b"{}\n" * 100_000)
    way = Fragile("/v1/files", lose)

    file = clients(live_gateway.url, transport=way).upload_file(path)

    assert file.bytes == 300_000
    assert len(way.requests) == 2
    mine = [one.id for one in clients(live_gateway.url).list_files() if one.filename == path.name]
    assert mine == [file.id]


def test_a_deletion_is_not_repeated(clients: Clients, live_gateway: LiveGateway) -> None:
    file = clients(live_gateway.url).upload_file(b"{}\n")
    way = Fragile("/v1/files", lose)
    client = clients(live_gateway.url, transport=way)

    with pytest.raises(GatewayUnreachable) as caught:
        client.delete_file(file.id)

    assert caught.value.sent
    assert len(way.requests) == 1


def test_a_wait_that_meets_trouble_at_its_end_has_timed_out(clients: Clients, live_gateway: LiveGateway) -> None:
    job = clients(live_gateway.url).submit(PROBLEM)
    client = clients(live_gateway.url, transport=Fragile("/v1/jobs/", *[refuse(503)] * 1000))
    with pytest.raises(WaitTimedOut):
        client.wait(job.id, timeout_s=0.5)


# ---- What a gateway says


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """A gateway without workers and with a short queue, which asks for keys."""
    from conftest import RedisServer

    # Not pytest's own folders: the path of a socket must be short.
    with tempfile.TemporaryDirectory(prefix="k2redis-") as folder:
        redis = RedisServer(Path(folder))
        try:
            url, most = redis.url, str(QUEUE_MAX)
            with RunningGateway(tmp_path_factory.mktemp("gateway"), url, K2THINK_QUEUE_MAX=most) as gateway:
                gateway.key("first")
                yield gateway
        finally:
            redis.kill()


@pytest.fixture
def tenant() -> str:
    """A tenant of the test's own."""
    return f"lab-{uuid.uuid4().hex[:12]}"


def test_a_key_opens_its_tenants_door(clients: Clients, strict: RunningGateway, tenant: str) -> None:
    for wrong in (None, "k2_wrong"):
        with pytest.raises(AccessDenied, match="api_key") as denied:
            clients(strict.url, api_key=wrong).submit(PROBLEM)
        assert not denied.value.known
    with pytest.raises(AccessDenied) as denied:
        clients(strict.url, api_key=strict.key(tenant, scope=KeyScope.metrics)).submit(PROBLEM)
    assert denied.value.known

    mine = clients(strict.url, api_key=strict.key(tenant))
    job = mine.submit(PROBLEM)
    with pytest.raises(NotFound):
        clients(strict.url, api_key=strict.key("other")).get(job.id)
    assert [one.id for one in mine.list()] == [job.id]
    mine.cancel(job.id)


def test_a_full_queue_is_waited_for(clients: Clients, strict: RunningGateway, tenant: str) -> None:
    key = strict.key(tenant)
    hasty = clients(strict.url, api_key=key, patience_s=0)
    waiting = [hasty.submit(PROBLEM).id for _ in range(QUEUE_MAX)]
    with pytest.raises(QueueFull) as full:
        hasty.submit(PROBLEM)
    assert full.value.retry_after_s > 0

    def make_room() -> None:
        time.sleep(1.0)
        with strict.client(key) as http:
            http.post(f"/v1/jobs/{waiting[0]}/cancel")

    helper = threading.Thread(target=make_room)
    helper.start()
    try:
        last = clients(strict.url, api_key=key, patience_s=60).submit(PROBLEM)
    finally:
        helper.join()

    assert last.id not in waiting
    for job_id in (*waiting, last.id):
        hasty.cancel(job_id)


def test_a_limit_of_the_tenant_is_told(clients: Clients, strict: RunningGateway, tenant: str) -> None:
    strict.limit(tenant, jobs_in_flight=1)
    client = clients(strict.url, api_key=strict.key(tenant), patience_s=0)
    job = client.submit(PROBLEM)
    with pytest.raises(LimitReached) as reached:
        client.submit(PROBLEM)
    assert reached.value.retry_after_s > 0
    client.cancel(job.id)
