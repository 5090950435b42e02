"""PostgreSQL behind PgBouncer in transaction mode: each transaction has another session, and jobs are done all the same."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest
from harness.notes import keys, note
from harness.processes import working
from harness.stack import all_succeeded, free_port, results_of, submit_all
from k2think.store.database import Database
from k2think.store.durability import Weight, database_faults
from k2think.store.migrate import upgrade
from k2think.workers.session import open_session

pytestmark = pytest.mark.timeout(120)
BINARY = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
SESSIONS = 2
"""Of the server that the pooler keeps: fewer than we open connections to it."""
JOBS = 8


@pytest.fixture
def pooled_url(postgres_server: Any) -> Iterator[str]:
    """URL of an empty database by way of the pooler, whose every transaction may go to another session."""
    if BINARY is None:
        pytest.skip("PgBouncer is not installed")
    url = urlsplit(postgres_server.new_database())
    name, port = url.path.lstrip("/"), free_port()
    with tempfile.TemporaryDirectory(prefix="k2pool-") as folder:
        config = Path(folder) / "pgbouncer.ini"
        config.write_text(
            f"[databases]\n{name} = host={parse_qs(url.query)['host'][0]} user=postgres\n[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
            f"pool_mode = transaction\nserver_round_robin = 1\ndefault_pool_size = {SESSIONS}\nserver_lifetime = 1\n"
        )
        os.chmod(folder, 0o755)  # noqa: S103
        user = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        process = subprocess.Popen([BINARY, "-q", str(config)], user=user, stdin=subprocess.DEVNULL)
        pooled = f"postgresql://postgres@127.0.0.1:{port}/{name}"
        try:
            end = time.monotonic() + 20
            while True:
                try:
                    psycopg.connect(pooled).close()
                    break
                except psycopg.OperationalError:
                    assert time.monotonic() < end
                    time.sleep(0.05)
            yield pooled
        finally:
            process.kill()
            process.wait()


def test_the_same_statements_run_on_any_session(pooled_url: str) -> None:
    upgrade(pooled_url)
    database = Database(pooled_url, connections=6, pooled=True)
    with ThreadPoolExecutor(6) as threads:
        list(threads.map(lambda i: database.run_sync(lambda conn: note(conn, float(i), key=str(i))), range(60)))
        found = list(threads.map(lambda _: database.read_sync(keys), range(60)))
    assert all(one == {str(i) for i in range(60)} for one in found)
    database.close()


@pytest.mark.parametrize("level", ["on", "off"])
def test_what_a_session_would_have_set_is_asked_of_the_role(pooled_url: str, level: str) -> None:
    def refused() -> bool:
        return any(fault.weight is Weight.refused for fault in database_faults(pooled_url, pooled=True))

    assert any("idle_in_transaction" in fault.what for fault in database_faults(pooled_url, pooled=True))
    with psycopg.connect(pooled_url, autocommit=True, prepare_threshold=None) as connection:
        name = pooled_url.rpartition("/")[2]
        for setting in (f"synchronous_commit = {level}", "idle_in_transaction_session_timeout = '15s'"):
            connection.execute(f"ALTER DATABASE {name} SET {setting}")  # type: ignore[arg-type]
    # Sessions begin anew after this long, by the pooler's configuration.
    end = time.monotonic() + 20
    while any("idle_in_transaction" in fault.what for fault in database_faults(pooled_url, pooled=True)):
        assert time.monotonic() < end
        time.sleep(0.2)
    assert refused() == (level == "off")


async def test_jobs_are_done_behind_a_pooler(pooled_url: str, redis_server: Any, tmp_path: Path) -> None:
    with working(tmp_path, redis_server.url, database_url=pooled_url, database_pooled=True) as settings:
        async with open_session(settings) as session:
            assert all_succeeded(await results_of(session, await submit_all(session, JOBS)))
