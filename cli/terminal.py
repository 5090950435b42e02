"""Text from models and callers on a terminal: text only, never control sequences, never markup."""

import json
import re
import sys
import time
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

PIPE_COLUMNS = 160
"""Width of tables where there is no terminal to ask."""

_SEQUENCE = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor
    r"|\x1b[\]PX^_].*?(?:\x07|\x1b\\|$)"  # OSC and other strings: titles, links, clipboard
    r"|\x1b[ -/]*[0-~]?",
    re.DOTALL,
)
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""All but tab and line feed; also the marks that turn the direction of writing, and halves of characters."""


def plain(text: str) -> str:
    """Return the text without anything that a terminal would act upon."""
    return _CONTROL.sub("", _SEQUENCE.sub("", text.replace("\r\n", "\n")))


def one_line(text: str, *, chars: int) -> str:
    """Return the text's words on one line of at most `chars` characters."""
    words = " ".join(plain(text).split())
    return words if len(words) <= chars else words[: chars - 1] + "…"


def console() -> Console:
    """Standard output: no markup, no highlighting, as wide as the terminal, or PIPE_COLUMNS into a pipe."""
    terminal = sys.stdout.isatty()
    return Console(markup=False, highlight=False, emoji=False, width=None if terminal else PIPE_COLUMNS)


def print_json(value: Any) -> None:
    """Print a JSON value; on a terminal everything beyond ASCII is escaped, since some of it steers terminals."""
    print(json.dumps(value, indent=2, ensure_ascii=sys.stdout.isatty()))


def table(*columns: str, wide: str | None = None) -> Table:
    """Return an empty table; the column `wide` takes the space that is left and may be cut."""
    made = Table(box=None, header_style="bold", pad_edge=False)
    for name in columns:
        made.add_column(name, no_wrap=True, ratio=1 if name == wide else None, overflow="ellipsis")
    return made


def cell(text: str, *, style: str = "") -> Text:
    """Return untrusted text as a table's cell."""
    return Text(one_line(text, chars=300), style=style)


def age(since: float) -> str:
    """Return the time that has passed since a Unix time, in one unit."""
    seconds = max(0.0, time.time() - since)
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"
