"""The operator's commands: what keeps the stack from starting is said at once, and the help reads well."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.cli import Cli
from harness.stack import clean_environment, free_port
from k2think.cli.app import app
from rich.text import Text
from typer.main import get_command


def commands(command: Any, *path: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, command
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, *path, name)


COMMANDS = dict(commands(get_command(app)))


def up_cli(folder: Path, **variables: str) -> Cli:
    return Cli(folder, {**clean_environment(), "K2THINK_DATA_DIR": str(folder / "data"), **variables})


def test_up_says_at_once_that_its_port_is_taken(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])

        done = up_cli(tmp_path, K2THINK_GATEWAY__PORT=port).run("up")

    assert done.returncode == 2
    assert port in done.stderr
    assert "K2THINK_GATEWAY__PORT" in done.stderr
    assert "started" not in done.stderr, "nothing was started that had to be stopped again"


def test_up_wants_a_key_for_an_address_that_others_reach(tmp_path: Path) -> None:
    done = up_cli(tmp_path, K2THINK_GATEWAY__HOST="192.0.2.1", K2THINK_GATEWAY__PORT=str(free_port())).run("up")

    assert done.returncode == 2
    assert "k2think keys create" in done.stderr
    assert "started" not in done.stderr


def test_the_help_of_up_says_where_the_doors_are(tmp_path: Path) -> None:
    done = up_cli(tmp_path).run("up", "--help", COLUMNS="200")

    assert done.returncode == 0
    for word in ("http://127.0.0.1:8400", "/ui", "K2THINK_GATEWAY__PORT", "Ctrl-C"):
        assert word in done.stdout


def test_all_commands_are_found() -> None:
    assert {(), ("up",), ("keys", "create"), ("batch", "run")} <= set(COMMANDS)


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_no_word_of_a_help_text_is_taken_for_markup(path: tuple[str, ...]) -> None:
    command = COMMANDS[path]
    texts = [command.help or "", *(getattr(parameter, "help", None) or "" for parameter in command.params)]
    # The examples' own brackets, such as `.[]` and `k2think[train]`, are what rich leaves alone or what is escaped.
    assert not [text for text in texts if Text.from_markup(text).plain != text.replace("\\[", "[")]


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_a_line_of_a_help_text_ends_where_a_sentence_does(path: tuple[str, ...]) -> None:
    # Typer keeps these line breaks, whatever the terminal's width.
    _summary, *paragraphs = (COMMANDS[path].help or "").split("\n\n")
    broken = [line for text in paragraphs for line in text.strip().split("\n")[:-1] if not line.endswith((".", ":"))]
    assert not broken
