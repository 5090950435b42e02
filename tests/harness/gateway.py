"""`k2think gateway` as a process of its own, without workers: what it accepts stays in the queue."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
from harness.stack import clean_environment, free_port
from k2think.gateway.keys import new_key
from k2think.schemas.doors import KeyScope
from k2think.store.database import Database
from k2think.store.keys import Key, add_key
from k2think.store.migrate import upgrade
from k2think.store.tenants import save_tenant

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
NOTICED_S = 5.0
"""Within how many seconds a gateway notices a change of keys and limits."""


class RunningGateway:
    """A context manager: the process runs inside it. SQLite in the folder unless K2THINK_DATABASE_URL is given."""

    def __init__(self, folder: Path, broker_url: str, **environment: str) -> None:
        self.folder = folder
        self.log = folder / "gateway.log"
        self.environment = {
            **clean_environment(),
            "K2THINK_DATA_DIR": str(folder),
            "K2THINK_BROKER_URL": broker_url,
            "K2THINK_LOG_FORMAT": "json",
            "K2THINK_GATEWAY__PORT": str(free_port()),
            **environment,
        }
        url = self.environment.get("K2THINK_DATABASE_URL", f"sqlite:///{folder / 'k2think.db'}")
        upgrade(url.replace("postgresql://", "postgresql+psycopg://", 1))
        self.database = Database(url)

    def __enter__(self) -> "RunningGateway":
        with self.log.open("ab") as stream:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "k2think.cli", "gateway"],
                env=self.environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
            )
        try:
            self._wait()
        except BaseException:
            self._process.kill()
            self._process.wait(STOP_TIMEOUT_S)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(STOP_TIMEOUT_S)
        self.database.close()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def port(self) -> int:
        """Its port on 127.0.0.1."""
        return int(self.environment["K2THINK_GATEWAY__PORT"])

    @property
    def url(self) -> str:
        """Its root, without /v1."""
        return f"http://127.0.0.1:{self.port}"

    def key(self, tenant: str = "default", *, scope: KeyScope = KeyScope.api, expires_at: float | None = None) -> str:
        """Make a key; return its text."""
        made = new_key()
        kept = Key(made.id, tenant, "", scope, made.digest, time.time(), expires_at)
        self.database.run_sync(lambda connection: add_key(connection, kept))
        return made.text

    def limit(self, tenant: str, **limits: Any) -> None:
        """Set what a tenant may."""
        self.database.run_sync(lambda connection: save_tenant(connection, tenant, limits, now=time.time()))

    def client(self, key: str | None = None, **options: Any) -> httpx.Client:
        """A client with a key; the caller closes it."""
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30.0, **options)

    def _wait(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the gateway does not answer: {self.log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/openapi.json", timeout=10.0).status_code == 200
        except httpx.TransportError:
            return False
