"""Linear equations in one unknown with a whole-number solution."""

from __future__ import annotations

import random

from ..digits import add, subtract
from .problem import Family, Key, Problem, chance, courtesy, pick

RANGES = "a*x+b=c or a*x-b=c with a in 1..9, x in 1..12 (1..99 when a=1), b in 0..99, c >= 0"
PLAN = "move the constant, then divide"


def draw(rng: random.Random) -> Problem:
    a = 1 if chance(rng, 0.15) else rng.randint(2, 9)
    x = rng.randint(1, 99 if a == 1 else 12)
    b = 0 if a > 1 and chance(rng, 0.12) else rng.randint(1, 99)
    sign = "-" if chance(rng, 0.4) and a * x >= b else "+"
    c = a * x + b if sign == "+" else a * x - b
    name = pick(rng, "xxxxynzabtkm")
    star = pick(rng, ("", "", "", "*"))
    left = (f"{a}{star}{name}" if a > 1 else name) + (f"{sign}{b}" if b else "")
    if chance(rng, 0.08) and b and sign == "+":
        left = f"{b}+" + (f"{a}{star}{name}" if a > 1 else name)
    equation = f"{left}={c}"
    form = pick(rng, ("solve {e}", "solve {e}", "solve {e} for {v}", "find {v}:{e}", "find {v} if {e}", "what is {v} if {e}",
                      "if {e},what is {v}", "{e},{v}", "{e}. what is {v}", "solve for {v}:{e}", "{e}", "solve the equation {e}",
                      "{e} solve for {v}", "{e},find {v}"))  # fmt: skip
    parts: list[str] = []
    if b:
        parts.append(subtract(c, b) if sign == "+" else add(c, b))
    if a > 1:
        parts.append(f"{a}*{x}={a * x}")
    trace = f"{a}{name}{sign}{b}={c};" + ";".join(parts) + f">{x}"
    text = courtesy(rng, form.format(e=equation, v=name))
    return Problem("equations", (a, sign, b, c), text, PLAN, trace, str(x))


def recompute(key: Key) -> str:
    match key:
        case (int(a), sign, int(b), int(c)):
            return str((c - b if sign == "+" else c + b) // a)
        case _:
            raise ValueError(f"not an equation key: {key!r}")


def conclusion(trace: str) -> str:
    return trace[trace.rfind(">") + 1 :]


def twin(key: Key) -> Key:
    """With nothing added, nothing is subtracted."""
    match key:
        case (int(a), sign, 0, int(c)):
            return (a, "-" if sign == "+" else "+", 0, c)
        case _:
            return key


FAMILY = Family("equations", RANGES, (PLAN,), draw, recompute, conclusion, twin)
