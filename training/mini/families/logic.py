"""Logic: the truth value of a small expression, and who comes first or last in a chain of comparisons."""

from __future__ import annotations

import random
import re
from itertools import pairwise

from .problem import NAMES, Family, Key, Problem, chance, courtesy, pick

RANGES = (
    "expressions over 2 or 3 variables with and, or, not: 1 or 2 binary operators (guessing gives 50 %); "
    "3 or 4 people compared in neighbouring pairs, in any order and direction (guessing gives 33 or 25 %)"
)
PLANS = {"truth": "put in the values, then reduce", "chain": "build the chain, then read its end"}
_RELATIONS = (("taller", "shorter", "tallest", "shortest"), ("older", "younger", "oldest", "youngest"),
              ("faster", "slower", "fastest", "slowest"), ("heavier", "lighter", "heaviest", "lightest"),
              ("richer", "poorer", "richest", "poorest"))  # fmt: skip

_SIGNS = {"and": "&", "or": "|", "not": "!"}


def _letter(value: bool) -> str:
    return "t" if value else "f"


def _truth(rng: random.Random) -> Problem:
    names = rng.sample(pick(rng, ("pqr", "pqr", "abc", "xyz")), pick(rng, (2, 3)))
    names.sort()
    values = {name: chance(rng, 0.5) for name in names}
    steps: list[str] = []

    def operand() -> tuple[str, str, bool]:
        name = pick(rng, names)
        if chance(rng, 0.3):
            steps.append(f"!{_letter(values[name])}={_letter(not values[name])}")
            return f"not {name}", f"!{_letter(values[name])}", not values[name]
        return name, _letter(values[name]), values[name]

    def joined(left: tuple[str, str, bool], right: tuple[str, str, bool]) -> tuple[str, str, bool]:
        both = chance(rng, 0.5)
        result = (left[2] and right[2]) if both else (left[2] or right[2])
        sign = "&" if both else "|"
        steps.append(f"{_letter(left[2])}{sign}{_letter(right[2])}={_letter(result)}")
        return f"{left[0]} {'and' if both else 'or'} {right[0]}", f"{left[1]}{sign}{right[1]}", result

    expression = joined(operand(), operand())
    if chance(rng, 0.6):
        expression = (f"({expression[0]})", f"({expression[1]})", expression[2])
        if chance(rng, 0.25):
            steps.append(f"!{_letter(expression[2])}={_letter(not expression[2])}")
            expression = ("not " + expression[0], "!" + expression[1], not expression[2])
        expression = joined(expression, operand())
    words, symbols, result = expression
    style = rng.random()
    facts = ",".join(
        f"{n}={_letter(v)}" if style < 0.3 else f"{n}={str(v).lower()}" if style < 0.6 else f"{n} is {str(v).lower()}"
        for n, v in values.items()
    )
    form = pick(rng, ("{f}. what is {e}", "{f}. evaluate {e}", "if {f},what is {e}", "{f}. is {e} true or false", "given {f},what is {e}",
                      "{f}. {e}", "let {f}. find {e}"))  # fmt: skip
    # The values once in one form, then the expression with each name beside its value: so each is a look-up by its name.
    known = ",".join(f"{name}{_letter(value)}" for name, value in values.items())
    named = re.sub(
        "[a-z]+", lambda match: _SIGNS.get(match[0], f"{match[0]}{_letter(values.get(match[0], False))}"), words
    )
    trace = f"{known}:{named.replace(' ', '')}:{';'.join(steps)}>{str(result).lower()}"
    text = courtesy(rng, form.format(f=facts, e=words))
    places = str.maketrans({name: str(index) for index, name in enumerate(names)})
    shape = " ".join(word if word in ("and", "or", "not") else word.translate(places) for word in words.split())
    return Problem("logic", ("truth", shape, symbols), text, PLANS["truth"], trace, str(result).lower())


def _chain(rng: random.Random) -> Problem:
    people = rng.sample(NAMES, pick(rng, (3, 3, 4)))
    more, less, most, least = pick(rng, _RELATIONS)
    pairs = list(pairwise(people))
    rng.shuffle(pairs)
    sentences: list[str] = []
    facts: list[str] = []
    for high, low in pairs:
        flipped = chance(rng, 0.35)
        sentences.append(f"{low} is {less} than {high}" if flipped else f"{high} is {more} than {low}")
        facts.append(f"{high}>{low}")
    ask_top = chance(rng, 0.6)
    answer = people[0] if ask_top else people[-1]
    story = pick(rng, (". ", ". ", ",")).join(sentences)
    question = pick(rng, ("who is the {w}", "who is {w}", "who's the {w}")).format(w=most if ask_top else least)
    # What is asked comes first, while the question is near.
    asked = "top" if ask_top else "end"
    trace = f"{most if ask_top else least}={asked}:{';'.join(facts)}:{'>'.join(people)}:{asked}={answer}"
    # Names and order belong to the underlying problem: without them there would be a few dozen problems in all.
    return Problem(
        "logic", ("chain", ask_top, tuple(facts)), courtesy(rng, f"{story}. {question}"), PLANS["chain"], trace, answer
    )


def draw(rng: random.Random) -> Problem:
    return _truth(rng) if chance(rng, 0.6) else _chain(rng)


def _value(symbols: str) -> bool:
    """Value of an expression over ``t``, ``f``, ``!``, ``&``, ``|`` and brackets, by a small recursive descent."""
    tokens = list(symbols)

    def atom() -> bool:
        sign = tokens.pop(0)
        if sign == "!":
            return not atom()
        if sign == "(":
            inner = chain()
            tokens.pop(0)
            return inner
        return sign == "t"

    def chain() -> bool:
        value = atom()
        while tokens and tokens[0] in "&|":
            both = tokens.pop(0) == "&"
            right = atom()
            value = (value and right) if both else (value or right)
        return value

    return chain()


def recompute(key: Key) -> str:
    match key:
        case ("truth", _, str(symbols)):
            return str(_value(symbols)).lower()
        case ("chain", bool(ask_top), (*facts,)):
            pairs = [str(fact).split(">") for fact in facts]
            beaten_or_beating = {pair[1 if ask_top else 0] for pair in pairs}
            return next(name for pair in pairs for name in pair if name not in beaten_or_beating)
        case _:
            raise ValueError(f"not a logic key: {key!r}")


def conclusion(trace: str) -> str:
    return trace[max(trace.rfind(">"), trace.rfind("=")) + 1 :]


FAMILY = Family("logic", RANGES, tuple(PLANS.values()), draw, recompute, conclusion)
