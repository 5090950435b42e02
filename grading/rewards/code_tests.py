"""The tests of a programming problem, out of the forms in which data sets publish them.

Guru's `ground_truth` (JSON in a text, or read already) is `{"functional": CODE}` or `{"inputs": […], "outputs": […]}`;
the sets behind it, and those of evaluations, have the other forms below. A form that is none of them is an error of the
data, never a zero for the answer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import JsonValue, ValidationError

from ...schemas.checks import UnitTest
from ...schemas.errors import GradingError, explain
from ..trials import Call
from .final import Meta, describe, text_option
from .private_tests import unpack_tests

MAX_PREFIX_CHARS = 1_000_000
"""Longest code that a problem may give: it is part of the answer's program."""

_FORMS = (
    "`functional`; `inputs` and `outputs` (with `fn_name`: of a function); `test` and `entry_point`; `test_list`; `test_cases`; `steps`; "
    "`public_test_cases` and `private_test_cases`; `unit_tests`; or a list of tests"
)


@dataclass(frozen=True, slots=True)
class Printed:
    """A program that reads standard input and prints."""

    stdin: str
    """Its input."""
    expected: str
    """What it must print."""


@dataclass(frozen=True, slots=True)
class Calls:
    """A function that is called."""

    name: str
    """Its name, or that of a method of `Solution`."""
    calls: tuple[Call, ...]
    """The calls, in order."""


@dataclass(frozen=True, slots=True)
class Asserted:
    """Statements that run against the answer, one after the other in one namespace."""

    tests: tuple[str, ...]
    """A test each."""
    setup: str = ""
    """Statements before them."""
    name: str = ""
    """Name of the step, where a problem has several."""


Trial = Printed | Calls | Asserted


@dataclass(frozen=True, slots=True)
class CodeTests:
    """All tests of a problem."""

    trials: tuple[Trial, ...]
    """What is run, each apart from the others."""
    prefix: str = ""
    """Code that the problem gives: it stands before the answer, and the assertions know it, too."""


def read_tests(truth: JsonValue, meta: Meta) -> CodeTests:
    """Return the tests that `truth` (or `meta`, where there is no truth) holds. Raises GradingError when it holds none."""
    stated: Any = truth if truth is not None else dict(meta)
    if isinstance(stated, str):
        try:
            stated = json.loads(stated)
        except (ValueError, RecursionError):
            stated = {"functional": stated}
    prefix = text_option(meta, "prefix")
    if isinstance(stated, dict):
        form: dict[str, Any] = stated
        if "prompt" in form and "entry_point" in form and not prefix:
            prefix = str(form["prompt"])  # HumanEval's own rows: imports, helpers and the head of the function
        trials = _of_object(form, meta)
    elif isinstance(stated, list) and stated:
        trials = _of_list(stated, meta)
    else:
        raise GradingError(
            f"a programming problem needs tests, and its truth is {describe(stated)}; known forms: {_FORMS}"
        )
    if not trials:
        raise GradingError("a programming problem needs at least one test, and its truth holds none")
    if len(prefix) > MAX_PREFIX_CHARS:
        raise GradingError(f"the code that a programming problem gives is longer than {MAX_PREFIX_CHARS} characters")
    return CodeTests(tuple(trials), prefix)


def _of_object(form: dict[str, Any], meta: Meta) -> list[Trial]:
    if isinstance(form.get("functional"), str):
        return [Asserted((form["functional"],))]
    if isinstance(form.get("input_output"), str | dict):
        stated = form["input_output"]
        return _of_object(_json(stated) if isinstance(stated, str) else stated, meta)
    if "inputs" in form and "outputs" in form:
        return _of_columns(form, meta)
    if isinstance(form.get("test"), str) and isinstance(form.get("entry_point"), str):
        return [Asserted((f"{form['test']}\n\ncheck({form['entry_point']})",))]
    if isinstance(form.get("test_list"), list):
        imports = _list(form, "test_imports")
        setup = "\n".join([*map(str, imports), str(form.get("test_setup_code") or "")])
        tests = [*form["test_list"], *_list(form, "challenge_test_list")]
        return [Asserted(tuple(map(str, tests)), setup)] if tests else []
    if "public_test_cases" in form or "private_test_cases" in form:
        cases = [case for name in ("public_test_cases", "private_test_cases") for case in _list(form, name)]
        return _of_list(cases, {**meta, **form}) if cases else []
    if isinstance(form.get("unit_tests"), list):
        return _of_list(form["unit_tests"], meta)
    if isinstance(form.get("steps") or form.get("sub_steps"), list):
        return _of_steps(form)
    if isinstance(form.get("test_cases"), list):
        return [_step(form, str(form.get("required_dependencies") or ""))]
    if "pytest" in form or "solution_file" in form:
        raise GradingError(
            "tests as a pytest file are not supported: turn them into `functional`, statements that run to their end"
        )
    raise GradingError(f"the truth of a programming problem has none of the known forms: {_FORMS}")


def _list(form: dict[str, Any], name: str) -> list[Any]:
    """Return the list under `name`, unpacked where it is packed; empty when there is none."""
    stated = form.get(name) or []
    if isinstance(stated, str):
        stated = unpack_tests(stated)
    if not isinstance(stated, list):
        raise GradingError(f"`{name}` of a programming problem must be a list, not {describe(stated)}")
    return stated


