"""Tenants: limits that are set, and how much is used; the number of unfinished jobs holds for many at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from k2think.schemas.errors import LimitReached
from k2think.schemas.jobs import SolveRequest
from k2think.schemas.messages import ScreenInput
from k2think.schemas.progress import NewStep
from k2think.store.database import Database
from k2think.store.door_tables import keys, tenants
from k2think.store.jobs import accept_job
from k2think.store.tables import jobs
from k2think.store.tenants import Tenant, jobs_in_flight, list_tenants, load_tenant, save_tenant, tokens_since
from sqlalchemy import update

from .conftest import NOW, Story

if TYPE_CHECKING:
    from sqlalchemy import Connection

AT_ONCE = 16


@pytest.fixture(autouse=True)
def empty(database: Database) -> None:
    database.run_sync(lambda conn: conn.execute(tenants.delete()))
    database.run_sync(lambda conn: conn.execute(keys.delete()))


def save(database: Database, tenant: str, **changes: Any) -> Tenant:
    return database.run_sync(lambda conn: save_tenant(conn, tenant, changes, now=NOW))


def test_what_is_not_named_stays(database: Database) -> None:
    assert database.read_sync(lambda conn: load_tenant(conn, "lab")) == Tenant("lab")

    save(database, "lab", jobs_in_flight=5, tokens_per_day=2**62)
    save(database, "lab", requests_per_minute=7)
    after = save(database, "lab", jobs_in_flight=None)

    assert after == Tenant("lab", NOW, requests_per_minute=7, tokens_per_day=2**62)
    assert database.read_sync(list_tenants) == [after]
    with pytest.raises(ValueError, match="nonsense"):
        save(database, "lab", nonsense=1)


def submit(database: Database, tenant: str, key: str | None = None) -> str:
    request = SolveRequest(problem="What is 1 + 1?", idempotency_key=key)
    first = NewStep("screen_input", ScreenInput(messages=request.conversation))

    def accept(conn: Connection) -> str:
        return accept_job(conn, request=request, first=first, tenant=tenant, now=NOW, tenant_limit=True).job_id

    return database.run_sync(accept)


@pytest.mark.parametrize("tenant", ["first", "second", "third", "fourth"])
def test_no_more_jobs_are_in_flight_than_allowed_however_many_come_at_once(database: Database, tenant: str) -> None:
    save(database, tenant, jobs_in_flight=5)

    def attempt(_number: int) -> bool:
        try:
            submit(database, tenant)
        except LimitReached:
            return False
        return True

    with ThreadPoolExecutor(AT_ONCE) as threads:
        accepted = list(threads.map(attempt, range(40)))

    assert sum(accepted) == 5
    assert database.read_sync(lambda conn: jobs_in_flight(conn, tenant)) == 5
    submit(database, "another")


def test_a_key_that_is_known_needs_no_room(database: Database) -> None:
    save(database, "lab", jobs_in_flight=1)
    job_id = submit(database, "lab", "same")

    assert submit(database, "lab", "same") == job_id
    with pytest.raises(LimitReached):
        submit(database, "lab", "other")


def test_a_limit_of_nothing_lets_nothing_in(database: Database) -> None:
    save(database, "lab", jobs_in_flight=0)
    with pytest.raises(LimitReached):
        submit(database, "lab")


def test_tokens_are_those_of_jobs_that_ended_since(story: Story) -> None:
    for tokens, finished_at, tenant in ((10, NOW - 1, "lab"), (20, NOW, "lab"), (40, NOW + 5, "lab"), (80, NOW, "b")):
        job_id = story.accept(tenant=tenant).job_id
        ended = update(jobs).where(jobs.c.id == job_id).values(tokens=tokens, finished_at=finished_at)
        story.database.run_sync(lambda conn, ended=ended: conn.execute(ended))
    story.accept(tenant="lab")

    assert story.database.read_sync(lambda conn: tokens_since(conn, "lab", NOW)) == 60
    assert story.database.read_sync(lambda conn: tokens_since(conn, "nobody", NOW)) == 0
