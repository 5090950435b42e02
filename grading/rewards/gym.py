"""The child process of :mod:`.procedural`: reasoning-gym's own verifiers.

Run as ``python -m k2think.grading.rewards.gym MEMORY_BYTES``. The library is imported in this process and nowhere else. Some of
its verifiers hand the answer to `eval` or to sympy's `parse_expr`, which evaluates Python; both are taken out and
replaced by readers that evaluate nothing.

Many verifiers pay for garbage: propositional_logic 0.25 for a tautology and 0.05 for any letter, countdown 0.01 for
nothing at all, game_of_life_halting 1.0 for "x". So each problem is tried out first: with answers that are surely
wrong, and with its own. What comes back beside the value is what garbage earns there.
"""

from __future__ import annotations

import copy
import difflib
import functools
import importlib
import json
import math
import re
import resource
import sys
import types
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, cast

from ..child import bound, open_replies, serve
from ..number import parse_number
from .literal import read_literal

GARBAGE = ("", "qzxj", "?", "{}", "[]", "()", "no such answer", "P ∨ ¬P")
"""Answers that are right nowhere."""

Scorer = Callable[..., Any]

_EVALUATING = (
    *("algorithmic.string_insertion", "algorithmic.spiral_matrix", "algorithmic.number_sorting"),
    *("algorithmic.binary_matrix", "games.n_queens"),
)
_CALCULATING = ("games.countdown", "games.puzzle24")
_FORMULA = re.compile(r"[\w\s+\-*/^().,]{0,2000}")
_NAME = re.compile(r"[A-Za-z_]\w*")
_FUNCTIONS = frozenset(
    (
        *("sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "exp", "log", "ln", "sqrt", "Abs"),
        *("pi", "E", "I", "oo", "Rational", "Integer"),
    )
)
_PLOTTING = (
    *("matplotlib", "matplotlib.pyplot", "matplotlib.animation", "matplotlib.collections"),
    *("mpl_toolkits", "mpl_toolkits.mplot3d"),
)


@dataclass(frozen=True, slots=True)
class Trial:
    """What a verifier does with one problem."""

    garbage: float
    """The most that an answer which is surely wrong earns."""
    own: float | None
    """What the problem's own answer earns; None = it has none, or the verifier failed on it."""
    error: str
    """How it failed on its own answer; empty = it did not."""
    tuples: bool
    """Whether it wants the lists of the metadata as the tuples that they were before they became JSON."""


@functools.lru_cache(maxsize=4_096)
def tried_out(name: str, written: str) -> Trial:
    """Try the verifier `name` with the entry that is `written` as JSON."""
    scorer, entry = _verifier(name), json.loads(written)
    own, error = _own(scorer, entry)
    tuples = False
    if error or (own is not None and own < 1):
        entry["metadata"] = _with_tuples(entry["metadata"])
        again, _ = _own(scorer, entry)
        if again is not None and (own is None or again > own):
            own, error, tuples = again, "", True
        else:
            entry = json.loads(written)
    garbage = 0.0
    for answer in GARBAGE:
        with suppress(Exception):  # that garbage makes a verifier fail says nothing
            garbage = max(garbage, _value(scorer(answer=answer, entry=copy.deepcopy(entry))))
    return Trial(garbage, own, error, tuples)


def _own(scorer: Scorer, entry: dict[str, Any]) -> tuple[float | None, str]:
    if not isinstance(entry.get("answer"), str):
        return None, ""
    try:
        return _value(scorer(answer=entry["answer"], entry=copy.deepcopy(entry))), ""
    except Exception as exc:
        return None, f"{type(exc).__name__}: {exc}"


def _with_tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_tuples(item) for key, item in cast(dict[str, Any], value).items()}
    return tuple(_with_tuples(item) for item in cast(list[Any], value)) if isinstance(value, list) else value


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    name, entry = str(request["name"]), request["entry"]
    names = generators()
    if name not in names:
        return {"unknown": difflib.get_close_matches(name, names, 3)}
    trial = tried_out(name, json.dumps(entry, sort_keys=True))
    if trial.tuples:
        entry["metadata"] = _with_tuples(entry["metadata"])
    scorer = _verifier(name)
    value, failure = 0.0, ""
    try:
        value = _value(scorer(answer=request["answer"], entry=entry))
    except MemoryError:
        raise
    except Exception as exc:  # verifiers raise almost anything on odd answers; whose fault it is the own answer tells
        failure = type(exc).__name__
    return {"value": value, "failure": failure, "garbage": trial.garbage, "own": trial.own, "error": trial.error}


def _value(raw: Any) -> float:
    value = float(raw)
    return 0.0 if math.isnan(value) else min(max(value, 0.0), 1.0)


def _read_arithmetic(text: str, *_: object, **__: object) -> Fraction:
    """Stands in for `parse_expr` where numbers are combined."""
    number = parse_number(text.replace("**", "^"))
    if number is None:
        raise ValueError("no arithmetic")
    return number.value


def _is_formula(text: str) -> bool:
    """Whether `text` has known names only, no attribute, no quote, nothing that calls into Python."""
    names = set(_NAME.findall(text))
    strange = {name for name in names - _FUNCTIONS if len(name) > 1 and not re.fullmatch(r"[A-Za-z]\d{0,2}", name)}
    attribute = re.search(r"[A-Za-z_)]\s*\.|\.\s*[A-Za-z_]", text)
    return _FORMULA.fullmatch(text) is not None and not strange and attribute is None


def _take_out_evaluation() -> None:
    import sympy

    parse: Callable[..., Any] = sympy.parse_expr

    def read_formula(text: str, *args: Any, **more: Any) -> Any:
        if not _is_formula(text):
            raise ValueError("no formula")
        return parse(text, *args, **more)

    replaced = [(importlib.import_module(f"reasoning_gym.{name}"), "eval", read_literal) for name in _EVALUATING]
    replaced += [
        (importlib.import_module(f"reasoning_gym.{name}"), "parse_expr", _read_arithmetic) for name in _CALCULATING
    ]
    replaced.append((sympy, "parse_expr", read_formula))
    for module, name, reader in replaced:
        setattr(module, name, reader)


class _Absent(types.ModuleType):
    """A module whose names are there to be imported, not to be used."""

    def __getattr__(self, name: str) -> types.ModuleType:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Absent(name)


def leave_out_plots() -> None:
    """Stand in for matplotlib, which a requirement imports for its plots: it takes a second and writes into the home folder."""
    for name in _PLOTTING:
        sys.modules[name] = _Absent(name)


def generators() -> list[str]:
    """Return the names of the library's generators."""
    from reasoning_gym.factory import DATASETS

    return list(DATASETS)


def _verifier(name: str) -> Scorer:
    import reasoning_gym

    return reasoning_gym.get_score_answer_fn(name)


def main() -> None:
    """Serve scores until standard input closes."""
    replies = open_replies()
    leave_out_plots()
    _take_out_evaluation()
    with open("/proc/self/statm", encoding="ascii") as sizes:
        already = int(sizes.read().split()[0]) * resource.getpagesize()
    bound(int(sys.argv[1]) + already)  # the libraries' own maps are not the answer's doing
    serve(_answer, replies)


if __name__ == "__main__":
    main()