def _of_columns(form: dict[str, Any], meta: Meta) -> list[Trial]:
    inputs, outputs = form["inputs"], form["outputs"]
    if not isinstance(inputs, list) or not isinstance(outputs, list) or len(inputs) != len(outputs):
        raise GradingError("`inputs` and `outputs` must be lists of the same length")
    name = _function_name(form, meta)
    if name:
        calls = tuple(_call(given, expected) for given, expected in zip(inputs, outputs, strict=True))
        return [Calls(name, calls)] if calls else []
    return [Printed(_lines(given), _lines(expected)) for given, expected in zip(inputs, outputs, strict=True)]


def _of_list(cases: Sequence[Any], meta: Mapping[str, Any]) -> list[Trial]:
    """Return the tests of a list: LiveCodeBench's and DeepCoder's cases, our own unit tests, or assertions as text."""
    if all(isinstance(case, str) for case in cases):
        return [Asserted(tuple(cases))]
    trials: list[Trial] = []
    calls: dict[str, list[Call]] = {}
    for case in cases:
        if not isinstance(case, dict):
            raise GradingError(f"a test must be an object or a text, not {describe(case)}")
        if "input" not in case or "output" not in case:
            trials.append(_of_unit_test(case))
        elif case.get("testtype", case.get("type")) in ("functional", "function_call"):
            name = _function_name(case, meta)
            if not name:
                raise GradingError("a test calls a function, and neither `fn_name` nor `func_name` says which")
            calls.setdefault(name, []).append(_call(case["input"], case["output"]))
        else:
            trials.append(Printed(_lines(case["input"]), _lines(case["output"])))
    return trials + [Calls(name, tuple(of_name)) for name, of_name in calls.items()]


def _of_unit_test(case: dict[str, Any]) -> Trial:
    try:
        test = UnitTest.model_validate(case)
    except ValidationError as exc:
        raise GradingError(f"a unit test cannot be read: {explain(exc)}") from exc
    if test.code is not None:
        return Asserted((test.code,))
    return Printed(test.stdin or "", test.expected_stdout or "")


def _function_name(form: Mapping[str, Any], meta: Mapping[str, Any]) -> str:
    for place in (form, meta):
        details = place.get("metadata")
        if isinstance(details, str):
            details = _json(details)
        for source in (place, details if isinstance(details, dict) else {}):
            for key in ("fn_name", "func_name"):
                if isinstance(source.get(key), str) and source[key]:
                    return source[key].strip().removeprefix("Solution().")
    return ""


def _call(given: Any, expected: Any) -> Call:
    """Return a call: as LiveCodeBench writes it, JSON, an argument a line; or as lists, where a result may stand in a list of one."""
    if isinstance(given, str):
        return Call(tuple(_json(line) for line in given.split("\n") if line.strip()), (_json(str(expected)),))
    if not isinstance(given, list):
        raise GradingError(f"the arguments of a call must be a list, or JSON in lines, not {describe(given)}")
    alone = isinstance(expected, list) and len(expected) == 1
    return Call(tuple(given), (expected, expected[0]) if alone else (expected,))


def _lines(value: Any) -> str:
    """Return standard input or output; TACO has some of them as lists of lines."""
    if isinstance(value, list):
        return "\n".join(map(_lines, value))
    if isinstance(value, str):
        return value
    raise GradingError(f"standard input and output must be text, not {describe(value)}")


def _of_steps(form: dict[str, Any]) -> list[Trial]:
    setup = str(form.get("required_dependencies") or "")
    steps = form.get("steps") or form["sub_steps"]
    if not all(isinstance(step, dict) and isinstance(step.get("test_cases"), list) for step in steps):
        raise GradingError("each of the `steps` must be an object with `test_cases`")
    return [_step(step, setup) for step in steps if step["test_cases"]]


def _step(step: dict[str, Any], setup: str) -> Asserted:
    """Return SciCode's test of a step: each case is statements in which `target` stands for the expected value."""
    cases, targets = step["test_cases"], step.get("targets")
    if targets is None:
        tests = tuple(map(str, cases))
    elif isinstance(targets, list) and len(targets) == len(cases):
        tests = tuple(f"target = {_literal(target)}\n\n{case}" for case, target in zip(cases, targets, strict=True))
    else:
        raise GradingError("`targets` must be a list, as long as `test_cases`")
    return Asserted(tests, setup, name=str(step.get("step_number") or ""))


def _literal(value: Any) -> str:
    """Return the value as Python: JSON as it is, and `{"complex": [re, im]}`, `{"array": […]}`, `{"tuple": […]}` for those."""
    if isinstance(value, dict) and len(value) == 1:
        ((kind, held),) = value.items()
        if kind == "complex" and isinstance(held, list):
            return f"complex({', '.join(map(_literal, held))})"
        if kind == "array":
            return f"__import__('numpy').array({_literal(held)})"
        if kind == "tuple" and isinstance(held, list):
            return f"({''.join(f'{_literal(item)}, ' for item in held)})"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {_literal(held)}" for key, held in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_literal, value)) + "]"
    if isinstance(value, float) and value - value != 0:  # infinite, or not a number
        return f"float({str(value)!r})"
    return repr(value)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise GradingError(f"a test of a programming problem is not the JSON that it should be ({exc})") from exc
