"""Whether two final answers are the same answer.

Three layers: :func:`quick` decides by exact rules in microseconds to milliseconds and runs anywhere;
:func:`equivalent` asks a worker process where only symbolic mathematics can tell; :func:`cluster` groups the answers
of several candidates.

The rules, where mathematics leaves a choice:

- Numbers are exact: 6.28 is not 2π, 0.333 is not 1/3. A decimal of six or more significant digits, four of them
  behind the point, equals what it was rounded or cut from: 0.333333 is 1/3.
- 50% is 1/2 and is not 50.
- A unit, a variable's name or the brackets of a list count only where both sides give them (see :mod:`.compare`).
- Undone arithmetic is equal to its result (347 + 58 is 405); whether it may stand as an answer is the question of
  :func:`..grading.form.matches_form`.

Input that exhausts time or memory, or that no rule decides, is *not equal*, with a reason that is logged and counted:
hostile input is the answer's fault. A worker that cannot start or that dies on its own is :class:`GradingError`:
that is the grader's fault, and turning it into "not equal" would falsify rewards and evaluations. Selection, which
must go on, asks :func:`cluster`, which keeps such a pair apart and counts it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Literal

from ..schemas.checks import AnswerForm
from ..schemas.errors import GradingError
from .compare import compare, show
from .counts import count
from .notation import parse_answer
from .symbolic_pool import LIMIT_S, Reason, SymbolicPool, SymbolicVerdict, default_pool

_log = logging.getLogger("k2think.grading")


@dataclass(frozen=True, slots=True)
class Comparison:
    """The outcome of one comparison."""

    equal: bool
    method: Literal["exact", "symbolic"]
    """Which layer decided."""
    reason: Reason | None = None
    """Why symbolic comparison gave no verdict (`equal` is then False); None = it gave one."""


def quick(a: str, b: str, *, form: AnswerForm | None = None) -> bool | None:
    """Compare by exact rules alone: True or False where they decide, None where only symbolic mathematics can tell.

    Pure, bounded in time and memory for any input; never raises.
    """
    if a == b:
        return True
    return compare(parse_answer(a, form=form), parse_answer(b, form=form))


async def equivalent(
    a: str, b: str, *, form: AnswerForm | None = None, limit_s: float = LIMIT_S, pool: SymbolicPool | None = None
) -> bool:
    """Whether `a` and `b` are the same answer; waits for a worker process without blocking the event loop.

    Raises :class:`GradingError` when the worker cannot start or crashes; see the module's text.
    """
    return (await compare_answers(a, b, form=form, limit_s=limit_s, pool=pool)).equal


async def compare_answers(
    a: str,
    b: str,
    *,
    form: AnswerForm | None = None,
    rounded: bool = False,
    limit_s: float = LIMIT_S,
    pool: SymbolicPool | None = None,
) -> Comparison:
    """Like :func:`equivalent`, telling also how it was decided.

    `rounded` also takes a decimal of three or more significant digits for the irrational constant that rounds to it:
    6.28 for 2π, 1.732 for √3. It suits a comparison with a reference; among candidates it would not be transitive.
    """
    verdict = quick(a, b, form=form)
    if verdict is not None:
        return _exact(verdict)
    future = _ask(a, b, form, limit_s, pool, rounded=rounded)
    try:
        return _symbolic(await asyncio.wrap_future(future))
    except GradingError:
        count("error")
        raise


async def cluster(
    answers: Sequence[str],
    *,
    form: AnswerForm | None = None,
    limit_s: float = LIMIT_S,
    pool: SymbolicPool | None = None,
) -> list[list[int]]:
    """Indices of `answers` grouped so that all members of a group are equal to each other, in order of appearance.

    An answer joins the first group whose every member it equals. Pairs on which the worker fails are kept apart; they
    are logged and counted as `error`, not raised.
    """
    groups: list[list[int]] = []
    for index, answer in enumerate(answers):
        for group in groups:
            if await _equals_all(answer, [answers[i] for i in group], form, limit_s, pool):
                group.append(index)
                break
        else:
            groups.append([index])
    return groups


def canonical(answer: str, *, form: AnswerForm | None = None) -> str:
    """A normal form of `answer`: equal strings mean equal answers. Unequal strings mean nothing; ask :func:`quick`."""
    return show(parse_answer(answer, form=form))


async def _equals_all(
    answer: str, members: Sequence[str], form: AnswerForm | None, limit_s: float, pool: SymbolicPool | None
) -> bool:
    for member in members:
        try:
            if not await equivalent(answer, member, form=form, limit_s=limit_s, pool=pool):
                return False
        except GradingError as exc:
            _log.warning("answers kept apart because the grader failed: %s", exc)
            return False
    return True


def _ask(
    a: str, b: str, form: AnswerForm | None, limit_s: float, pool: SymbolicPool | None, *, rounded: bool = False
) -> Future[SymbolicVerdict]:
    return (pool or default_pool()).submit(a, b, form=form, rounded=rounded, limit_s=limit_s)


def _exact(verdict: bool) -> Comparison:
    count("exact")
    return Comparison(verdict, "exact")


def _symbolic(verdict: SymbolicVerdict) -> Comparison:
    count(verdict.reason or "symbolic")
    if verdict.reason is not None:
        _log.info("no symbolic verdict: %s %s", verdict.reason, verdict.detail)
    return Comparison(bool(verdict.equal), "symbolic", verdict.reason)
