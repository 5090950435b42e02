"""Checks that a task brings along; where present they outrank the judge."""

from enum import StrEnum
from typing import Self

from pydantic import Field, model_validator

from .base import Frozen


class AnswerForm(StrEnum):
    """What a final answer must look like."""

    number = "number"
    integer = "integer"
    expression = "expression"
    choice = "choice"
    set = "set"
    interval = "interval"
    code = "code"
    text = "text"


class UnitTest(Frozen):
    """One test of a code answer: either standard input and expected output, or assertions to run after the code."""

    stdin: str | None = Field(default=None, max_length=1_000_000)
    """Text given on standard input; None with `code`."""
    expected_stdout: str | None = Field(default=None, max_length=1_000_000)
    """Standard output that the program must print (trailing white space ignored); None with `code`."""
    code: str | None = Field(default=None, max_length=100_000)
    """Python statements appended to the candidate's code; an exception is a failed test. None with `expected_stdout`."""

    @model_validator(mode="after")
    def _one_style(self) -> Self:
        if (self.code is None) == (self.expected_stdout is None):
            raise ValueError(
                "a unit test needs either `code` or `expected_stdout` (with optional `stdin`), not both and not neither"
            )
        return self


class Checks(Frozen):
    """The task's own checks."""

    answer_form: AnswerForm | None = None
    """Form that the final answer must have; a candidate of another form loses. None = any form."""
    unit_tests: tuple[UnitTest, ...] = Field(default=(), max_length=200)
    """Tests that a code answer must pass, all of them. Empty = none. They run in a sandbox only."""
