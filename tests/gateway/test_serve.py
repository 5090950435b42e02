"""`k2think gateway` as a process: what keeps it from starting is said in one message."""

from __future__ import annotations

import socket
from pathlib import Path

from harness.cli import Cli
from harness.stack import clean_environment


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


def test_the_help_says_what_it_serves_and_needs(tmp_path: Path) -> None:
    done = gateway_cli(tmp_path).run("gateway", "--help", COLUMNS="200")

    assert done.returncode == 0
    assert "/v1" in done.stdout
    assert "k2think keys create" in done.stdout
