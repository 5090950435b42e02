"""`k2think gateway` as a process: what keeps it from starting is said in one message."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cli import Cli
from harness.gateway import RunningGateway
from harness.stack import clean_environment
from k2think.cli.checkup import State
from k2think.cli.checkup_run import check_doors
from k2think.schemas.doors import KeyScope
from k2think.schemas.settings import GatewaySettings, Settings

if TYPE_CHECKING:
    from conftest import RedisServer


def gateway_cli(folder: Path, **variables: str) -> Cli:
    return Cli(folder, {**clean_environment(), "K2THINK_DATA_DIR": str(folder / "data"), **variables})


def test_without_a_redis_it_says_what_to_set(tmp_path: Path) -> None:
    done = gateway_cli(tmp_path).run("gateway")

    assert done.returncode == 2
    assert "K2THINK_BROKER_URL" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        cli = gateway_cli(tmp_path, K2THINK_GATEWAY__PORT=port, K2THINK_BROKER_URL="redis://127.0.0.1:1/0")
        assert cli.run("db", "upgrade").returncode == 0

        done = cli.run("gateway")

    assert done.returncode == 2
    assert port in done.stderr
    assert "K2THINK_GATEWAY__PORT" in done.stderr
    assert "Traceback" not in done.stderr


EVERYWHERE = {"K2THINK_GATEWAY__HOST": "0.0.0.0"}  # noqa: S104


def test_an_address_that_others_can_reach_wants_a_valid_key(tmp_path: Path) -> None:
    gateway = RunningGateway(tmp_path, "redis://127.0.0.1:1/0", **EVERYWHERE)
    # One for the metrics alone is no key to the API, and neither is one that has expired.
    gateway.key(scope=KeyScope.metrics)
    gateway.key(expires_at=time.time() - 1)

    done = Cli(tmp_path, gateway.environment).run("gateway")

    assert done.returncode == 2
    assert "k2think keys create" in done.stderr
    assert "K2THINK_GATEWAY__HOST" in done.stderr
    assert "Traceback" not in done.stderr
    gateway.database.close()


def test_with_a_key_it_serves_everywhere_whoever_shows_it(tmp_path: Path, redis_server: RedisServer) -> None:
    gateway = RunningGateway(tmp_path, redis_server.url, **EVERYWHERE)
    key = gateway.key()
    with gateway, gateway.client() as nobody, gateway.client(key) as caller:
        assert nobody.get("/v1/jobs").status_code == 401
        assert caller.get("/v1/jobs", headers={"Host": "any.name.example"}).status_code == 200


def test_doctor_says_who_may_call(tmp_path: Path) -> None:
    gateway = RunningGateway(tmp_path, "redis://127.0.0.1:1/0")

    def said(host: str = "127.0.0.1", **more: Any) -> tuple[State, str]:
        settings = Settings(_env_file=None, data_dir=tmp_path, gateway=GatewaySettings(host=host, **more))  # pyright: ignore[reportCallIssue]
        found = check_doors(settings)
        return found.state, f"{found.detail} {found.fix}"

    assert said()[0] is State.ok
    assert "without a key" in said()[1]
    assert said("0.0.0.0")[0] is State.bad  # noqa: S104
    assert said(webhook_url="https://a.example/")[0] is State.bad
    gateway.key(expires_at=time.time() - 1)
    assert said()[0] is State.warning
    assert "keys create" in said()[1]
    gateway.key()
    assert [said()[0], said("0.0.0.0")[0]] == [State.ok, State.ok]  # noqa: S104
    gateway.database.close()


def test_the_help_says_what_it_serves_and_needs(tmp_path: Path) -> None:
    done = gateway_cli(tmp_path).run("gateway", "--help", COLUMNS="200")

    assert done.returncode == 0
    assert "/v1" in done.stdout
    assert "k2think keys create" in done.stdout
