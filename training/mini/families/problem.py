"""What every problem family produces."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

Key = tuple[object, ...]
"""The underlying problem, free of wording: numbers, operations and order only."""


@dataclass(frozen=True)
class Problem:
    """One problem with its verified solution."""

    family: str
    """Name of the family, a key of ``FAMILIES``."""
    key: Key
    """The underlying problem; two wordings of one problem share it, so the split is made on it."""
    text: str
    """The problem as a person might write it."""
    plan: str
    """One short line of method; never contains the answer."""
    trace: str
    """The steps, as the model writes them between ``<think>`` and ``</think>``."""
    answer: str
    """The final answer in its one canonical spelling."""


@dataclass(frozen=True)
class Family:
    """One problem family: how to draw a problem, and two independent ways to its answer."""

    name: str
    """Name used in reports."""
    ranges: str
    """Difficulty in words and numbers, fixed before training."""
    plans: tuple[str, ...]
    """Every plan line that its problems carry."""
    draw: Callable[[random.Random], Problem]
    """Draws one problem."""
    recompute: Callable[[Key], str]
    """The answer computed from the key alone, without the trace."""
    conclusion: Callable[[str], str]
    """The answer read off the end of a trace."""
    twin: Callable[[Key], Key] = lambda key: key
    """The other key of what can be worded the same; the key itself where there is none."""


def pick(rng: random.Random, options: Sequence[T]) -> T:
    """One of ``options``, uniformly."""
    return options[rng.randrange(len(options))]


def chance(rng: random.Random, probability: float) -> bool:
    """True with the given probability."""
    return rng.random() < probability


ASK = ("what is ", "what is ", "what's ", "whats ", "calculate ", "compute ", "work out ", "find ", "", "")
ASK_MORE = (
    "how much is ",
    "please calculate ",
    "can you tell me ",
    "tell me ",
    "evaluate ",
    "please compute ",
    "solve ",
)


def ask(rng: random.Random) -> str:
    """An opening such as ``what is ``; may be empty."""
    return pick(rng, ASK) if chance(rng, 0.75) else pick(rng, ASK_MORE)


def courtesy(rng: random.Random, text: str) -> str:
    """``text``, sometimes wrapped in the small talk that people add."""
    draw = rng.random()
    if draw < 0.04:
        return text + " please"
    if draw < 0.06:
        return "please " + text
    if draw < 0.08:
        return pick(rng, ("hi,", "hey,", "hello,", "ok,", "quick question:")) + text
    if draw < 0.10:
        return text + pick(rng, (" thanks", ",please", " thank you", " show your work", " step by step"))
    return text


NAMES = ("tom", "ann", "bob", "eve", "sam", "mia", "leo", "zoe", "max", "lily", "john", "maria", "kim", "ravi", "anna")
THINGS = (
    "apples",
    "pens",
    "books",
    "coins",
    "eggs",
    "cards",
    "stamps",
    "marbles",
    "cookies",
    "oranges",
    "stickers",
    "balls",
)
