"""Small tables of named values: look up, add, compare, find the largest or smallest row."""

from __future__ import annotations

import random

from ..digits import add, subtract, tail_number
from .problem import THINGS, Family, Key, Problem, chance, courtesy, pick

RANGES = "3 to 5 rows, different values in 1..99: look up one row, add 2 or 3 rows, difference of two rows, largest or smallest row"
PLANS = {"get": "find the row", "sum": "look up the rows, then add", "more": "look up both, then subtract",
         "extreme": "compare row by row, keep the best"}  # fmt: skip
_ROWS = ("red", "blue", "green", "black", "white", "paris", "rome", "oslo", "lima", "mon", "tue", "wed", "thu", "fri")


def _shown(rng: random.Random, rows: dict[str, int]) -> str:
    style = rng.random()
    if style < 0.6:
        body = pick(rng, (" ", ",", ",")).join(f"{k}={v}" for k, v in rows.items())
    elif style < 0.8:
        body = pick(rng, (" ", ",", ";")).join(f"{k}:{v}" for k, v in rows.items())
    else:
        body = pick(rng, (",", ";", " ")).join(f"{k} {v}" for k, v in rows.items())
    return (
        pick(rng, ("table:", "table:", "given ", "data:", "table ", "")) + body + (". " if chance(rng, 0.85) else " ")
    )


def draw(rng: random.Random) -> Problem:
    source = rng.random()
    names = rng.sample("abcdefgh" if source < 0.5 else THINGS if source < 0.75 else _ROWS, pick(rng, (3, 4, 4, 5)))
    rows = dict(zip(names, rng.sample(range(1, 100), len(names)), strict=True))
    values, shown = tuple(rows.values()), _shown(rng, rows)
    kind = rng.random()
    if kind < 0.15:
        row = pick(rng, names)
        question = pick(
            rng,
            (
                "what is {r}",
                "what is the value of {r}",
                "value of {r}",
                "look up {r}",
                "how many {r}",
                "how much is {r}",
            ),
        )
        text, plan, answer = shown + question.format(r=row), PLANS["get"], str(rows[row])
        key, trace = ("get", names.index(row), *values), f"{row}={rows[row]}>{rows[row]}"
    elif kind < 0.50:
        chosen = rng.sample(names, pick(rng, (2, 2, 2, 3)))
        steps = [f"{row}={rows[row]}" for row in chosen]
        total = rows[chosen[0]]
        for row in chosen[1:]:
            steps.append(add(total, rows[row]))
            total += rows[row]
        question = pick(
            rng, ("what is {p}", "sum of {c}", "what is the sum of {c}", "add {c}", "what is the total of {c}", "{p}")
        )
        joined = ",".join(chosen) if len(chosen) > 2 and chance(rng, 0.5) else " and ".join(chosen)
        text, plan, answer = shown + question.format(p="+".join(chosen), c=joined), PLANS["sum"], str(total)
        key, trace = ("sum", tuple(names.index(row) for row in chosen), *values), ";".join(steps)
    elif kind < 0.70:
        high, low = sorted(rng.sample(names, 2), key=lambda row: -rows[row])
        question = pick(rng, ("what is {h}-{l}", "how much more is {h} than {l}", "what is {h} minus {l}", "difference of {h} and {l}",
                              "how much larger is {h} than {l}"))  # fmt: skip
        text, plan, answer = shown + question.format(h=high, l=low), PLANS["more"], str(rows[high] - rows[low])
        key = ("more", names.index(high), names.index(low), *values)
        trace = f"{high}={rows[high]};{low}={rows[low]};{subtract(rows[high], rows[low])}"
    else:
        largest = chance(rng, 0.5)
        best = names[0]
        word = pick(rng, ("largest", "highest", "biggest") if largest else ("smallest", "lowest"))
        steps = [f"{word}={'high' if largest else 'low'}", f"{best}={rows[best]}"]
        for row in names[1:]:
            higher = rows[row] > rows[best]
            compared = f"{row}={rows[row]}{'>' if higher else '<'}{rows[best]}"
            best = row if higher == largest else best
            steps.append(f"{compared}:{best}={rows[best]}")
        question = pick(
            rng,
            (
                "which is {w}",
                "which is the {w}",
                "which row is the {w}",
                "which has the {w} value",
                "what has the {w} value",
            ),
        )
        text, plan, answer = shown + question.format(w=word), PLANS["extreme"], best
        key, trace = ("extreme", largest, *zip(names, values, strict=True)), ";".join(steps) + f">{best}"
    return Problem("table", key, courtesy(rng, text), plan, trace, answer)


def recompute(key: Key) -> str:
    match key:
        case ("get", int(index), *values):
            return str(values[index])
        case ("sum", (*chosen,), *values):
            return str(sum(n for i, n in enumerate(values) for c in chosen if c == i and isinstance(n, int)))
        case ("more", int(high), int(low), *values):
            numbers = [v for v in values if isinstance(v, int)]
            return str(numbers[high] - numbers[low])
        case ("extreme", bool(largest), *rows):
            ranked = sorted((value, name) for name, value in rows)  # type: ignore[misc]
            return str(ranked[-1 if largest else 0][1])
        case _:
            raise ValueError(f"not a table key: {key!r}")


FAMILY = Family("table", RANGES, tuple(PLANS.values()), draw, recompute, tail_number)
