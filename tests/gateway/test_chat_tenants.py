"""Chat and responses by tenants with keys and limits, at a gateway without workers: what it accepts stays unfinished."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import openai
import pytest
from harness.gateway import NOTICED_S, RunningGateway
from k2think.store.tables import jobs
from openai import OpenAI
from sqlalchemy import func, select

if TYPE_CHECKING:
    from .conftest import StartGateway

ASK: list[Any] = [{"role": "user", "content": "What is 347 + 58?"}]
TIMEOUT_S = 30.0
ENDS_WITHIN_S = 2.0


@pytest.fixture(scope="module")
def gateway(start_gateway: StartGateway) -> RunningGateway:
    return start_gateway()


@pytest.fixture
def client(gateway: RunningGateway, tenant: str) -> Iterator[OpenAI]:
    with client_of(gateway, tenant) as client:
        yield client


def client_of(gateway: RunningGateway, tenant: str) -> OpenAI:
    return OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key(tenant), timeout=TIMEOUT_S, max_retries=0)


def job_ids(gateway: RunningGateway, tenant: str, *, unfinished: bool = True) -> list[str]:
    query = select(jobs.c.id).where(jobs.c.tenant == tenant).order_by(jobs.c.id)
    if unfinished:
        query = query.where(jobs.c.finished_at.is_(None))
    return gateway.database.read_sync(lambda conn: [row.id for row in conn.execute(query)])


def count_all(gateway: RunningGateway) -> int:
    return gateway.database.read_sync(lambda conn: conn.execute(select(func.count()).select_from(jobs)).scalar_one())


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_of_which_a_part_is_refused_leaves_nothing_behind(
    gateway: RunningGateway, client: OpenAI, tenant: str, stream: bool
) -> None:
    gateway.limit(tenant, jobs_in_flight=2)

    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(model="k2think", messages=ASK, n=3, stream=stream)

    assert caught.value.response.headers["retry-after"]
    assert len(job_ids(gateway, tenant, unfinished=False)) == 2, "two were accepted"
    assert job_ids(gateway, tenant) == [], "and cancelled again"


def test_with_a_key_the_part_that_was_accepted_is_kept_for_the_next_try(
    gateway: RunningGateway, client: OpenAI, tenant: str
) -> None:
    fields: dict[str, Any] = {"model": "k2think", "messages": ASK, "n": 2, "stream": True}
    fields["extra_headers"] = {"Idempotency-Key": "once"}
    gateway.limit(tenant, jobs_in_flight=1)
    with pytest.raises(openai.RateLimitError):
        client.chat.completions.create(**fields)
    (first,) = job_ids(gateway, tenant)
    gateway.limit(tenant, jobs_in_flight=None)
    time.sleep(NOTICED_S)

    stream = client.chat.completions.create(**fields)
    chunk = next(iter(stream))
    stream.close()

    assert chunk.id == f"chatcmpl-{first}"
    assert job_ids(gateway, tenant)[0] == first
    assert len(job_ids(gateway, tenant, unfinished=False)) == 2


def test_what_no_worker_took_up_ends_with_its_client_too(gateway: RunningGateway, client: OpenAI, tenant: str) -> None:
    # There is no sweeper here that would do it in the gateway's place; at once, that is while it still connects.
    for _ in range(10):
        stream = client.chat.completions.create(model="k2think", messages=ASK, n=2, stream=True)
        stream.close()
        began = time.monotonic()
        while job_ids(gateway, tenant):
            assert time.monotonic() < began + ENDS_WITHIN_S
            time.sleep(0.02)
    assert len(job_ids(gateway, tenant, unfinished=False)) == 20


def test_so_does_a_plain_request(gateway: RunningGateway, tenant: str) -> None:
    for timeout_s in (0.3, 0.5, 1.0):
        with client_of(gateway, tenant).with_options(timeout=timeout_s) as impatient:
            with pytest.raises(openai.APITimeoutError):
                impatient.chat.completions.create(model="k2think", messages=ASK, n=2)
            began = time.monotonic()
            time.sleep(0.5)  # the request may have been accepted when nobody waited for it any more
            while job_ids(gateway, tenant):
                assert time.monotonic() < began + ENDS_WITHIN_S
                time.sleep(0.02)


def test_a_key_is_the_tenants_own(gateway: RunningGateway, client: OpenAI, tenant: str) -> None:
    fields: dict[str, Any] = {"model": "k2think", "input": "347 + 58?", "background": True}
    fields["extra_headers"] = {"Idempotency-Key": "shared by chance"}
    mine = client.responses.create(**fields)
    with client_of(gateway, f"{tenant}-other") as other:
        theirs = other.responses.create(**fields)
    assert mine.id != theirs.id
    assert client.responses.create(**fields).id == mine.id


def test_another_tenants_response_is_not_found(gateway: RunningGateway, client: OpenAI, tenant: str) -> None:
    mine = client.responses.create(model="k2think", input="347 + 58?", background=True)
    with client_of(gateway, f"{tenant}-other") as other:
        for ask in (
            lambda: other.responses.retrieve(mine.id),
            lambda: other.responses.retrieve(mine.id, stream=True),
            lambda: other.responses.cancel(mine.id),
            lambda: other.responses.delete(mine.id),
            lambda: other.responses.input_items.list(mine.id),
        ):
            with pytest.raises(openai.NotFoundError):
                ask()
    assert client.responses.retrieve(mine.id).status == "queued"


def test_a_response_that_was_cancelled_before_it_began(client: OpenAI) -> None:
    queued = client.responses.create(model="k2think", input="347 + 58?", background=True)
    cancelled = client.responses.cancel(queued.id)
    assert (queued.status, cancelled.status, cancelled.output) == ("queued", "cancelled", [])
    kinds = [event.type for event in client.responses.retrieve(queued.id, stream=True)]
    assert kinds == ["response.created", "response.queued", "response.failed"]


def test_what_is_refused_makes_no_job(gateway: RunningGateway, client: OpenAI) -> None:
    before = count_all(gateway)
    for fields in ({"temperature": 9}, {"model": "gpt-4o"}, {"tools": [{}]}, {"messages": [*ASK, *ASK, {}]}):
        with pytest.raises((openai.BadRequestError, openai.NotFoundError)):
            client.chat.completions.create(**{"model": "k2think", "messages": ASK, **fields})
    assert count_all(gateway) == before
