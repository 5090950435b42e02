"""Lists of numbers: sort, count above or below a bound, largest and smallest."""

from __future__ import annotations

import random

from .problem import Family, Key, Problem, chance, courtesy, pick

RANGES = (
    "3 to 5 different numbers in 1..99: sort up or down, count those above or below a bound in 1..99, largest, smallest"
)
PLANS = {"sort": "put each in its place", "count": "check each and keep count", "extreme": "keep the best so far"}


def _listed(rng: random.Random, values: list[int]) -> str:
    style = rng.random()
    if style < 0.45:
        return ",".join(map(str, values))
    if style < 0.8:
        return " ".join(map(str, values))
    return ",".join(map(str, values[:-1])) + f" and {values[-1]}"


def _sort(rng: random.Random, values: list[int]) -> Problem:
    down = chance(rng, 0.3)
    # Each number joins those before it: one comparison a place, where the least of five is a jump.
    placed: list[int] = []
    steps = ["down" if down else "up"]
    for value in values:
        placed = sorted([*placed, value], reverse=down)
        steps.append(f"{value}:{','.join(map(str, placed))}")
    answer = ",".join(map(str, sorted(values, reverse=down)))
    listed = _listed(rng, values)
    if down:
        form = pick(rng, ("sort down:{l}", "sort {l} in descending order", "order from high to low:{l}", "sort descending:{l}",
                          "arrange {l} from largest to smallest", "sort these from high to low:{l}"))  # fmt: skip
    else:
        form = pick(rng, ("sort {l}", "sort:{l}", "sort {l} in ascending order", "order from low to high:{l}", "put {l} in order",
                          "sort these numbers:{l}", "sort the numbers {l}", "arrange {l} from smallest to largest",
                          "sort the list {l}", "order these numbers:{l}"))  # fmt: skip
    key = ("sort", down, *values)
    return Problem("ordering", key, courtesy(rng, form.format(l=listed)), PLANS["sort"], ";".join(steps), answer)


def _count(rng: random.Random, values: list[int]) -> Problem:
    above = chance(rng, 0.5)
    bound = rng.choice([n for n in range(1, 100) if n not in values])
    seen = 0
    steps = [f"{'>' if above else '<'}{bound}"]
    for value in values:
        seen += (value > bound) == above
        steps.append(f"{value}{'>' if value > bound else '<'}{bound}:{seen}")
    word = pick(
        rng,
        ("greater than", "larger than", "bigger than", "above") if above else ("less than", "smaller than", "below"),
    )
    form = pick(rng, ("how many of {l} are {w} {k}", "how many of these are {w} {k}:{l}", "count the numbers {w} {k}:{l}",
                      "how many numbers are {w} {k} in {l}", "in the list {l},how many are {w} {k}"))  # fmt: skip
    text = form.format(l=_listed(rng, values), w=word, k=bound)
    return Problem(
        "ordering", ("count", above, bound, *values), courtesy(rng, text), PLANS["count"], ";".join(steps), str(seen)
    )


def _extreme(rng: random.Random, values: list[int]) -> Problem:
    largest = chance(rng, 0.5)
    best = values[0]
    word = pick(rng, ("largest", "biggest", "greatest", "highest") if largest else ("smallest", "lowest"))
    short = "max" if largest else "min"
    form = pick(rng, ("what is the {w} of {l}", "which is the {w}:{l}", "find the {w} number in {l}", "{w} of {l}", "the {w} number:{l}",
                      "which number is the {w}:{l}", "{m} of {l}", "{m}({l})"))  # fmt: skip
    steps = [f"{short if '{m}' in form else word}={'high' if largest else 'low'}"]
    for value in values:
        best = max(best, value) if largest else min(best, value)
        steps.append(f"{value}:{best}")
    text = form.format(w=word, l=_listed(rng, values), m=short)
    return Problem(
        "ordering", ("extreme", largest, *values), courtesy(rng, text), PLANS["extreme"], ";".join(steps), str(best)
    )


def draw(rng: random.Random) -> Problem:
    values = rng.sample(range(1, 10 if chance(rng, 0.25) else 100), pick(rng, (3, 4, 4, 5)))
    kind = rng.random()
    return _sort(rng, values) if kind < 0.5 else _count(rng, values) if kind < 0.75 else _extreme(rng, values)


def recompute(key: Key) -> str:
    match key:
        case ("sort", down, *values):
            return ",".join(map(str, sorted((v for v in values if isinstance(v, int)), reverse=bool(down))))
        case ("count", above, int(bound), *values):
            return str(sum(1 for v in values if isinstance(v, int) and (v > bound if above else v < bound)))
        case ("extreme", largest, *values):
            numbers = [v for v in values if isinstance(v, int)]
            return str(max(numbers) if largest else min(numbers))
        case _:
            raise ValueError(f"not an ordering key: {key!r}")


def conclusion(trace: str) -> str:
    return trace[trace.rfind(":") + 1 :]


FAMILY = Family("ordering", RANGES, tuple(PLANS.values()), draw, recompute, conclusion)
