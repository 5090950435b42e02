"""SciCode, as published: `problems_all.jsonl` (or `_dev`), and `test_data.h5` with the expected values, which lies apart.

A problem is asked as a whole: all of its steps in one answer, of which every step must pass. The published protocol asks step by
step, each after the model's own answers to those before, so figures of this suite are not comparable with published ones.

Fields: `problem_id`, `problem_name`, `problem_description_main`, `problem_io`, `required_dependencies`, `sub_steps` (`step_number`,
`step_description_prompt`, `step_background`, `function_header`, `test_cases`, `return_line`). In `test_data.h5`: group `STEP/testN`, one
data set or group for each value; a group holds `list`, `sparse_matrix` or the entries of a dictionary.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any, cast

from pydantic import JsonValue

from ...schemas.errors import ConfigurationError, InvalidRequest, NotFound
from ...schemas.evaluation import Item
from ...schemas.scores import Domain, Task
from .files import Loaded, Publication, Row, field, read_source, text_field
from .options import SuiteOptions

NAME = "scicode"
PUBLICATION = Publication("SciCode1/SciCode", ("problems_all.jsonl",))
GIVEN_STEPS = frozenset({"13.6", "62.1", "76.3"})
"""Steps whose code the benchmark gives to the model; they are not tested."""
TIMEOUT_S = 1_800.0
"""Seconds for a problem's tests, as published for each of its steps."""
MEMORY_MB = 4_096.0

PROMPT = """{main}

Solve it in steps, with one function (or class) for each. Later steps use those of earlier ones.

{steps}

Use only these dependencies, and import them yourself:

```python
{dependencies}
```

Put the whole program, all steps together, into one fenced block of Python. Give no examples of its use."""
STEP = """Step {number}: {description}

```python
{header}
```"""

COMPARISONS = '''
def _scicode_comparisons():
    """What the published tests import from the benchmark's own package: comparisons of nested values."""
    import sys, types
    import numpy as np

    def dense(value):
        return value.toarray() if hasattr(value, "toarray") else value

    def close(left, right):
        if isinstance(left, dict):
            return are_dicts_close(left, right)
        if isinstance(left, (bool, str)):
            return left == right
        try:
            return bool(np.allclose(dense(left), dense(right)))
        except (TypeError, ValueError):
            return left == right

    def by_text(values):
        return {str(key) if type(key).__module__.startswith("sympy") else key: value for key, value in values.items()}

    def text_of(value):
        return str(value) if type(value).__module__.startswith("sympy") else value

    def are_dicts_close(left, right):
        left, right = by_text(left), by_text(right)
        return left.keys() == right.keys() and all(close(text_of(left[key]), text_of(right[key])) for key in left)

    def are_csc_matrix_close(left, right):
        return bool(np.allclose(dense(left), dense(right)))

    def cmp_tuple_or_list(left, right):
        return len(left) == len(right) and all(close(one, other) for one, other in zip(left, right))

    module = types.ModuleType("scicode.compare.cmp")
    module.are_dicts_close = are_dicts_close
    module.are_csc_matrix_close = are_csc_matrix_close
    module.cmp_tuple_or_list = cmp_tuple_or_list
    for name in ("scicode", "scicode.compare"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["scicode.compare.cmp"] = module


_scicode_comparisons()
'''


def scicode(options: SuiteOptions) -> Loaded:
    """Return the problems, each with the tests of all its steps. Raises InvalidRequest, ConfigurationError, NotFound."""
    if options.targets_file is None:
        raise InvalidRequest(
            f"{NAME}: the expected values are published apart from the problems: download test_data.h5 (the benchmark's page "
            "at https://github.com/scicode-bench/SciCode says where it lies) and give it with --scicode-targets"
        )
    source = read_source(NAME, PUBLICATION, options)
    with _open_targets(options.targets_file) as targets:
        return Loaded(tuple(_item(place, row, targets) for place, row in source.rows), source.origin)


