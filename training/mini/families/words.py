"""Word problems: things gained and lost, two people compared, equal groups."""

from __future__ import annotations

import random

from ..digits import add, multiply, subtract, tail_number
from .problem import NAMES, THINGS, Family, Key, Problem, chance, courtesy, pick

RANGES = (
    "start 5..99 and 1 to 3 gains or losses of 2..60, never below 0; two people with 2..99 things each, together or how many "
    "more; equal groups of 2..50 times 2..9"
)
PLANS = {
    "change": "follow the changes in order",
    "compare": "add or subtract the two",
    "groups": "multiply size and count",
}
_GAINS = (
    "buys {k}",
    "buys {k} more",
    "finds {k}",
    "finds {k} more",
    "gets {k} from {m}",
    "is given {k}",
    "gets {k} more",
    "wins {k}",
)
_LOSSES = (
    "gives {k} away",
    "gives away {k}",
    "loses {k}",
    "gives {k} to {m}",
    "sells {k}",
    "uses {k}",
    "gives {m} {k}",
    "drops {k}",
)


def _changes(rng: random.Random) -> Problem:
    (name, other), thing = rng.sample(NAMES, 2), pick(rng, THINGS)
    total = rng.randint(5, 99)
    key: list[object] = ["change", total]
    story = pick(rng, ("{n} has {a} {t}", "{n} has {a} {t}", "{n} had {a} {t}", "{n} starts with {a} {t}")).format(
        n=name, a=total, t=thing
    )
    sentences = chance(rng, 0.5)
    pronoun = pick(rng, ("he", "she", "they"))
    subject = pick(rng, (f"{pronoun} ", f"{pronoun} ", "then ", f"{name} ", f"then {pronoun} "))
    steps: list[str] = []
    count = pick(rng, (1, 2, 2, 3))
    for index in range(count):
        if total > 20 and chance(rng, 0.5):
            k = rng.randint(2, min(total - 1, 60))
            words, key_part, step, total = pick(rng, _LOSSES), -k, subtract(total, k), total - k
        else:
            k = rng.randint(2, 60)
            words, key_part, step, total = pick(rng, _GAINS), k, add(total, k), total + k
        key.append(key_part)
        steps.append(step)
        clause = words.format(k=k, m=other)
        joint = (
            ". " + subject
            if sentences and (index == 0 or chance(rng, 0.5))
            else pick(rng, (",", " and ", ",then ", " and then "))
        )
        story += joint + clause
    question = pick(rng, ("how many {t} does {n} have now", "how many {t} does {n} have", "how many are left", "how many now",
                          "how many {t} are there now", "how many does {n} have now", "how many {t} does {n} have left",
                          "how many does {p} have", "how many does {p} have now", "how many {t} does {p} have now",
                          "how many {t} does {p} have", "how many {t} are left"))  # fmt: skip
    text = f"{story}. {question.format(n=name, t=thing, p=pronoun)}"
    return Problem("words", tuple(key), courtesy(rng, text), PLANS["change"], ";".join(steps), str(total))


def _comparison(rng: random.Random) -> Problem:
    (name, other), thing = rng.sample(NAMES, 2), pick(rng, THINGS)
    a, b = rng.randint(2, 99), rng.randint(2, 99)
    story = pick(
        rng,
        ("{n} has {a} {t} and {m} has {b}. ", "{n} has {a} {t}. {m} has {b} {t}. ", "{n} has {a} {t},{m} has {b}. "),
    )
    story = story.format(n=name, m=other, a=a, b=b, t=thing)
    if chance(rng, 0.5) or a < b:
        question = pick(rng, ("how many do they have together", "how many {t} do they have in total", "how many {t} in all",
                              "how many {t} altogether", "how many do they have in all"))  # fmt: skip
        text, key, trace, answer = story + question, ("sum", min(a, b), max(a, b)), add(a, b), a + b
    else:
        question = pick(
            rng, ("how many more does {n} have", "how many more {t} does {n} have", "how many fewer does {m} have")
        )
        text, key, trace, answer = story + question, ("more", a, b), subtract(a, b), a - b
    text = text.format(n=name, m=other, t=thing)
    return Problem("words", key, courtesy(rng, text), PLANS["compare"], trace, str(answer))


def _groups(rng: random.Random) -> Problem:
    a, b = rng.randint(2, 50), rng.randint(2, 9)
    x, y = (a, b) if chance(rng, 0.5) else (b, a)
    box = pick(rng, ("boxes", "bags", "shelves", "packs", "baskets"))
    single = "shelf" if box == "shelves" else box[:-2] if box == "boxes" else box[:-1]
    form = pick(rng, ("there are {x} {bs} with {y} {t} each. how many {t} are there", "each {b} holds {y} {t}. how many {t} in {x} {bs}",
                      "each {b} has {y} {t}. how many {t} are in {x} {bs}", "{n} buys {x} {bs} of {y} {t}. how many {t} is that",
                      "{n} has {x} {bs} of {y} {t}. how many {t} does {n} have", "one {b} costs {y} dollars. how much do {x} {bs} cost",
                      "a {b} holds {y} {t}. how many {t} do {x} {bs} hold"))  # fmt: skip
    text = form.format(x=x, y=y, b=single, bs=box, t=pick(rng, THINGS), n=pick(rng, NAMES))
    return Problem("words", ("groups", a, b), courtesy(rng, text), PLANS["groups"], multiply(a, b), str(a * b))


def draw(rng: random.Random) -> Problem:
    kind = rng.random()
    return _changes(rng) if kind < 0.6 else _comparison(rng) if kind < 0.8 else _groups(rng)


def recompute(key: Key) -> str:
    match key:
        case ("sum", int(a), int(b)):
            return str(a + b)
        case ("more", int(a), int(b)):
            return str(a - b)
        case ("groups", int(a), int(b)):
            return str(a * b)
        case ("change", *numbers):
            return str(sum(n for n in numbers if isinstance(n, int)))
        case _:
            raise ValueError(f"not a word problem key: {key!r}")


def twin(key: Key) -> Key:
    """So many groups of so many, the other way round."""
    match key:
        case ("groups", int(a), int(b)) if a < 10:
            return ("groups", b, a)
        case _:
            return key


FAMILY = Family("words", RANGES, tuple(PLANS.values()), draw, recompute, tail_number, twin)
