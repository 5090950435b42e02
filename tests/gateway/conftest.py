"""One whole stack with a gateway for all tests of the doors, and gateways without workers for those that need their own."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from harness.gateway import RunningGateway
from harness.live import LiveGateway, live_gateway
from harness.operations import Place
from k2think.store.migrate import upgrade

__all__ = ["LiveGateway", "live_gateway"]

StartGateway = Callable[..., RunningGateway]
"""(keyless=False, **environment): starts a gateway without workers; what it accepts stays unfinished."""


@pytest.fixture(scope="module")
def redis_of_module() -> Iterator[str]:
    """A redis-server for the gateways of one file: its URL."""
    from conftest import RedisServer

    # Not pytest's own folders: the path of a socket must be short.
    with tempfile.TemporaryDirectory(prefix="k2redis-") as folder:
        server = RedisServer(Path(folder))
        try:
            yield server.url
        finally:
            server.kill()


@pytest.fixture(scope="module")
def start_gateway(tmp_path_factory: pytest.TempPathFactory, redis_of_module: str) -> Iterator[StartGateway]:
    """Starts gateways that end with the file. Their databases have a key, so that each test makes tenants of its own."""
    with ExitStack() as running:

        def start(*, keyless: bool = False, **environment: str) -> RunningGateway:
            gateway = RunningGateway(tmp_path_factory.mktemp("gateway"), redis_of_module, **environment)
            if not keyless:
                gateway.key("first")
            return running.enter_context(gateway)

        yield start


@pytest.fixture
def tenant() -> str:
    """A tenant of the test's own."""
    return f"t-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def place(tmp_path: Path, redis_server: Any) -> Any:
    """A place of the test's own, on SQLite."""
    url = f"sqlite:///{tmp_path / 'k2think.db'}"
    upgrade(url)
    made = Place(tmp_path, url, redis_server)
    yield made
    made.database.close()
