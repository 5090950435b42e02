"""`k2think vllm up` with a stand-in for vLLM that is a real process and a real server: ready, restarts, ends, errors."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from harness.cli import Cli
from harness.stack import free_port
from harness.vllm_stand_in import program

WAIT_S = 60.0
KEY = "sk-vllm-0123456789abcdef"


@dataclass
class Running:
    """A `vllm up`, its output line by line, and what it started."""

    process: subprocess.Popen[str]
    model: Path
    port: int
    lines: list[str] = field(default_factory=list)

    def follow(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip())

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def wait_for(self, text: str) -> None:
        end = time.monotonic() + WAIT_S
        while text not in self.output:
            assert time.monotonic() < end, f"{text!r} did not come: {self.output}"
            time.sleep(0.02)

    @property
    def starts(self) -> list[dict[str, int]]:
        return [json.loads(line) for line in (self.model / "started.jsonl").read_text().splitlines()]

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(WAIT_S)


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def gone(*pids: int) -> bool:
    end = time.monotonic() + WAIT_S
    while any(map(alive, pids)) and time.monotonic() < end:
        time.sleep(0.02)
    return not any(map(alive, pids))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "small-model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


Start = Callable[..., Running]


@pytest.fixture
def start(cli: Cli, model: Path, tmp_path: Path) -> Iterator[Start]:
    """A function that starts `vllm up` on the stand-in; all of it is gone at the end."""
    made: list[Running] = []

    def up(*arguments: str, **variables: str) -> Running:
        port = free_port()
        words = ("vllm", "up", str(model), "--port", str(port), "--vllm", str(program(tmp_path)), *arguments)
        running = Running(cli.start(*words, **variables), model, port)
        threading.Thread(target=running.follow, daemon=True).start()
        made.append(running)
        return running

    yield up
    for running in made:
        if running.process.poll() is None:
            running.end(signal.SIGTERM)
        for stream in (running.process.stdout, running.process.stderr):
            assert stream is not None
            stream.close()


def run(cli: Cli, model: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    vllm = program(model.parent)
    return cli.run("vllm", "up", str(model), "--vllm", str(vllm), *arguments)


def test_ready_with_the_settings_started_again_and_ended_with_all_its_processes(cli: Cli, start: Start) -> None:
    # Given a server that is ready
    running = start("--speculative", "ngram", "--served-name", "mini", "--", "--dtype", "float32")
    running.wait_for("K2THINK_GENERATOR__MAX_TOKENS")
    (first,) = running.starts
    assert "--dtype" in first["arguments"]  # type: ignore[operator]
    assert "speculation on" in running.output
    assert "sampling as the model would" in running.output
    shown = dict(line.strip().split("=", 1) for line in running.lines if line.startswith("  K2THINK_"))
    assert shown["K2THINK_GENERATOR__BASE_URL"] == f"http://127.0.0.1:{running.port}/v1"
    assert shown["K2THINK_GENERATOR__MODEL"] == "mini"
    # When its settings are used, doctor finds it in order
    (check,) = [one for one in cli.json("doctor", **shown)["checks"] if "generator" in one["name"]]
    assert (check["state"], check["facts"]["model"]) == ("ok", "mini"), check
    # When the server dies, its engine's process goes too, and another server comes
    os.kill(first["server"], signal.SIGKILL)
    running.wait_for("vLLM is ready again")
    second = running.starts[1]
    assert gone(first["server"], first["engine"])
    assert alive(second["engine"])
    # When the command is told to end, nothing of it is left
    assert running.end(signal.SIGTERM) == 0
    assert gone(second["server"], second["engine"])


def test_speculation_that_is_not_on_is_a_warning_and_ctrl_c_ends_it(cli: Cli, model: Path, start: Start) -> None:
    (model / "no_speculation").touch()
    running = start("--speculative", "draft:org/small")
    running.wait_for("K2THINK_GENERATOR__SPECULATIVE=draft:org/small")
    assert "Warning: speculation (draft:org/small) was asked for and is off" in running.output

    report = cli.json(
        "doctor",
        K2THINK_GENERATOR__BACKEND="vllm",
        K2THINK_GENERATOR__BASE_URL=f"http://127.0.0.1:{running.port}/v1",
        K2THINK_GENERATOR__SPECULATIVE="draft:org/small",
    )

    (check,) = [one for one in report["checks"] if "generator" in one["name"]]
    assert check["state"] == "warning"
    assert check["fix"].startswith("speculation (draft:org/small) was asked for and is off at this server")
    (started,) = running.starts
    assert running.end(signal.SIGINT) == 0
    assert gone(started["server"], started["engine"])


def test_ctrl_c_while_it_starts_is_no_error(model: Path, start: Start) -> None:
    (model / "never_ready").touch()
    running = start()
    end = time.monotonic() + WAIT_S
    while not (model / "started.jsonl").exists() and time.monotonic() < end:
        time.sleep(0.02)
    (started,) = running.starts

    assert running.end(signal.SIGINT) == 0

    assert gone(started["server"], started["engine"])
    assert running.process.stderr is not None
    assert "Error" not in running.process.stderr.read()


def test_an_engine_that_samples_wrongly_is_told_and_a_key_is_not(model: Path, start: Start) -> None:
    (model / "samples_wrongly").touch()
    running = start("--speculative", "ngram", VLLM_API_KEY=KEY)
    running.wait_for("K2THINK_GENERATOR__API_KEY=(the key you gave)")

    assert "Warning: under speculation this engine samples wrongly" in running.output
    assert "use temperature 0" in running.output
    assert KEY not in running.output
    assert KEY not in " ".join(map(str, running.starts[0]["arguments"]))  # type: ignore[call-overload]


def test_a_server_that_ends_while_it_starts_is_told_with_the_end_of_its_log(cli: Cli, model: Path) -> None:
    (model / "ends_at_once").touch()

    done = run(cli, model, "--port", str(free_port()))

    assert done.returncode == 2
    assert "ended while it started" in done.stderr
    assert "ValueError: no available memory for the cache blocks" in done.stderr
    assert "Use it with" not in done.stdout


def test_a_flag_that_vllm_does_not_know_is_told_in_its_words(cli: Cli, model: Path) -> None:
    done = run(cli, model, "--port", str(free_port()), "--", "--no-such-flag")

    assert done.returncode == 2
    assert "unrecognized arguments: --no-such-flag" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_wrong_is_said_before_anything_is_started(cli: Cli, model: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        taken = run(cli, model, "--port", port)
    word = run(cli, model, "--speculative", "medusa")
    absent = cli.run("vllm", "up", str(model), PATH=str(model))

    assert [done.returncode for done in (taken, word, absent)] == [2] * 3
    assert f"port {port}" in taken.stderr
    assert "--port" in taken.stderr
    assert "--speculative: 'medusa' is no kind of speculation; choose ngram" in word.stderr
    assert "vLLM was not found" in absent.stderr
    assert not (model / "started.jsonl").exists()


def test_print_shows_the_command_and_starts_nothing(cli: Cli, model: Path) -> None:
    done = run(cli, model, "--print", "--speculative", "ngram", "--", "--dtype", "float32")

    assert done.returncode == 0, done.stderr
    assert f"serve {model} --served-model-name small-model" in done.stdout
    assert """--speculative-config '{"method": "ngram",""" in done.stdout
    assert done.stdout.rstrip().endswith("--dtype float32")
    assert not (model / "started.jsonl").exists()
