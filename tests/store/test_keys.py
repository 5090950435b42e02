"""Keys: kept as digests, found by their public part, revoked for good."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from k2think.schemas.doors import KeyScope
from k2think.schemas.errors import NotFound
from k2think.store.database import Database
from k2think.store.door_tables import keys
from k2think.store.keys import Key, add_key, any_key, any_valid_key, find_key, list_keys, revoke_key

NOW = 1_795_000_000.0
KEY = Key("abcdefghij", "lab", "laptop", KeyScope.api, "d" * 64, NOW, None)


@pytest.fixture
def empty(database: Database) -> Iterator[Database]:
    """The database without keys; PostgreSQL's is shared by the tests."""
    database.run_sync(lambda conn: conn.execute(keys.delete()))
    yield database
    database.run_sync(lambda conn: conn.execute(keys.delete()))


def add(database: Database, key: Key) -> None:
    database.run_sync(lambda conn: add_key(conn, key))


def valid(database: Database, *, now: float = NOW, scope: KeyScope = KeyScope.api) -> bool:
    return database.read_sync(lambda conn: any_valid_key(conn, now=now, scope=scope))


def test_a_key_is_found_as_it_was_added(empty: Database) -> None:
    expiring = replace(
        KEY, id="bbbbbbbbbb", tenant="other", scope=KeyScope.metrics, expires_at=NOW + 5, created_at=NOW + 1
    )
    add(empty, KEY)
    add(empty, expiring)

    assert empty.read_sync(lambda conn: find_key(conn, KEY.id)) == KEY
    assert empty.read_sync(lambda conn: find_key(conn, "cccccccccc")) is None
    assert empty.read_sync(list_keys) == [KEY, expiring]
    assert empty.read_sync(lambda conn: list_keys(conn, tenant="other")) == [expiring]


def test_a_revoked_key_stays_revoked_and_listed(empty: Database) -> None:
    add(empty, KEY)

    assert empty.run_sync(lambda conn: revoke_key(conn, KEY.id, now=NOW + 1)) is True
    assert empty.run_sync(lambda conn: revoke_key(conn, KEY.id, now=NOW + 2)) is False
    with pytest.raises(NotFound, match="keys list"):
        empty.run_sync(lambda conn: revoke_key(conn, "cccccccccc", now=NOW))

    (found,) = empty.read_sync(list_keys)
    assert (found.revoked_at, found.state(NOW + 3)) == (NOW + 1, "revoked")


def test_a_key_is_valid_until_it_expires(empty: Database) -> None:
    key = replace(KEY, expires_at=NOW + 10)

    assert [key.valid(NOW + 9.9), key.valid(NOW + 10)] == [True, False]
    assert [key.state(NOW), key.state(NOW + 10)] == ["valid", "expired"]


def test_whether_there_are_keys_and_whether_one_is_valid(empty: Database) -> None:
    assert not empty.read_sync(any_key)
    add(empty, replace(KEY, id="m" * 10, scope=KeyScope.metrics))
    assert not empty.read_sync(any_key)
    assert not valid(empty)
    assert valid(empty, scope=KeyScope.metrics)

    add(empty, replace(KEY, expires_at=NOW + 10))
    assert empty.read_sync(any_key)
    assert valid(empty)
    assert not valid(empty, now=NOW + 10)

    add(empty, replace(KEY, id="k" * 10))
    assert valid(empty, now=NOW + 10)
    empty.run_sync(lambda conn: revoke_key(conn, "k" * 10, now=NOW))
    assert not valid(empty, now=NOW + 10)
    assert empty.read_sync(any_key), "one that opens nothing any more was still made"
