"""The embedded stack: private ones survive the death of their parts, leave nothing behind, and `up` is one per folder."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness.server import serving
from harness.stack import RunningUp, clean_environment
from k2think.agents.backends.simulator import SimulatedEngine, SolvingResponder
from k2think.workers.private_folder import PREFIX

WAIT_S = 60.0


def children(pid: int) -> dict[int, str]:
    """Child processes and their command lines."""
    found: dict[int, str] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rsplit(")", 1)[1].split()[1])
            if parent == pid:
                found[int(stat.parent.name)] = (stat.parent / "cmdline").read_text().replace("\0", " ")
        except (OSError, ValueError, IndexError):
            continue
    return found


def until(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + WAIT_S
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.05)
    return value


def solving(folder: Path, url: str) -> "subprocess.Popen[str]":
    environment = {
        **clean_environment(),
        "K2THINK_DATA_DIR": str(folder),
        "K2THINK_GENERATOR__BACKEND": "openai",
        "K2THINK_GENERATOR__BASE_URL": url,
        "K2THINK_GENERATOR__MODEL": "simulated",
        "K2THINK_LEASE_S": "2",
        "K2THINK_HEARTBEAT_S": "0.5",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "k2think.cli", "solve", "What is 347 + 58?"],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("victim", ["worker all", "redis-server"])
def test_a_private_stack_survives_the_death_of_its_parts(tmp_path: Path, victim: str) -> None:
    engine = SimulatedEngine(slots=64, token_s=0.05)
    with serving(SolvingResponder(accuracy=1.0, reasoning_tokens=30), engine=engine) as server:
        client = solving(tmp_path, server.url)
        until(lambda: server.open_streams > 0 and any(call.role == "generator" for call in server.calls), "a candidate")
        [pid] = [pid for pid, command in children(client.pid).items() if victim in command]

        os.kill(pid, signal.SIGKILL)

        out, err = client.communicate(timeout=WAIT_S)
    assert (client.returncode, out.strip()) == (0, "405"), err


def test_a_killed_client_leaves_no_process_and_its_folder_is_removed_by_the_next(tmp_path: Path) -> None:
    engine = SimulatedEngine(slots=64, token_s=0.05)
    with serving(SolvingResponder(accuracy=1.0, reasoning_tokens=30), engine=engine) as server:
        client = solving(tmp_path, server.url)
        until(lambda: server.open_streams > 0, "a stream")
        orphans = children(client.pid)
        assert len(orphans) == 2
        [server_command] = [command for command in orphans.values() if "redis-server" in command]
        private = Path(server_command.split("unixsocket:")[1].split("/redis.sock")[0])
        assert private.name.startswith(PREFIX)
        assert private.parent == Path(tempfile.gettempdir())

        client.kill()
        client.communicate()

        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in orphans), "the end of its children")
        assert server.open_streams == 0
        engine.token_s = 0.0
        second = solving(tmp_path, server.url)
        out, err = second.communicate(timeout=WAIT_S)
    assert (second.returncode, out.strip()) == (0, "405"), err
    assert not private.exists()


def test_one_up_per_data_folder(start_up: Callable[..., RunningUp]) -> None:
    up = start_up()

    second = subprocess.run(
        [sys.executable, "-m", "k2think.cli", "up"],
        env=up.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )

    assert second.returncode == 2
    assert "a stack runs already" in second.stderr
    assert str(up.process.pid) in second.stderr
    assert up.stop() == 0, "Ctrl-C drains and ends well"
    assert not children(up.process.pid)
