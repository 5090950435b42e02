"""What files that deploy k2think may name: variables that exist, and commands that the CLI understands."""

import shlex
from typing import Any

from k2think.schemas.backend_settings import RoleSettings
from k2think.schemas.settings import GatewaySettings, Settings


def known_variables() -> set[str]:
    names: set[str] = set()
    for name, field in Settings.model_fields.items():
        if isinstance(field.validation_alias, str):
            names.add(field.validation_alias)
        elif "RoleSettings" in str(field.annotation):
            names.update(f"K2THINK_{name}__{inner}".upper() for inner in RoleSettings.model_fields)
        elif field.annotation is GatewaySettings:
            names.update(f"K2THINK_{name}__{inner}".upper() for inner in GatewaySettings.model_fields)
        else:
            names.add(f"K2THINK_{name}".upper())
    return names


def accept_command(arguments: list[str]) -> None:
    """Follow the words of a command line through the CLI and parse what remains, without running anything."""
    from k2think.cli import app
    from typer.main import get_command

    command: Any = get_command(app)
    rest = list(arguments)
    while hasattr(command, "commands"):
        assert rest, f"k2think {shlex.join(arguments)}: a sub-command is missing"
        word = rest.pop(0)
        assert word in command.commands, f"k2think {shlex.join(arguments)}: no command {word!r}"
        command = command.commands[word]
    command.make_context("k2think", rest).close()
