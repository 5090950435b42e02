"""`k2think doctor`: what is configured, what can be reached, what is missing, and how to mend it."""

import asyncio
from typing import Annotated

import typer
from rich.text import Text

from .checkup import Check, State
from .exits import Exit
from .terminal import console, plain, print_json

_MARKS = {State.ok: ("✓", "green"), State.warning: ("!", "yellow"), State.bad: ("✗", "red")}
_PLAIN_MARKS = {State.ok: "ok", State.warning: "! ", State.bad: "x "}


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Check settings, data folder, database, Redis, model backends and packages; say how to mend what is wrong.

    Nothing is changed, but models are asked for and the embedded one is loaded. Keys and passwords are shown as ***.

    Exit code: 0 when nothing is wrong (✓ and ! only), 1 when something is (✗).

    Examples:

      k2think doctor

      k2think doctor --json | jq '.checks[] | select(.state == "bad")'
    """
    from .checkup_run import all_checks, shown_settings

    settings, checks = asyncio.run(all_checks())
    healthy = all(check.state is not State.bad for check in checks)
    configured = {} if settings is None else shown_settings(settings)
    if as_json:
        print_json(
            {"healthy": healthy, "settings": configured, "checks": [check.model_dump(mode="json") for check in checks]}
        )
    else:
        _show(configured, checks)
    raise typer.Exit(Exit.succeeded if healthy else Exit.failed)


def _show(configured: dict[str, str], checks: list[Check]) -> None:
    out = console()
    marks = _MARKS if _can_print("✓✗") else {state: (text, _MARKS[state][1]) for state, text in _PLAIN_MARKS.items()}
    width = max(len(check.name) for check in checks)
    for check in checks:
        mark, colour = marks[check.state]
        name = plain(check.name).ljust(width)
        indent = " " * (width + 4)
        detail = plain(check.detail).replace("\n", f"\n{indent}")
        out.print(Text.assemble((f"{mark} ", colour), (name, "bold"), f"  {detail}"), soft_wrap=True)
        if check.fix:
            out.print(Text(f"{indent}→ {plain(check.fix)}", style=colour), soft_wrap=True)
    if configured:
        print("\nSet (all else has its default; .env.example lists everything):")
        for name, value in configured.items():
            print(f"  {name}={plain(value)}")
    bad = sum(check.state is State.bad for check in checks)
    warned = sum(check.state is State.warning for check in checks)
    print(f"\n{bad} wrong, {warned} to look at." if bad or warned else "\nAll is well.")


def _can_print(text: str) -> bool:
    try:
        text.encode(console().encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True
