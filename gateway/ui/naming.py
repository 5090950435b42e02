"""What doors, steps and groups are called on the page."""

import re
import string

DOORS = {"chat": "Chat", "responses": "Responses", "jobs": "Jobs API", "batches": "Batches", "cli": "Command line"}
"""By name in the address. Jobs of the command line and of Celery came through no HTTP door."""
_TITLES = {"screen_input": "Screen request", "screen_output": "Screen answer", "plan": "Plan"}
_NUMBERED = (
    (re.compile(r"screen_plan(?:-(\d+))?\Z"), "Screen plan {}"),
    (re.compile(r"plan-(\d+)\Z"), "Plan {}"),
    (re.compile(r"generate-(\d+)\Z"), "Candidate {}"),
    (re.compile(r"compare-(\d+)-(\d+)\Z"), "Compare {} with {}"),
)


def step_title(name: str) -> str:
    """Return the name of a step in words; a name that is not known stays as it is."""
    if name in _TITLES:
        return _TITLES[name]
    for pattern, words in _NUMBERED:
        if found := pattern.match(name):
            return words.format(*(number or "" for number in found.groups())).strip()
    return name


def numbers_in(name: str, prefix: str) -> tuple[int, ...]:
    """Return the candidates that a step's name ends in: (3,) of generate-3, (0, 2) of compare-0-2, () of all else."""
    parts = name.removeprefix(prefix).split("-") if name.startswith(prefix) else []
    return tuple(int(part) for part in parts) if all(part.isdecimal() for part in parts) else ()


def letter(place: int) -> str:
    """Return A to Z, then AA, AB …; `place` counts from 0 and is below 702."""
    high, low = divmod(place, 26)
    return (string.ascii_uppercase[high - 1] if high else "") + string.ascii_uppercase[low]
