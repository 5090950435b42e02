"""Batches as their owner sees them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from k2think.schemas.batches import BatchBody, BatchObject, BatchStatus, FilePurpose
from k2think.schemas.errors import IdempotencyConflict, InvalidRequest, NotFound
from k2think.schemas.settings import Settings
from k2think.store.batch_runs import claim_batches, end_batch
from k2think.store.batches import cancel_batch, create_batch, get_batch, list_batches
from k2think.store.door_tables import batch_requests, batches, deliveries, files, tenants
from k2think.store.files import NewFile, add_file, new_file_id
from k2think.store.tenants import save_tenant
from sqlalchemy import select

from .conftest import NOW

if TYPE_CHECKING:
    from k2think.store.database import Database

SETTINGS = Settings(_env_file=None)  # pyright: ignore[reportCallIssue]
SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="


@pytest.fixture(autouse=True)
def empty(database: Database) -> None:
    for table in (batch_requests, batches, files, tenants, deliveries):
        database.run_sync(lambda conn, table=table: conn.execute(table.delete()))


def upload(database: Database, *, tenant: str = "default", purpose: FilePurpose = FilePurpose.batch) -> str:
    file = NewFile(id=new_file_id(), tenant=tenant, filename="in.jsonl", purpose=purpose, bytes=1, sha256="0" * 64)
    return database.run_sync(lambda conn: add_file(conn, file, now=NOW))[0].id


def body(file_id: str, **fields: Any) -> BatchBody:
    options = {"endpoint": "/v1/chat/completions", "completion_window": "24h", **fields}
    return BatchBody.model_validate({"input_file_id": file_id, **options})


def create(
    database: Database, wanted: BatchBody, *, tenant: str = "default", now: float = NOW, key: str | None = None
) -> tuple[BatchObject, bool]:
    return database.run_sync(
        lambda conn: create_batch(conn, wanted, SETTINGS, tenant=tenant, now=now, idempotency_key=key)
    )


def test_a_new_batch_waits_to_be_read(database: Database) -> None:
    wanted = body(upload(database), metadata={"a": "b"}, completion_window="30m")
    batch, created = create(database, wanted)

    assert created
    assert batch.status is BatchStatus.validating
    assert (batch.created_at, batch.expires_at) == (int(NOW), int(NOW) + 1_800)
    assert (batch.metadata, batch.completion_window) == ({"a": "b"}, "30m")
    assert (batch.model, batch.errors, batch.usage, batch.output_file_id) == (None, None, None, None)
    assert batch.request_counts.model_dump() == {"total": 0, "completed": 0, "failed": 0}
    assert database.read_sync(lambda conn: get_batch(conn, "default", batch.id)) == batch


def test_another_tenants_batch_or_file_is_not_there(database: Database) -> None:
    mine, _created = create(database, body(upload(database, tenant="a")), tenant="a")
    for tenant, batch_id in (("b", mine.id), ("a", "batch_" + "0" * 32), ("a", "../x")):
        with pytest.raises(NotFound):
            database.read_sync(lambda conn, who=tenant, which=batch_id: get_batch(conn, who, which))
        with pytest.raises(NotFound):
            database.run_sync(lambda conn, who=tenant, which=batch_id: cancel_batch(conn, who, which, now=NOW))
    assert database.read_sync(lambda conn: list_batches(conn, "b", limit=9)) == []
    with pytest.raises(NotFound):
        create(database, body(upload(database, tenant="b")), tenant="a")
    output = upload(database, purpose=FilePurpose.batch_output)
    with pytest.raises(InvalidRequest, match="purpose"):
        create(database, body(output))


def test_an_idempotency_key_stands_for_one_batch_of_one_tenant(database: Database) -> None:
    wanted = body(upload(database))
    first, created = create(database, wanted, key="k")
    assert created
    assert create(database, wanted, key="k", now=NOW + 9) == (first, False)
    with pytest.raises(IdempotencyConflict):
        create(database, body(wanted.input_file_id, metadata={"x": "y"}), key="k")
    other, created = create(database, body(upload(database, tenant="b")), tenant="b", key="k")
    assert created
    assert other.id != first.id


def test_lists_are_newest_first_and_paged(database: Database) -> None:
    wanted = body(upload(database))
    ids = [create(database, wanted, now=NOW + number)[0].id for number in range(4)]

    def listed(**options: Any) -> list[str]:
        return [row.id for row in database.read_sync(lambda conn: list_batches(conn, "default", **options))]

    assert listed(limit=9) == ids[::-1]
    assert listed(limit=2, after=ids[2]) == ids[1::-1]
    assert listed(limit=2, order="asc", after=ids[1]) == ids[2:]
    with pytest.raises(InvalidRequest, match="after"):
        listed(limit=1, after="batch_x")


def test_cancelling_twice_changes_nothing_and_after_the_end_is_refused(database: Database) -> None:
    batch, _created = create(database, body(upload(database)))
    first = database.run_sync(lambda conn: cancel_batch(conn, "default", batch.id, now=NOW + 1))
    assert (first.status, first.cancelling_at) == (BatchStatus.cancelling, int(NOW) + 1)
    assert database.run_sync(lambda conn: cancel_batch(conn, "default", batch.id, now=NOW + 2)) == first

    other, _created = create(database, body(upload(database)))

    def end(conn: Any) -> None:
        for claim in claim_batches(conn, owner="x", now=NOW, lease_s=1, limit=9):
            status = BatchStatus.completed if claim.batch_id == other.id else BatchStatus.cancelled
            end_batch(conn, claim, status, now=NOW + 3)

    database.run_sync(end)
    again = database.run_sync(lambda conn: cancel_batch(conn, "default", batch.id, now=NOW + 4))
    assert (again.status, again.cancelled_at) == (BatchStatus.cancelled, int(NOW) + 3)
    with pytest.raises(InvalidRequest, match="completed"):
        database.run_sync(lambda conn: cancel_batch(conn, "default", other.id, now=NOW + 4))


def test_a_notice_is_asked_for_where_there_is_a_target(database: Database) -> None:
    def asked() -> list[str]:
        return list(database.read_sync(lambda conn: conn.execute(select(deliveries.c.subject_id)).scalars().all()))

    wanted = body(upload(database))
    create(database, wanted)
    assert asked() == []
    target = {"webhook_url": "https://example.com/x", "webhook_secret": SECRET}
    database.run_sync(lambda conn: save_tenant(conn, "default", target, now=NOW))
    batch, _created = create(database, wanted)
    assert asked() == [batch.id]


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"endpoint": "/v1/embeddings"}, "not served"),
        ({"completion_window": "24"}, "completion_window"),
        ({"completion_window": "8d"}, "completion_window"),
        ({"completion_window": "0h"}, "completion_window"),
        ({"metadata": {str(number): "x" for number in range(17)}}, "metadata"),
        ({"metadata": {"k" * 65: "x"}}, "metadata"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 3_599}}, "seconds"),
        ({"output_expires_after": {"anchor": "last_used_at", "seconds": 3_600}}, "anchor"),
    ],
)
def test_what_cannot_be_served_is_refused(fields: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        body("file-" + "0" * 32, **fields)
