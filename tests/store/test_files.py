"""Files are one tenant's, within its space, and stay as long as a batch reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from k2think.schemas.batches import BatchBody, FilePurpose
from k2think.schemas.errors import IdempotencyConflict, InvalidRequest, LimitReached, NotFound
from k2think.schemas.settings import Settings
from k2think.store.batch_runs import claim_batches, fail_batch
from k2think.store.batches import create_batch
from k2think.store.door_tables import batch_requests, batches, files, tenants
from k2think.store.files import (
    FileRow,
    NewFile,
    add_file,
    delete_file,
    drop_expired_files,
    get_file,
    key_is_known,
    known_files,
    list_files,
    new_file_id,
    room_for_files,
    write_file_row,
)
from k2think.store.tenants import save_tenant

from .conftest import NOW

if TYPE_CHECKING:
    from k2think.store.database import Database

SETTINGS = Settings(_env_file=None)  # pyright: ignore[reportCallIssue]


@pytest.fixture(autouse=True)
def empty(database: Database) -> None:
    for table in (batch_requests, batches, files, tenants):
        database.run_sync(lambda conn, table=table: conn.execute(table.delete()))


def new(**fields: Any) -> NewFile:
    known = {"tenant": "default", "filename": "in.jsonl", "purpose": FilePurpose.batch, "bytes": 10, "sha256": "0" * 64}
    return NewFile(**{"id": new_file_id(), **known, **fields})


def add(database: Database, now: float = NOW, **fields: Any) -> FileRow:
    file = new(**fields)
    stored, created = database.run_sync(lambda conn: add_file(conn, file, now=now))
    assert created
    assert stored.id == file.id
    return stored


def batch_of(database: Database, file: FileRow) -> str:
    body = BatchBody(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="1h")
    return database.run_sync(lambda conn: create_batch(conn, body, SETTINGS, tenant=file.tenant, now=NOW))[0].id


def end_batches(database: Database) -> None:
    def end(conn: Any) -> None:
        for claim in claim_batches(conn, owner="x", now=NOW, lease_s=1, limit=9):
            assert fail_batch(conn, claim, [], now=NOW)

    database.run_sync(end)


def test_another_tenants_file_is_not_there(database: Database) -> None:
    mine = add(database, tenant="a", filename="nul\x00.jsonl", expires_after_s=60)
    assert database.read_sync(lambda conn: get_file(conn, "a", mine.id)) == mine
    assert (mine.filename, mine.created_at, mine.expires_at) == ("nul\ufffd.jsonl", NOW, NOW + 60)
    for tenant, file_id in (("b", mine.id), ("a", new_file_id()), ("a", "../x"), ("a", "x" * 500)):
        for operation in (get_file, delete_file):
            with pytest.raises(NotFound) as caught:
                database.run_sync(lambda conn, it=operation, who=tenant, which=file_id: it(conn, who, which))
            assert len(str(caught.value)) < 200
    assert database.read_sync(lambda conn: list_files(conn, "b", limit=10)) == []


def test_an_idempotency_key_stands_for_one_upload_of_one_tenant(database: Database) -> None:
    first = add(database, idempotency_key="k")
    again, created = database.run_sync(lambda conn: add_file(conn, new(idempotency_key="k"), now=NOW + 1))
    assert (again, created) == (first, False)
    other = add(database, idempotency_key="k", tenant="other")
    assert other.id != first.id
    with pytest.raises(IdempotencyConflict):
        database.run_sync(lambda conn: add_file(conn, new(idempotency_key="k", sha256="1" * 64), now=NOW))
    assert database.read_sync(lambda conn: key_is_known(conn, "default", "k"))
    assert not database.read_sync(lambda conn: key_is_known(conn, "third", "k"))


def test_uploads_end_where_the_space_ends(database: Database) -> None:
    assert database.read_sync(lambda conn: room_for_files(conn, "default")) is None
    database.run_sync(lambda conn: save_tenant(conn, "default", {"stored_bytes": 25}, now=NOW))
    add(database)
    add(database, tenant="other", bytes=10**9)
    assert database.read_sync(lambda conn: room_for_files(conn, "default")) == 15
    with pytest.raises(LimitReached) as caught:
        database.run_sync(lambda conn: add_file(conn, new(bytes=16), now=NOW))
    assert caught.value.retry_after_s > 0

    add(database, bytes=15)
    assert database.read_sync(lambda conn: room_for_files(conn, "default")) == 0
    assert database.run_sync(lambda conn: write_file_row(conn, new(bytes=99), now=NOW)), "results are always kept"
    assert database.read_sync(lambda conn: room_for_files(conn, "default")) == 0


def test_lists_are_by_time_and_paged(database: Database) -> None:
    ids = [add(database, id=new_file_id(now=NOW + number), now=NOW + number).id for number in range(4)]
    output = add(database, id=new_file_id(now=NOW + 9), purpose=FilePurpose.batch_output).id

    def listed(**options: Any) -> list[str]:
        return [row.id for row in database.read_sync(lambda conn: list_files(conn, "default", **options))]

    assert listed(limit=10) == [output, *ids[::-1]]
    assert listed(limit=2, order="asc") == ids[:2]
    assert listed(limit=2, order="asc", after=ids[1]) == ids[2:]
    assert listed(limit=2, after=ids[2]) == ids[1::-1]
    assert listed(limit=10, purpose="batch_output") == [output]
    with pytest.raises(InvalidRequest, match="after"):
        listed(limit=1, after="file-x")


def test_a_file_that_a_batch_reads_cannot_go(database: Database) -> None:
    file = add(database, expires_after_s=60)
    batch_of(database, file)
    with pytest.raises(InvalidRequest, match="cancel the batch"):
        database.run_sync(lambda conn: delete_file(conn, "default", file.id))
    assert database.run_sync(lambda conn: drop_expired_files(conn, now=NOW + 61)) == []

    end_batches(database)

    assert database.run_sync(lambda conn: drop_expired_files(conn, now=NOW + 61)) == [file.id]
    with pytest.raises(NotFound):
        database.run_sync(lambda conn: delete_file(conn, "default", file.id))


def test_what_has_expired_goes_and_what_is_known_is_told(database: Database) -> None:
    old = [add(database, expires_after_s=10).id for _ in range(3)]
    kept = [add(database, expires_after_s=90).id, add(database).id]

    assert set(database.run_sync(lambda conn: drop_expired_files(conn, now=NOW + 10, limit=2))) < set(old)
    assert len(database.run_sync(lambda conn: drop_expired_files(conn, now=NOW + 10, limit=2))) == 1
    assert database.run_sync(lambda conn: drop_expired_files(conn, now=NOW + 10, limit=2)) == []

    assert database.read_sync(lambda conn: known_files(conn, [*old, *kept])) == set(kept)
    many = [new_file_id() for _ in range(1_200)]
    assert database.read_sync(lambda conn: known_files(conn, [*many, kept[0]])) == {kept[0]}
