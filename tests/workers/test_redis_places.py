"""Redis behind Sentinels and behind TLS: the same workers, told by nothing but K2THINK_BROKER_URL."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis
import trustme
from celery import Celery
from harness.cli import Cli
from harness.processes import working
from harness.stack import all_succeeded, clean_environment, free_port, results_of, submit_all
from harness.tls import tls_before
from k2think.store.migrate import upgrade
from k2think.workers.redis_clients import celery_place, redis_client
from k2think.workers.redis_server import find_binary
from k2think.workers.session import open_session

if TYPE_CHECKING:
    from conftest import RedisServer

pytestmark = pytest.mark.timeout(180)
JOBS = 8
SENTINELS = 3


def answer_of_celery(url: str) -> dict[str, Any]:
    """Send a task as some other service would, and wait for its result."""
    place = celery_place(url)
    app = Celery("other-service", broker=place.url, backend=place.url, set_as_current=False)
    app.conf.update(
        broker_use_ssl=place.ssl or False,
        redis_backend_use_ssl=place.ssl,
        broker_transport_options=place.options,
        result_backend_transport_options=place.options,
    )
    try:
        return app.send_task("k2think.solve", [{"problem": "What is 347 + 58?"}], queue="intake").get(timeout=60)
    finally:
        app.close()


# ---- Sentinels


class Sentinels:
    """A master, its replica, and Sentinels that watch them, all under the users of an ACL file."""

    def __init__(self, folder: Path, start: Callable[..., RedisServer]) -> None:
        done = Cli(folder, clean_environment()).run(
            "redis", "acl", "--replication", "--json", "--output", str(folder / "users.acl")
        )
        assert done.returncode == 0, done.stderr
        self.passwords: dict[str, str] = json.loads(done.stdout)
        self.ports = [free_port(), free_port()]
        common = ("--bind", "127.0.0.1", "--aclfile", str(folder / "users.acl"), "--repl-diskless-sync-delay", "0")
        common += ("--masteruser", "replica", "--masterauth", self.passwords["replica"])
        login = ("admin", self.passwords["admin"])
        self.master = start(*common, "--port", str(self.ports[0]), login=login)
        self.replica = start(
            *common, "--port", str(self.ports[1]), "--replicaof", "127.0.0.1", str(self.ports[0]), login=login
        )
        self._sentinels: list[subprocess.Popen[bytes]] = []
        self.sentinel_ports = [free_port() for _ in range(SENTINELS)]
        for port in self.sentinel_ports:
            config = folder / f"sentinel-{port}.conf"
            config.write_text(
                f"port {port}\nbind 127.0.0.1\ndir {folder}\nsentinel monitor main 127.0.0.1 {self.ports[0]} 2\n"
                f"sentinel auth-user main sentinel\nsentinel auth-pass main {self.passwords['sentinel']}\n"
                "sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 2000\n"
            )
            with (folder / "sentinel.log").open("ab") as log:
                self._sentinels.append(
                    subprocess.Popen([find_binary(), str(config), "--sentinel"], stdout=log, stderr=log)
                )
        self._wait_until_watched()

    @property
    def url(self) -> str:
        """As K2THINK_BROKER_URL takes it."""
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.sentinel_ports)
        return f"redis+sentinel://admin:{self.passwords['admin']}@{hosts}/main"

    def master_port(self) -> int:
        """Of the server that the Sentinels name."""
        with redis.Redis(port=self.sentinel_ports[0], protocol=2) as client:
            return int(client.sentinel_get_master_addr_by_name("main")[1])

    def stop(self) -> None:
        """End the Sentinels."""
        for sentinel in self._sentinels:
            sentinel.kill()
            sentinel.wait()

    def _wait_until_watched(self) -> None:
        """Every Sentinel knows the others and the replica, which is in step."""
        deadline = time.monotonic() + 30
        while True:
            try:
                seen = [self._seen(port) for port in self.sentinel_ports]
            except redis.ConnectionError:
                seen = []
            if seen and all(state == (SENTINELS - 1, 1) for state in seen) and self._in_step():
                return
            assert time.monotonic() < deadline, seen
            time.sleep(0.1)

    def _seen(self, port: int) -> tuple[int, int]:
        with redis.Redis(port=port, protocol=2) as client:
            state = client.sentinel_master("main")
            return int(state["num-other-sentinels"]), int(state["num-slaves"])

    def _in_step(self) -> bool:
        with redis.Redis(port=self.ports[1], username="admin", password=self.passwords["admin"]) as client:
            return client.info("replication")["master_link_status"] == "up"


@pytest.fixture
def sentinels(new_redis_server: Callable[..., RedisServer]) -> Iterator[Sentinels]:
    with tempfile.TemporaryDirectory(prefix="k2sent-") as folder:
        made = Sentinels(Path(folder), new_redis_server)
        try:
            yield made
        finally:
            made.stop()


async def test_work_goes_on_when_the_master_is_killed(sentinels: Sentinels, tmp_path: Path) -> None:
    with working(tmp_path, sentinels.url) as settings:
        async with open_session(settings) as session:
            assert all_succeeded(await results_of(session, await submit_all(session, 2)))

            ids = await submit_all(session, JOBS)
            sentinels.master.kill()
            ids += await submit_all(session, JOBS)  # while there is no master
            assert all_succeeded(await results_of(session, ids))
            assert await asyncio.to_thread(sentinels.master_port) == sentinels.ports[1]

            # By the new master, and without waiting for the sweeper.
            ids = await submit_all(session, JOBS)
            assert all_succeeded(await results_of(session, ids))
            answer = await asyncio.to_thread(answer_of_celery, sentinels.url)
            assert answer["status"] == "succeeded"


# ---- TLS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """PEM files: of the authority, and certificate and key of server and client."""
    folder, authority = tmp_path_factory.mktemp("tls"), trustme.CA()
    files = {"ca": str(folder / "ca.pem")}
    authority.cert_pem.write_to_path(files["ca"])
    for who, made in (
        ("server", authority.issue_cert("127.0.0.1", "localhost")),
        ("client", authority.issue_cert("worker@example.org")),
    ):
        files |= {f"{who}_cert": str(folder / f"{who}.pem"), f"{who}_key": str(folder / f"{who}.key")}
        made.cert_chain_pems[0].write_to_path(files[f"{who}_cert"])
        made.private_key_pem.write_to_path(files[f"{who}_key"])
    return files


@pytest.fixture(params=["proxy", "redis"])
def tls_port(
    request: pytest.FixtureRequest, new_redis_server: Callable[..., RedisServer], certificates: dict[str, str]
) -> Iterator[int]:
    """Port of a Redis by TLS that asks for a certificate: redis-server's own TLS where its build has it, and a proxy."""
    if request.param == "proxy":
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificates["ca"])
        context.load_cert_chain(certificates["server_cert"], certificates["server_key"])
        context.verify_mode = ssl.CERT_REQUIRED
        with tls_before(new_redis_server().socket, context) as port:
            yield port
        return
    port = free_port()
    names = {"tls-cert-file": "server_cert", "tls-key-file": "server_key", "tls-ca-cert-file": "ca"}
    files = [word for option, name in names.items() for word in (f"--{option}", certificates[name])]
    try:
        new_redis_server("--bind", "127.0.0.1", "--tls-port", str(port), *files)
    except RuntimeError as exc:
        if "Bad directive" not in str(exc) and "FATAL CONFIG" not in str(exc):
            raise
        pytest.skip("this redis-server was built without TLS")
    yield port


