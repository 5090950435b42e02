"""Simulation: a robot walks on a grid; where does it end?"""

from __future__ import annotations

import random

from .problem import Family, Key, Problem, chance, courtesy, pick

RANGES = "start (0,0) or coordinates in -5..5, 2 to 5 moves of 1..9 steps north, south, east or west; the end is (x,y)"
PLAN = "track x and y move by move"
_WORDS = {"n": "north", "s": "south", "e": "east", "w": "west"}


def draw(rng: random.Random) -> Problem:
    x, y = (0, 0) if chance(rng, 0.6) else (rng.randint(-5, 5), rng.randint(-5, 5))
    start = (x, y)
    moves: list[tuple[str, int]] = []
    steps: list[str] = []
    for _ in range(pick(rng, (2, 3, 3, 4, 5))):
        direction, length = pick(rng, "nsew"), rng.randint(1, 9 if chance(rng, 0.5) else 5)
        sign = "+" if direction in "ne" else "-"
        before = x if direction in "ew" else y
        after = before + length if sign == "+" else before - length
        x, y = (after, y) if direction in "ew" else (x, after)
        moves.append((direction, length))
        steps.append(f"{direction}{length}:{before}{sign}{length}={after}>{x},{y}")
    style = rng.random()
    if style < 0.4:
        walk = pick(rng, (" ", ",")).join(f"{d}{k}" for d, k in moves)
    elif style < 0.7:
        walk = pick(rng, (",", " ", ",then ", " then ")).join(f"{_WORDS[d]} {k}" for d, k in moves)
    else:
        walk = pick(rng, (",", ",then ", " and ", " then ")).join(f"{k} {_WORDS[d]}" for d, k in moves)
    form = pick(rng, ("robot at {p} moves {w}. where", "start {p}. go {w}. where does it end", "a robot starts at {p} and moves {w}. where is it",
                      "a robot at {p} goes {w}. where does it end", "robot at {p}:{w}. end", "start at {p}. move {w}. where are you",
                      "a robot starts at {p}. it moves {w}. where is it now", "starting at {p},move {w}. what is the final position"))  # fmt: skip
    if start == (0, 0) and chance(rng, 0.25):
        form = pick(
            rng,
            (
                "a robot moves {w}. where is it",
                "a robot goes {w} from the origin. where is it",
                "robot moves {w}. where",
            ),
        )
    text = courtesy(rng, form.format(p=f"({start[0]},{start[1]})", w=walk))
    return Problem("robot", (start, *moves), text, PLAN, ";".join(steps), f"({x},{y})")


def recompute(key: Key) -> str:
    match key:
        case ((int(x), int(y)), *moves):
            pairs = [move for move in moves if isinstance(move, tuple)]
            east = sum(k * {"e": 1, "w": -1}.get(d, 0) for d, k in pairs)
            north = sum(k * {"n": 1, "s": -1}.get(d, 0) for d, k in pairs)
            return f"({x + east},{y + north})"
        case _:
            raise ValueError(f"not a robot key: {key!r}")


def conclusion(trace: str) -> str:
    return f"({trace[trace.rfind('>') + 1 :]})"


FAMILY = Family("robot", RANGES, (PLAN,), draw, recompute, conclusion)
