"""LiveCodeBench (code generation, lite), release v5: `test.jsonl` to `test5.jsonl`, cut by the dates of the contests.

Fields: `question_title`, `question_content`, `platform`, `question_id`, `contest_id`, `contest_date`, `starter_code`, `difficulty`,
`public_test_cases` (JSON), `private_test_cases` (JSON, or JSON pickled, compressed and in base64), `metadata` (JSON with `func_name`).
"""

from __future__ import annotations

from pydantic import JsonValue

from ...schemas.evaluation import Item
from ...schemas.scores import Domain, Task
from .files import Loaded, Publication, Row, read_source, text_field
from .options import SuiteOptions

NAME = "livecodebench_v5"
PUBLICATION = Publication(
    "livecodebench/code_generation_lite", ("test.jsonl", "test2.jsonl", "test3.jsonl", "test4.jsonl", "test5.jsonl")
)
TESTS = ("public_test_cases", "private_test_cases")

WITH_STARTER = (
    "{problem}\n\nComplete this code. Put the whole program into one fenced block.\n\n```python\n{starter}\n```"
)
WITH_STDIN = (
    "{problem}\n\nWrite a Python program that reads the input from standard input and writes the answer to standard output. "
    "Put the whole program into one fenced block."
)


def livecodebench_v5(options: SuiteOptions) -> Loaded:
    """Return the problems whose contest was held within the window. Raises InvalidRequest."""
    source = read_source(NAME, PUBLICATION, options)
    items: list[Item] = []
    for place, row in source.rows:
        date = text_field(NAME, place, row, "contest_date")[:10]
        if (options.published_from or "") <= date <= (options.published_until or "9999"):
            items.append(_item(place, row, date))
    return Loaded(tuple(items), source.origin)


def _item(place: str, row: Row, date: str) -> Item:
    problem = text_field(NAME, place, row, "question_content")
    starter = str(row.get("starter_code") or "").rstrip()
    # As they are published: the check unpacks them, and no pickle of theirs may name anything.
    truth: dict[str, JsonValue] = {name: text_field(NAME, place, row, name) for name in TESTS}
    truth["metadata"] = str(row.get("metadata") or "{}")
    task = Task(
        id=f"{NAME}-{text_field(NAME, place, row, 'question_id')}",
        domain=Domain.code,
        source=NAME,
        prompt=(WITH_STARTER if starter else WITH_STDIN).format(problem=problem, starter=starter),
        truth=truth,
    )
    return Item(task=task, subset=str(row.get("difficulty") or "unknown"), published=date)
