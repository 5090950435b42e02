"""Problems planted in training data in many disguises, and the table of what finds them. Prints it:

python tests/harness/planted_overlaps.py
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from k2think.grading.overlap import LONG_RUN_WORDS, NGRAM8_COVERAGE_MIN, SHORT_RUN_WORDS, Match, OverlapIndex
from k2think.schemas.evaluation import OverlapKind


@dataclass(frozen=True)
class Planted:
    """A problem with what only a person can make of it."""

    problem: str
    reworded: str
    """Some words replaced."""
    told_anew: str
    """The same problem in other words."""
    german: str
    other: str
    """Another problem of the same kind."""


PLANTED = (
    Planted(
        problem="A rectangular garden is 24 metres long and 15 metres wide. A gravel path of uniform width runs around it, and the area of the path is 126 square metres. Find the width of the path in metres.",
        reworded="A rectangular lawn is 24 metres long and 15 metres wide. A stone path of uniform width runs around it, and the area of this path is 126 square metres. Compute the width of the path in metres.",
        told_anew="Someone paves a border, equally broad on every side, around a lawn measuring 24 by 15 metres. If 126 square metres are paved, how broad is the border?",
        german="Ein rechteckiger Garten ist 24 Meter lang und 15 Meter breit. Ringsum führt ein Kiesweg gleicher Breite, dessen Fläche 126 Quadratmeter beträgt. Wie breit ist der Weg in Metern?",
        other="A rectangular sheet of tin is 30 centimetres long. Equal squares are cut from its corners and the sides are folded up to make a box. Which square gives the largest volume?",
    ),
    Planted(
        problem="Let $a$ and $b$ be positive integers with $\\gcd(a, b) = 6$ and $\\text{lcm}(a, b) = 180$. If $a < b$ and neither of them divides the other, determine the smallest possible value of $a + b$.",
        reworded="Let $a$ and $b$ be natural numbers with $\\gcd(a, b) = 6$ and $\\text{lcm}(a, b) = 180$. If $a < b$ and neither one divides the other, find the smallest possible value of $a + b$.",
        told_anew="Two whole numbers share 6 as their greatest common divisor, while 180 is their least common multiple. No number of the two is a multiple of its partner. How small can their total be?",
        german="Seien $a$ und $b$ positive ganze Zahlen mit größtem gemeinsamen Teiler 6 und kleinstem gemeinsamen Vielfachen 180. Keine teilt die andere. Bestimme den kleinsten Wert von $a + b$.",
        other="Let $n$ be the number of positive divisors of $10!$ that are perfect squares. Determine the remainder when $n$ is divided by 7.",
    ),
    Planted(
        problem="Maria has a bag with 5 red marbles, 4 blue marbles and 3 green marbles. She draws two marbles at random without putting the first one back. What is the probability that both marbles have the same colour?",
        reworded="Anton has a box with 5 red balls, 4 blue balls and 3 green balls. He draws two balls at random without putting the first one back. What is the probability that both balls have the same colour?",
        told_anew="From a dozen beads, five of them red, four blue, the rest green, a pair is taken blindly. How likely is it that the pair matches?",
        german="Maria hat einen Beutel mit 5 roten, 4 blauen und 3 grünen Murmeln. Sie zieht zwei Murmeln ohne Zurücklegen. Wie groß ist die Wahrscheinlichkeit, dass beide die gleiche Farbe haben?",
        other="A fair coin is tossed until heads appears twice in a row. What is the expected number of tosses?",
    ),
    Planted(
        problem="Write a function that takes a list of up to 500 intervals, each given as a pair of integers with the start not larger than the end, and returns the total length covered by at least one of them. Touching intervals count as joined.",
        reworded="Write a method that takes a list of up to 500 ranges, each given as a pair of integers with the start not larger than the end, and returns the total length that is covered by at least one of them. Touching ranges count as merged.",
        told_anew="Given segments on the number line as (low, high) tuples, compute how much of the line they cover together; overlaps must be counted once.",
        german="Schreibe eine Funktion, die eine Liste von Intervallen als Paare ganzer Zahlen erhält und die Gesamtlänge zurückgibt, die von mindestens einem überdeckt wird.",
        other="Write a function that takes a string of brackets and returns the length of the longest prefix that is balanced.",
    ),
    Planted(
        problem="A ball is thrown straight up from the edge of a roof 20 metres above the ground with a speed of 15 metres per second. Neglecting air resistance and taking g as 10 metres per second squared, after how many seconds does it hit the ground?",
        reworded="A stone is thrown straight up from the edge of a cliff 20 metres above the ground with a velocity of 15 metres per second. Ignoring air resistance and taking g as 10 metres per second squared, after how many seconds does it reach the ground?",
        told_anew="From a rooftop at height 20 m someone tosses a pebble vertically upward at 15 m/s. With gravity 10 m/s² and no drag, when will it land below?",
        german="Ein Ball wird vom Rand eines 20 Meter hohen Daches mit 15 Metern pro Sekunde senkrecht nach oben geworfen. Nach wie vielen Sekunden schlägt er auf dem Boden auf, wenn g gleich 10 ist?",
        other="A block slides down a frictionless incline of 30 degrees that is 4 metres long. Taking g as 10, what is its speed at the bottom?",
    ),
)


def _numbers(text: str) -> str:
    return re.sub(r"\d+", lambda found: str(int(found[0]) * 3 + 1), text)


def _sentences(text: str) -> str:
    return " ".join(reversed(re.split(r"(?<=[.?]) ", text)))


def _half(text: str) -> str:
    words = text.split()
    return " ".join(words[: len(words) // 2]) + " and nothing of this was ever asked of anybody."


_ESSAY = " ".join(f"Sentence {number} is about thing{number} and ends with word{number * 7}." for number in range(60))


FORMS: dict[str, Callable[[Planted], str]] = {
    "a copy": lambda one: one.problem,
    "other case, punctuation and LaTeX": lambda one: (
        one.problem.upper().replace(".", " !").replace("\\TEXT", "\\mathrm")
    ),
    "between instructions": lambda one: f"Solve this step by step. {one.problem} Put the final answer in \\boxed{{}}.",
    "in the middle of a long text": lambda one: f"{_ESSAY} {one.problem} {_ESSAY}",
    "its first half": lambda one: _half(one.problem),
    "with other numbers": lambda one: _numbers(one.problem),
    "its sentences in another order": lambda one: _sentences(one.problem),
    "a few words replaced": lambda one: one.reworded,
    "told anew": lambda one: one.told_anew,
    "translated": lambda one: one.german,
    "another problem (must not be found)": lambda one: one.other,
}


def found_by(match: Match | None) -> dict[OverlapKind, bool]:
    """Return which kinds of match find a text, each taken by itself."""
    if match is None:
        return dict.fromkeys(OverlapKind, False)
    return {
        OverlapKind.exact: match.kind is OverlapKind.exact,
        OverlapKind.ngram13: match.words >= LONG_RUN_WORDS,
        OverlapKind.ngram8: match.words >= SHORT_RUN_WORDS and match.coverage >= NGRAM8_COVERAGE_MIN,
        OverlapKind.fuzzy: match.similarity is not None,
    }


def counts() -> dict[str, dict[OverlapKind, int]]:
    """Return by disguise how many of the problems each kind of match finds."""
    index = OverlapIndex((str(number), one.problem) for number, one in enumerate(PLANTED))
    table: dict[str, dict[OverlapKind, int]] = {}
    for form, disguise in FORMS.items():
        row = dict.fromkeys(OverlapKind, 0)
        for number, one in enumerate(PLANTED):
            match = next((found for found in index.search(disguise(one)) if found.item == str(number)), None)
            for kind, yes in found_by(match).items():
                row[kind] += yes
        table[form] = row
    return table


def table() -> str:
    """Return the table as it stands in docs/data.md."""
    lines = ["| planted as | exact | 13 words | 8 words over half of it | fuzzy | any |", "|---|---|---|---|---|---|"]
    index = OverlapIndex((str(number), one.problem) for number, one in enumerate(PLANTED))
    for form, row in counts().items():
        anyhow = sum(
            any(any(found_by(found).values()) for found in index.search(FORMS[form](one)) if found.item == str(number))
            for number, one in enumerate(PLANTED)
        )
        lines.append(f"| {form} | " + " | ".join(str(row[kind]) for kind in OverlapKind) + f" | {anyhow} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