def tls_url(port: int, certificates: dict[str, str], *, client: bool = True) -> str:
    own = f"&ssl_certfile={certificates['client_cert']}&ssl_keyfile={certificates['client_key']}" if client else ""
    return f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={certificates['ca']}{own}"


async def test_jobs_are_done_over_tls_with_certificates(
    tls_port: int, certificates: dict[str, str], tmp_path: Path
) -> None:
    url = tls_url(tls_port, certificates)
    with working(tmp_path, url) as settings:
        async with open_session(settings) as session:
            assert all_succeeded(await results_of(session, await submit_all(session, JOBS)))
        answer = await asyncio.to_thread(answer_of_celery, url)
        assert answer["status"] == "succeeded"
        doctor = Cli(tmp_path, clean_environment()).json("doctor", K2THINK_BROKER_URL=url)
        (check,) = [check for check in doctor["checks"] if check["name"] == "redis"]
        assert check["state"] == "ok", check


def test_tls_believes_no_stranger_and_shows_itself(tls_port: int, certificates: dict[str, str]) -> None:
    for url in (
        f"rediss://127.0.0.1:{tls_port}/0",  # the system's authorities do not know this server
        tls_url(tls_port, certificates, client=False),
        tls_url(tls_port, certificates).replace("127.0.0.1", "127.0.0.2"),
        f"redis://127.0.0.1:{tls_port}/0",
    ):
        with redis_client(url, socket_timeout=5) as client, pytest.raises((redis.RedisError, OSError)):
            client.ping()
    with redis_client(tls_url(tls_port, certificates), socket_timeout=5) as client:
        assert client.ping()


def test_a_certificate_that_is_not_there_ends_a_process_at_once(tmp_path: Path) -> None:
    upgrade(f"sqlite:///{tmp_path / 'k2think.db'}")
    cli = Cli(tmp_path, {**clean_environment(), "K2THINK_DATA_DIR": str(tmp_path)})
    url = f"rediss://:{'secret' * 2}@127.0.0.1:1/0?ssl_ca_certs={tmp_path}/none.pem"
    done = cli.run("worker", "planner", K2THINK_BROKER_URL=url)
    assert done.returncode == 2, done.stderr
    assert "none.pem is no file that can be read" in done.stderr
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stderr
