"""On PostgreSQL a machine whose clock is a day ahead takes nothing from anybody: the database's clock counts."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from harness.asgi import gateway_settings, serving
from k2think.cli import keys as commands
from k2think.gateway.address import require_key
from k2think.gateway.files.housekeeping import remove_expired
from k2think.gateway.keys import id_of
from k2think.gateway.services import Services
from k2think.schemas.doors import KeyScope
from k2think.store.database import Database
from k2think.store.keys import find_key
from k2think.store.migrate import upgrade

if TYPE_CHECKING:
    from conftest import RedisServer

AHEAD_S = 7 * 86_400.0
NEAR_S = 600.0
EXPIRES: dict[str, Any] = {"purpose": "batch", "expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}


async def test_keys_and_files_live_by_the_databases_clock(
    tmp_path: Path,
    postgres_server: Any,
    redis_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url = postgres_server.new_database()
    upgrade(url)
    database = Database(url)
    monkeypatch.setattr(commands, "doors_database", lambda: Database(url))

    def make_key() -> str:
        capsys.readouterr()
        commands.create(tenant="default", name="", scope=KeyScope.api, expires_in_days=1)
        return capsys.readouterr().out.strip()

    right, key = time.time, make_key()
    monkeypatch.setattr(time, "time", lambda: right() + AHEAD_S)
    settings = gateway_settings(tmp_path, database_url=url, broker_url=redis_server.url)

    second = id_of(make_key()) or ""
    made_ahead = database.read_sync(lambda conn: find_key(conn, second))
    assert made_ahead is not None
    assert abs(made_ahead.created_at - right()) < NEAR_S
    require_key(settings.model_copy(update={"gateway": settings.gateway.model_copy(update={"host": "0.0.0.0"})}))  # noqa: S104
    async with serving(settings) as http:
        http.headers["Authorization"] = f"Bearer {key}"
        uploaded = await http.post("/v1/files", files={"file": ("in.jsonl", b"{}\n")}, data=EXPIRES)
        assert uploaded.status_code == 200, uploaded.text
        file = uploaded.json()
        assert abs(file["created_at"] - right()) < NEAR_S

        await remove_expired(cast(Services, SimpleNamespace(database=database, settings=settings)))

        assert (await http.get(f"/v1/files/{file['id']}/content")).content == b"{}\n"
        del http.headers["Authorization"]
        assert (await http.post("/ui/login", data={"key": key})).status_code == 303
        assert (await http.get("/ui")).status_code == 200
    database.close()
