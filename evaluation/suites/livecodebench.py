"""LiveCodeBench (code generation, lite), release v5: `test.jsonl` to `test5.jsonl`, cut by the dates of the contests.

Fields: `question_title`, `question_content`, `platform`, `question_id`, `contest_id`, `contest_date`, `starter_code`, `difficulty`,
`public_test_cases` (JSON), `private_test_cases` (JSON, or JSON pickled, compressed and in base64), `metadata` (JSON with `func_name`).
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import pickle
import zlib
from typing import Any, cast

from ...schemas.errors import InvalidRequest
from ...schemas.evaluation import Item
from ...schemas.scores import Domain, Task
from .files import Publication, Row, read_source, text_field
from .options import SuiteOptions

NAME = "livecodebench_v5"
PUBLICATION = Publication(
    "livecodebench/code_generation_lite", ("test.jsonl", "test2.jsonl", "test3.jsonl", "test4.jsonl", "test5.jsonl")
)
TESTS_BYTES_MAX = 2_000_000_000
"""The private tests of one problem, unpacked: more than that is no set of tests."""

WITH_STARTER = (
    "{problem}\n\nComplete this code. Put the whole program into one fenced block.\n\n```python\n{starter}\n```"
)
WITH_STDIN = (
    "{problem}\n\nWrite a Python program that reads the input from standard input and writes the answer to standard output. "
    "Put the whole program into one fenced block."
)


def livecodebench_v5(options: SuiteOptions) -> tuple[Item, ...]:
    """Return the problems whose contest was held within the window. Raises InvalidRequest."""
    source = read_source(NAME, PUBLICATION, options)
    items: list[Item] = []
    for place, row in source.rows:
        date = text_field(NAME, place, row, "contest_date")[:10]
        if date < (options.published_from or "") or date > (options.published_until or "9999"):
            continue
        items.append(_item(place, row, date))
    return tuple(items)


def _item(place: str, row: Row, date: str) -> Item:
    problem = text_field(NAME, place, row, "question_content")
    starter = str(row.get("starter_code") or "").rstrip()
    tests = [*_tests(place, row, "public_test_cases"), *_tests(place, row, "private_test_cases")]
    if not tests:
        raise InvalidRequest(f"{NAME}: {place} has no tests")
    function = _metadata(place, row).get("func_name") if starter else None
    task = Task(
        id=f"{NAME}-{text_field(NAME, place, row, 'question_id')}",
        domain=Domain.code,
        source=NAME,
        prompt=(WITH_STARTER if starter else WITH_STDIN).format(problem=problem, starter=starter),
        truth={
            "inputs": [test["input"] for test in tests],
            "outputs": [test["output"] for test in tests],
            **({"fn_name": function} if function else {}),
        },
    )
    return Item(task=task, subset=str(row.get("difficulty") or "unknown"), published=date)


def _tests(place: str, row: Row, name: str) -> list[dict[str, str]]:
    text = text_field(NAME, place, row, name)
    try:
        value = json.loads(text) if text.lstrip().startswith("[") else json.loads(_unpacked(text))
    except (ValueError, binascii.Error, zlib.error, pickle.UnpicklingError, EOFError, TypeError) as exc:
        raise InvalidRequest(f"{NAME}: {place}: {name} cannot be unpacked ({type(exc).__name__}: {exc})") from exc
    tests: list[dict[str, str]] = []
    for test in cast(list[Any], value):
        if not isinstance(test, dict) or not {"input", "output"} <= cast(dict[str, Any], test).keys():
            raise InvalidRequest(f"{NAME}: {place}: {name} holds something that is no test")
        fields = cast(dict[str, Any], test)
        tests.append({"input": str(fields["input"]), "output": str(fields["output"])})
    return tests


def _unpacked(text: str) -> str:
    decompressor = zlib.decompressobj()
    raw = decompressor.decompress(base64.b64decode(text, validate=True), TESTS_BYTES_MAX)
    if decompressor.unconsumed_tail:
        raise ValueError(f"it is larger than {TESTS_BYTES_MAX // 1_000_000} MB")
    value = _TextsOnly(io.BytesIO(raw)).load()
    if not isinstance(value, str):
        raise ValueError("it is no text")
    return value


class _TextsOnly(pickle.Unpickler):
    """Reads a pickled text, and builds no object of any class: a pickle from elsewhere may run anything."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """Refuse every class."""
        raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}, and a list of tests needs no class")


def _metadata(place: str, row: Row) -> dict[str, Any]:
    try:
        value = json.loads(str(row.get("metadata") or "{}"))
    except ValueError as exc:
        raise InvalidRequest(f"{NAME}: {place}: metadata is no JSON") from exc
    return cast(dict[str, Any], value) if isinstance(value, dict) else {}
