"""What a user can get wrong: each has a message that says what happened and what to do, the right exit code, no traceback."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from harness.cli import Cli
from harness.server import serving
from harness.stack import clean_environment
from k2think.agents.backends.simulator import Reply
from sqlalchemy import create_engine, text

PROBLEM = "What is 347 + 58?"


def told(done: "subprocess.CompletedProcess[str]", code: int, *words: str) -> bool:
    """Whether the command ended with this code and a message with these words, without a traceback."""
    assert done.returncode == code, (done.returncode, done.stderr)
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr, done.stderr
    return True


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["solve", "   "], ["the problem is empty"]),
        (["solve", "x", "--n", "0"], ["policy", "n"]),
        (["solve", "x", "--n", "65"], ["policy", "64"]),
        (["solve", "x", "--policy", "nonsense"], ["unknown policy", "default, paper"]),
        (["solve", "x", "--policy", '{"selection": "dice"}'], ["selection"]),
        (["solve", "x", "--policy", '{"deadline_s": -1}'], ["deadline_s"]),
        (["solve", "x", "--policy", '{"typo": 1}'], ["typo"]),
        (["solve", "x", "--policy", "{broken"], ["--policy", "JSON"]),
        (["solve", "x", "--backend", "nowhere"], ["unknown backend", "K2THINK_BACKENDS"]),
        (["solve", "x", "--file", "missing.txt"], ["--file"]),
        (["solve", "--file", "missing.txt"], ["missing.txt"]),
        (["worker", "chef"], ["chef"]),
        (["worker", "planner"], ["K2THINK_BROKER_URL"]),
        (["batch", "run", "missing.jsonl", "-o", "out.jsonl"], ["missing.jsonl"]),
        (["jobs", "show", "01a20000"], ["no jobs yet", "K2THINK_DATA_DIR"]),
        (["nonsense"], ["nonsense"]),
    ],
)
def test_bad_usage(cli: Cli, arguments: list[str], words: list[str]) -> None:
    assert told(cli.run(*arguments), 2, *words)


def test_ten_megabytes_of_problem(cli: Cli) -> None:
    assert told(cli.run("solve", "-", text="7" * 10_000_000), 2, "1000000 characters")


def test_input_that_is_no_text(cli: Cli) -> None:
    (cli.folder / "binary").write_bytes(b"\xff\xfe\x00")
    assert told(cli.run("solve", "--file", "binary"), 2, "binary")


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"K2THINK_GENERATOR__BACKEND": "nowhere"}, ["K2THINK_GENERATOR__BACKEND", "nowhere", "openvino"]),
        ({"K2THINK_GENERATOR__MODEL": "/no/such/folder"}, ["/no/such/folder"]),
        ({"K2THINK_BACKENDS": "{broken"}, ["K2THINK_BACKENDS"]),
        ({"K2THINK_DATABASE_URL": "mysql://x"}, ["K2THINK_DATABASE_URL", "postgresql://"]),
        ({"K2THINK_BROKER_URL": "amqp://x"}, ["K2THINK_BROKER_URL", "redis://"]),
        ({"K2THINK_LEASE_S": "soon"}, ["K2THINK_LEASE_S"]),
        ({"K2THINK_GENERATOR__BACKEND": "cerebras", "K2THINK_GENERATOR__MODEL": "m"}, ["CEREBRAS_API_KEY"]),
        ({"K2THINK_DATA_DIR": "/proc/nowhere"}, ["K2THINK_DATA_DIR", "/proc/nowhere"]),
    ],
)
def test_bad_settings(cli: Cli, variables: dict[str, str], words: list[str]) -> None:
    assert told(cli.run("solve", PROBLEM, **variables), 2, *words)


def test_an_unreachable_backend(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables = {
        **clean_environment(),
        "K2THINK_DATA_DIR": str(tmp_path / "data"),
        "K2THINK_GENERATOR__BACKEND": "openai",
        "K2THINK_GENERATOR__BASE_URL": f"http://127.0.0.1:{port}/v1",
        "K2THINK_GENERATOR__MODEL": "m",
        "K2THINK_GENERATOR__CONNECT_RETRIES": "0",
        "K2THINK_RETRY_BASE_S": "0.05",
    }
    done = Cli(tmp_path, variables).run("solve", PROBLEM, "--no-plan")
    assert told(done, 1, "every candidate failed", f"127.0.0.1:{port}", "k2think jobs why")


def test_a_wrong_api_key(tmp_path: Path) -> None:
    key = "sk-wrong-key-0123456789"
    with serving(lambda _request: Reply(text="<answer>1"), api_key="sk-right") as server:
        variables = {
            **clean_environment(),
            "K2THINK_DATA_DIR": str(tmp_path / "data"),
            "K2THINK_GENERATOR__BACKEND": "openai",
            "K2THINK_GENERATOR__BASE_URL": server.url,
            "K2THINK_GENERATOR__MODEL": "simulated",
            "K2THINK_GENERATOR__API_KEY": key,
        }
        done = Cli(tmp_path, variables).run("solve", PROBLEM)
        assert not server.calls, "nothing was served"
    assert told(done, 1, "key", "API_KEY")
    assert key not in done.stderr


def test_a_database_of_a_newer_version(cli: Cli) -> None:
    assert cli.run("db", "upgrade").returncode == 0
    engine = create_engine(f"sqlite:///{cli.environment['K2THINK_DATA_DIR']}/k2think.db")
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()

    for command in (["solve", PROBLEM], ["jobs", "list"], ["db", "upgrade"], ["up"]):
        assert told(cli.run(*command), 2, "newer")


@pytest.fixture
def tiny_disk(tmp_path: Path):
    """A file system of one megabyte; needs the right to mount."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_no_space_in_the_data_folder(cli: Cli, tiny_disk: Path) -> None:
    for command in (["solve", PROBLEM], ["up"], ["db", "upgrade"]):
        done = cli.run(*command, K2THINK_DATA_DIR=str(tiny_disk / "data"))
        assert told(done, 2, "MB are left", "K2THINK_DATA_DIR")


def test_a_port_in_use() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-m", "k2think.agents.backends.simulator", "--port", port],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
    assert told(done, 2, port, "in use")


@pytest.mark.parametrize("command", [("--help",), ("keys", "list", "--json")])
def test_a_full_output_is_told_in_one_line(cli: Cli, command: tuple[str, ...]) -> None:
    done = cli.run_into_full_disk(*command)

    assert done.returncode == 1
    assert done.stderr == "Error: the output could not be written: No space left on device\n"
