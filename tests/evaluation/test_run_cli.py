"""`k2think eval run`: SIGKILL in the middle, and bad usage."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.cli import COMMAND_TIMEOUT_S, Cli
from harness.server import serving
from harness.stack import clean_environment
from k2think.agents.backends.simulator import CallOutcome, ChatRequest, Reply, SimulatedEngine, SimulatedServer
from k2think.evaluation.cli import app
from k2think.evaluation.suites.mini import REPORT_SEEDS
from k2think.schemas.errors import ModelNotFound, UserError
from typer.testing import CliRunner

pytestmark = pytest.mark.timeout(400)  # a guard against hanging, for machines that are busy with other things

ITEMS = 24


@pytest.fixture(scope="module")
def server() -> Iterator[SimulatedServer]:
    """Takes a third of a second for each answer, and is right to all but items whose number ends in 7."""

    def reply(request: ChatRequest) -> Reply:
        wrong = "7] " in request.text
        return Reply(text=f"<answer>{406 if wrong else 405}</answer>", first_token_s=0.3)

    with serving(reply, engine=SimulatedEngine(slots=64)) as running:
        yield running


@pytest.fixture
def cli(tmp_path: Path, server: SimulatedServer, make_item: Any) -> Cli:
    """The command line beside a file of items and one of targets."""
    lines = [make_item(f"{tmp_path.name} q{number}").model_dump_json() for number in range(ITEMS)]
    (tmp_path / "items.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "targets.toml").write_text(
        f'[sim]\nrow = "single"\nbase_url = "{server.url}"\nmodel = "simulated"\n'
        f'[other]\nrow = "single"\nbase_url = "{server.url}"\nmodel = "no such model"\n'
    )
    backends = {"judge": {"backend": "openai", "base_url": server.url, "model": "simulated"}}
    environment = {
        **clean_environment(),
        "K2THINK_DATA_DIR": str(tmp_path / "data"),
        "K2THINK_BACKENDS": json.dumps(backends),
    }
    return Cli(tmp_path, environment)


def lines_of(folder: Path) -> list[dict[str, Any]]:
    path = folder / "outcomes.jsonl"
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]] if path.exists() else []


def test_after_sigkill_nothing_that_has_an_outcome_is_asked_again(cli: Cli, server: SimulatedServer) -> None:
    command = ("eval", "run", "items.jsonl", "-t", "sim", "-o", "run", "--concurrency", "3", "--no-cache", "--json")
    before = len(server.calls)
    # Given a run that dies in the middle, with calls in flight and half a line written
    process = cli.start(*command)
    deadline = time.monotonic() + COMMAND_TIMEOUT_S
    while len(lines_of(cli.folder / "run")) < 4:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    first = lines_of(cli.folder / "run")
    assert 4 <= len(first) < ITEMS
    with (cli.folder / "run" / "outcomes.jsonl").open("a") as file:
        file.write('{"item": "half a li')
    # When it is run again
    done = cli.run(*command)
    # Then every item has one outcome, those of before as they were, and the server was asked for none of them again
    assert done.returncode == 0, done.stderr
    lines = lines_of(cli.folder / "run")
    assert lines[: len(first)] == first
    assert Counter(line["item"] for line in lines) == Counter(f"{cli.folder.name} q{number}" for number in range(ITEMS))
    asked = Counter(_name(call.request.text) for call in server.calls[before:])
    assert all(asked[line["item"]] == 1 for line in first)
    # What was in flight at the kill, three at most, was lost on the way
    lost = [call for call in server.calls[before:] if call.outcome is not CallOutcome.completed]
    assert asked.total() - ITEMS <= 3
    assert len(lost) <= 3
    summary = json.loads(done.stdout)
    assert (summary["before"], summary["asked"], summary["complete"]) == (len(first), ITEMS - len(first), True)
    assert sum(line["final"]["correct"] for line in lines) == ITEMS - 2


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        pytest.param(("mini", "-t", "nobody"), UserError, "has no target 'nobody'; it has: sim, other", id="target"),
        pytest.param(("chess", "-t", "sim"), UserError, "there is no suite 'chess'", id="suite"),
        pytest.param(("mini", "-t", "sim", "--targets", "no.toml"), UserError, "no.toml cannot be read", id="targets"),
        pytest.param(("mini", "-t", "sim", "--seed", str(REPORT_SEEDS[0])), UserError, "kept for figures", id="seed"),
        pytest.param(("items.jsonl", "-t", "other"), ModelNotFound, "does not serve the model", id="model"),
        pytest.param(("mini", "-t", "sim", "--from", "soon"), UserError, "published_from", id="date"),
        pytest.param(("mini", "-t", "sim", "--judge", "nobody"), UserError, "unknown backend 'nobody'", id="judge"),
    ],
)
def test_bad_usage_is_told_before_anything_is_asked(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], error: type[Exception], said: str
) -> None:
    monkeypatch.chdir(cli.folder)
    done = CliRunner().invoke(app, ["run", *arguments, "-o", "run", "--no-cache"])
    assert isinstance(done.exception, error)
    assert said in str(done.exception)
    assert not (cli.folder / "run").exists()


def _name(text: str) -> str:
    return text.partition("[")[2].partition("]")[0]
