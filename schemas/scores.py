"""What grading says of an answer: the one reward that training, selection and evaluation share."""

from enum import StrEnum

from pydantic import Field, JsonValue

from .base import Frozen


class Domain(StrEnum):
    """What a problem is about, and with that how its answer is checked (the six domains of Guru, and generators)."""

    math = "math"
    """A number, expression, set or interval, by equivalence."""
    code = "code"
    """A program, by its unit tests, in a sandbox."""
    science = "science"
    """A choice letter, or a free answer by equivalence and then by a judge."""
    logic = "logic"
    """Zebra puzzles, orderings, graphs, ARC-like grids."""
    simulation = "simulation"
    """The output of a program for an input, or an input for an output."""
    table = "table"
    """Cells of a table, and numbers with a tolerance."""
    procedural = "procedural"
    """A problem of a generator that brings its own verifier: k2think's families, or reasoning-gym by name."""


class Score(Frozen):
    """What an answer is worth. A check that crashed raises `GradingError`: it is an error, never a zero."""

    value: float = Field(ge=0.0, le=1.0)
    """Reward, 0..1; partial credit only where the domain defines it (the share of cells of a grid that are right)."""
    correct: bool
    """Whether the answer counts as right in an evaluation: a matter of its own, not a threshold on `value` alone."""
    reason: str
    """Why, as a short stable code (`equal`, `different`, `no_answer`, `wrong_form`, `tests_failed`, `timeout`, …)."""
    answer: str | None = None
    """The final answer as it was understood, normalised; None = none was found."""
    detail: str = ""
    """More for a reader, at most 500 characters: the test that failed, the cell that differs."""


class Task(Frozen):
    """One problem with its truth: the typed form of every training and evaluation set."""

    id: str = Field(min_length=1, max_length=200)
    """Stable within its source."""
    domain: Domain
    """How its answer is checked."""
    source: str = Field(min_length=1, max_length=200)
    """Data set it is from, as the data set names itself (Guru's `data_source`, `aime_2025`, `mini`)."""
    prompt: str = Field(min_length=1)
    """The problem as asked, before any plan or chat template."""
    truth: JsonValue = None
    """What the answer is compared with, in the form of its domain; None where `meta` holds all (unit tests)."""
    meta: dict[str, JsonValue] = {}
    """What the check needs beside the truth: unit tests, choices, tolerance, the generator's entry."""