def _item(place: str, row: Row, targets: Any) -> Item:
    number = text_field(NAME, place, row, "problem_id")
    dependencies = text_field(NAME, place, row, "required_dependencies")
    described: list[str] = []
    tested: list[JsonValue] = []
    for step in cast(list[Any], field(NAME, place, row, "sub_steps")):
        if not isinstance(step, dict):
            raise InvalidRequest(f"{NAME}: {place}: a step is no object")
        fields = cast(Row, step)
        name = text_field(NAME, place, fields, "step_number")
        described.append(
            STEP.format(
                number=name,
                description=text_field(NAME, place, fields, "step_description_prompt"),
                header=text_field(NAME, place, fields, "function_header"),
            )
        )
        if name not in GIVEN_STEPS:
            tested.append(_tests(place, name, cast(list[Any], field(NAME, place, fields, "test_cases")), targets))
    main = [
        text_field(NAME, place, row, "problem_description_main"),
        str(row.get("problem_io") or "").strip().strip('"'),
    ]
    task = Task(
        id=f"{NAME}-{number}",
        domain=Domain.code,
        source=NAME,
        prompt=PROMPT.format(
            main="\n\n".join(part for part in main if part), steps="\n\n".join(described), dependencies=dependencies
        ),
        truth={"required_dependencies": f"{dependencies}\n{COMPARISONS}", "steps": tested},
        meta={"timeout_s": TIMEOUT_S, "memory_mb": MEMORY_MB},
    )
    return Item(task=task, subset=NAME)


def _tests(place: str, step: str, cases: list[Any], targets: Any) -> dict[str, JsonValue]:
    tests: list[JsonValue] = []
    for number, case in enumerate(cases, start=1):
        try:
            group = targets[f"{step}/test{number}"]
        except KeyError as exc:
            raise InvalidRequest(f"{NAME}: {place}: test_data.h5 has no value for step {step}, test {number}") from exc
        tests.append(f"target = {_code_of(_target(group))}\n\n{case}")
    return {"step_number": step, "test_cases": tests}


def _open_targets(path: Path) -> Any:
    try:
        import h5py
    except ImportError as exc:
        raise ConfigurationError(f"{NAME}: reading test_data.h5 needs h5py: pip install 'k2think[scicode]'") from exc
    if not path.is_file():
        raise NotFound(f"{NAME}: {path}: there is no such file")
    try:
        return cast(Any, h5py).File(path, "r")
    except OSError as exc:
        raise InvalidRequest(f"{NAME}: {path} is no HDF5 file: {exc}") from exc


def _target(group: Any) -> Any:
    """The expected value of a test: one value, or a tuple of several."""
    values = [_value(group[key]) for key in group]
    return values[0] if len(values) == 1 else tuple(values)


def _value(node: Any) -> Any:
    if not hasattr(node, "keys"):
        value = node[()]
        return value.decode("utf-8") if isinstance(value, bytes) else value
    names = list(node.keys())
    if "list" in names:
        return [_value(node["list"][key]) for key in node["list"]]
    if "sparse_matrix" in names:
        return _Sparse(node["sparse_matrix"])
    return {_key(name): _value(node[name]) for name in names}


def _key(name: str) -> Any:
    try:
        return float(name)
    except ValueError:
        return name


class _Sparse:
    """A sparse matrix, as the arrays that it is stored by."""

    def __init__(self, node: Any) -> None:
        self.shape = tuple(int(size) for size in node["shape"][()])
        self.parts = {name: node[name][()] for name in node if name not in ("shape", "blocksize")}
        self.blocksize = tuple(int(size) for size in node["blocksize"][()]) if "blocksize" in node else None

    def code(self) -> str:
        """Return Python that makes it."""
        data = _code_of(self.parts["data"])
        if "row" in self.parts:
            held = f"({data}, ({_code_of(self.parts['row'])}, {_code_of(self.parts['col'])}))"
            return f"__import__('scipy.sparse', fromlist=['x']).coo_matrix({held}, shape={self.shape})"
        held = f"({data}, {_code_of(self.parts['indices'])}, {_code_of(self.parts['indptr'])})"
        if self.blocksize is not None:
            return f"__import__('scipy.sparse', fromlist=['x']).bsr_matrix({held}, shape={self.shape}, blocksize={self.blocksize})"
        return f"__import__('scipy.sparse', fromlist=['x']).csr_matrix({held}, shape={self.shape})"


def _code_of(value: Any) -> str:
    """Return Python that makes an expected value again, to the last bit."""
    import numpy

    if isinstance(value, _Sparse):
        return value.code()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {_code_of(held)}" for key, held in cast(dict[Any, Any], value).items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_code_of, cast(list[Any], value))) + "]"
    if isinstance(value, tuple):
        return "(" + "".join(f"{_code_of(held)}, " for held in cast(tuple[Any, ...], value)) + ")"
    if isinstance(value, numpy.ndarray | numpy.generic):
        array = numpy.ascontiguousarray(value)
        if array.dtype.hasobject:
            return _code_of([one.decode() if isinstance(one, bytes) else one for one in array.tolist()])
        packed = base64.b64encode(array.tobytes()).decode()
        made = f"__import__('numpy').frombuffer(__import__('base64').b64decode('{packed}'), dtype='{array.dtype.str}')"
        shape = value.shape
        return f"{made}.reshape({shape}).copy()" + ("" if shape else "[()]")
    return repr(value)
