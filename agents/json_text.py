"""Reading JSON objects out of what a model wrote: fenced, surrounded by words, or with trailing commas."""

import json
import re
from typing import Any, cast

TEXT_CHARS_MAX = 100_000
STARTS_MAX = 16
"""Opening braces that are tried."""

_FENCE = re.compile(r"```[A-Za-z0-9]{0,20}[ \t]*\n?")
_TRAILING_COMMA = re.compile(r",[ \t\r\n]{0,200}([}\]])")
_decoder = json.JSONDecoder(strict=False)


def find_objects(text: str) -> list[dict[str, Any]]:
    """Return the outermost JSON objects in `text` that can be read, in order. Never raises."""
    text = text[:TEXT_CHARS_MAX]
    return _read(text) or _read(_TRAILING_COMMA.sub(r"\1", text))


def _read(text: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    start = text.find("{")
    for _ in range(STARTS_MAX):
        if start < 0:
            break
        try:
            value, end = _decoder.raw_decode(text, start)
        except (ValueError, RecursionError):  # ValueError also covers integers of absurd length
            end = start + 1
        else:
            found.append(cast(dict[str, Any], value))
        start = text.find("{", end)
    return found


def find_string(text: str, key: str) -> str | None:
    """Return the string under `key` in JSON that was cut off or is otherwise broken; None = not there. Never raises."""
    found = re.search(rf'"{re.escape(key)}"\s{{0,20}}:\s{{0,20}}"((?:[^"\\]|\\.)*)', text[:TEXT_CHARS_MAX], re.DOTALL)
    if found is None:
        return None
    try:
        value = json.loads(f'"{found.group(1)}"', strict=False)
    except ValueError:
        return found.group(1)
    return cast(str, value)


def looks_like_json(text: str) -> bool:
    """Tell whether `text` was meant to be a JSON object, readable or not."""
    return _FENCE.sub("", text[:TEXT_CHARS_MAX], count=1).lstrip().startswith("{")
