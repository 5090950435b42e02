"""A process's row of signs of life: kept, renewed, marked when it is told to stop, taken away at the end."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness.stack import RunningUp, settings_of
from k2think.schemas.settings import Settings
from k2think.store.database import Database
from k2think.store.migrate import upgrade
from k2think.store.workers import ROLES_NEEDED, WorkerRow, seen_workers, sign_of_life
from k2think.workers import presence as module
from k2think.workers.presence import Presence, process_id

pytestmark = pytest.mark.timeout(300)  # a guard against hanging, for machines that are busy with other things
BEAT_S = 0.05


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'k2think.db'}"
    else:
        url = request.getfixturevalue("postgres_server").new_database()
    upgrade(url)
    opened = Database(url)
    yield opened
    opened.close()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(_env_file=None, data_dir=tmp_path, heartbeat_s=BEAT_S)  # pyright: ignore[reportCallIssue]


def rows(database: Database) -> list[WorkerRow]:
    return database.read_sync(lambda conn: seen_workers(conn, since=0))


async def eventually(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


async def test_the_row_is_renewed_and_taken_away(database: Database, settings: Settings) -> None:
    running = 0
    worker = process_id("generator")
    presence = Presence(
        settings, database, worker=worker, role="generator", backend="fast", capacity=7, running=lambda: running
    )
    presence.start()
    await eventually(lambda: len(rows(database)) == 1)
    (first,) = rows(database)
    assert (first.worker, first.role, first.backend, first.capacity, first.running) == (
        worker,
        "generator",
        "fast",
        7,
        0,
    )
    assert json.loads(first.metrics)

    running = 3
    await eventually(lambda: rows(database)[0].running == 3)
    (later,) = rows(database)
    assert later.started_at == first.started_at < later.seen_at
    assert not later.draining

    await presence.drain()
    assert rows(database)[0].draining
    await asyncio.sleep(3 * BEAT_S)
    assert rows(database)[0].draining, "later signs say so, too"

    await presence.close()
    assert rows(database) == []
    await asyncio.sleep(3 * BEAT_S)
    assert rows(database) == [], "no late sign brings it back"


async def test_a_process_that_stops_in_the_middle_of_a_sign_leaves_nothing(
    database: Database, settings: Settings
) -> None:
    for _ in range(20):
        presence = Presence(settings, database, worker=process_id("planner"), role="planner")
        presence.start()
        await asyncio.sleep(0)
        await presence.drain()
        await presence.close()

    assert rows(database) == []


async def test_a_database_that_is_away_stops_nobody(tmp_path: Path, settings: Settings) -> None:
    database = Database("postgresql://nobody@127.0.0.1:1/none")
    presence = Presence(settings, database, worker=process_id("planner"), role="planner")
    presence.start()
    await asyncio.sleep(3 * BEAT_S)

    await presence.drain()
    await presence.close()
    database.close()


async def test_a_sweeper_forgets_those_who_died_long_ago(database: Database, settings: Settings) -> None:
    now = time.time()
    for worker, age_s in (("dead", module.FORGET_AFTER_S + 60), ("silent", 60.0)):
        row = WorkerRow(worker, "planner", "h", 1, "0", None, 1, 0, False, now - age_s, now - age_s, "{}")
        database.run_sync(lambda conn, one=row: sign_of_life(conn, one))

    presence = Presence(settings, database, worker="sweeper-1", role="sweeper")
    presence.start()
    await eventually(lambda: {row.worker for row in rows(database)} == {"silent", "sweeper-1"})
    await presence.close()


# ---- On whole processes


def test_every_process_of_a_stack_has_its_row_and_takes_it_away(start_up: Callable[..., RunningUp]) -> None:
    up = start_up(K2THINK_GENERATOR__BACKEND="openai", K2THINK_GENERATOR__BASE_URL="http://127.0.0.1:1/v1")
    database = Database(settings_of(up).sqlalchemy_url)
    try:
        roles = {*ROLES_NEEDED, "intake", "gateway"}
        up.wait_for(lambda: {row.role for row in rows(database)} == roles, "a row of each process")
        assert {row.pid for row in rows(database)} == {up.pid(role) for role in roles}

        killed = up.pid("verifier")
        up.kill("verifier")
        up.wait_for(lambda: len(rows(database)) == len(roles) + 1, "a row of the new verifier")

        assert up.stop() == 0
        left = [(row.role, row.pid) for row in rows(database)]
        assert left == [("verifier", killed)], "who was killed could not take its row away"
    finally:
        database.close()


async def test_a_file_is_touched_as_long_as_the_process_beats(tmp_path: Path, settings: Settings) -> None:
    file = tmp_path / "alive"
    nowhere = Database(f"sqlite:///{tmp_path}/none/k2think.db", create_folder=False)  # its being away is no reason
    presence = Presence(settings.model_copy(update={"alive_file": file}), nowhere, worker="w", role="planner")
    presence.start()
    await eventually(file.exists)
    file.unlink()
    await eventually(file.exists)
    await presence.close()
    file.unlink()
    await asyncio.sleep(4 * BEAT_S)
    assert not file.exists()
    nowhere.close()
