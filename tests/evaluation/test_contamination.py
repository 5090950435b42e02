"""A suite held against training data: what is found and where, and what is never called clean."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from harness.planted_overlaps import FORMS, PLANTED, table
from k2think.evaluation.cli import app
from k2think.evaluation.contamination import SearchOptions, search, to_markdown, write
from k2think.evaluation.records import data_sha256
from k2think.evaluation.suites.options import SuiteOptions
from k2think.evaluation.suites.registry import suite
from k2think.grading.overlap import normal_words
from k2think.schemas.errors import InvalidRequest, NotFound
from k2think.schemas.evaluation import Cleanliness, ContaminationReport, Item, OverlapKind
from k2think.schemas.scores import Domain, Task
from k2think.training.data.reading import file_sha256, files_of, rows_of
from k2think.training.data.texts import texts_of
from typer.testing import CliRunner

DOCUMENT = Path(__file__).parents[2] / "docs" / "data.md"
SAMPLES = Path(__file__).parent / "samples"
DECLARED = "all of its SFT data; it was trained from nothing"


def item(name: str, prompt: str) -> Item:
    return Item(task=Task(id=name, domain=Domain.math, source="s", prompt=prompt, truth="1"), subset="s")


ITEMS = [item(f"p{number}", one.problem) for number, one in enumerate(PLANTED)]


def said(asked: str, answered: str = "No.") -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Training data with the first problem asked, the second in an answer, the third with other numbers."""
    path = tmp_path / "sft.jsonl"
    rows = [
        said("Good morning."),
        said(FORMS["between instructions"](PLANTED[0])),
        said("Tell me a problem.", PLANTED[1].problem),
        said(FORMS["with other numbers"](PLANTED[2])),
        said(PLANTED[3].told_anew),
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(data: Path, **options: Any) -> ContaminationReport:
    return search("suite", ITEMS, [str(data)], SearchOptions(**{"quiet": True, **options}))


def statuses(report: ContaminationReport) -> dict[str, str]:
    return {found.item: found.status.value for found in report.items}


def test_items_are_found_with_text_and_place(data: Path) -> None:
    report = run(data, declared=DECLARED)
    found = {one.item: one for one in report.items}
    assert statuses(report) == {
        "p0": "contaminated",
        "p1": "contaminated",
        "p2": "contaminated",
        "p3": "clean",
        "p4": "clean",
    }
    first, second, third = (found[name].overlaps[0] for name in ("p0", "p1", "p2"))
    assert (first.kind, first.place, first.coverage) == (OverlapKind.exact, "line 2, messages 1", 1.0)
    assert first.text.startswith("a rectangular garden is 24 metres long")
    assert second.place == "line 3, messages 2"
    assert (third.kind, third.similarity) == (OverlapKind.ngram13, 1.0)
    assert report.looked_at[0].records == 5
    assert report.looked_at[0].sha256 == file_sha256(data)
    assert report.data_sha256 == data_sha256(ITEMS)


def test_undeclared_data_makes_nothing_clean(data: Path) -> None:
    report = run(data)
    assert set(statuses(report).values()) == {"contaminated", "unknown"}
    assert report.declared is None
    with pytest.raises(InvalidRequest, match="declaration is empty"):
        run(data, declared=" ")


@pytest.mark.parametrize("bad", ['{"messages": [', '{"tokens": [1, 2, 3]}', "[]"], ids=["torn", "no_text", "list"])
def test_what_could_not_be_read_makes_nothing_clean(bad: str, data: Path) -> None:
    with data.open("a") as file:
        file.write(bad + "\n")
    report = run(data, declared=DECLARED)
    assert report.looked_at[0].unreadable == 1
    assert set(statuses(report).values()) == {"contaminated", "unknown"}


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "Solve this.", "input": PLANTED[0].problem, "output": "24"},
        {"prompt": "Hello.", "chosen": [{"role": "user", "content": PLANTED[0].problem}], "rejected": []},
        {"problem": "Another.", "generations": [PLANTED[0].problem]},
        {"prompt": "Hello.", "extra": {"seen": [{"before": PLANTED[0].problem}]}},
    ],
    ids=["alpaca", "preference", "generations", "deep"],
)
def test_an_item_is_found_wherever_it_stands_in_a_record(row: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps(row) + "\n")
    assert statuses(run(path, declared=DECLARED))["p0"] == "contaminated"


@pytest.mark.parametrize("name", ["b.jsonl.zst", "b.jsonl"], ids=["other_kind", "empty"])
def test_a_file_that_gives_no_record_makes_nothing_clean(name: str, data: Path) -> None:
    (data.parent / name).touch()
    report = run(data.parent, declared=DECLARED)
    assert {Path(one.data).name: one.unreadable for one in report.looked_at} == {data.name: 0, name: 1}
    assert set(statuses(report).values()) == {"contaminated", "unknown"}
    assert name in to_markdown(report)


def test_the_weakest_kind_that_counts_can_be_chosen(data: Path) -> None:
    report = run(data, declared=DECLARED, weakest=OverlapKind.exact)
    assert statuses(report)["p2"] == "clean"
    # What does not count is told all the same.
    assert [one.overlaps[0].kind for one in report.items if one.item == "p2"] == [OverlapKind.ngram13]
    assert statuses(run(data, declared=DECLARED, problems_only=True))["p1"] == "clean"


def test_many_matches_are_counted_and_the_surest_shown(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    half = FORMS["its first half"](PLANTED[0])
    path.write_text("\n\n".join([half] * 7 + [PLANTED[0].problem]))
    found = run(path, declared=DECLARED).items[0]
    assert (found.matches, len(found.overlaps)) == (8, 5)
    assert [overlap.kind for overlap in found.overlaps[:2]] == [OverlapKind.exact, OverlapKind.ngram13]
    assert found.overlaps[0].place == "line 15, text"


def test_parquet_is_searched_as_well(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra `train`)")
    from pyarrow import parquet

    path = tmp_path / "x.parquet"
    parquet.write_table(pa.table({"problem": ["nothing", PLANTED[4].problem]}), path)
    report = run(path, declared=DECLARED)
    assert [one.overlaps[0].place for one in report.items if one.overlaps] == ["row 2, problem"]


def test_the_report_is_written_as_json_and_markdown(data: Path, tmp_path: Path) -> None:
    report = run(data, declared="everything | <b>really</b>", target="ours")
    paths = write(report, tmp_path / "deep" / "found.v1")
    assert [path.name for path in paths] == ["found.v1.json", "found.v1.md"]
    assert ContaminationReport.model_validate_json(paths[0].read_bytes()) == report
    text = paths[1].read_text()
    assert text == to_markdown(report)
    assert "| contaminated | 3 | 60.0% |" in text
    assert "| clean | 2 | 40.0% |" in text
    assert "<b>" not in text
    assert "everything \\| " in text


def test_the_command_takes_a_suite_and_a_run(data: Path, tmp_path: Path) -> None:
    suite = tmp_path / "items.jsonl"
    suite.write_text("".join(one.model_dump_json() + "\n" for one in ITEMS))
    words = ["contamination", str(suite), "--against", str(data), "--declared", DECLARED, "-o", str(tmp_path / "found")]
    told = CliRunner().invoke(app, words)
    assert told.exit_code == 0, told.output
    assert told.stdout.startswith(f"# Contamination of {str(suite).replace('_', chr(92) + '_')}")
    from_run = CliRunner().invoke(app, ["contamination", str(tmp_path), "--against", str(data), "--json"])
    assert from_run.exit_code == 0, from_run.output
    assert {one["status"] for one in json.loads(from_run.stdout)["items"]} == {"contaminated", "unknown"}
    refused = CliRunner().invoke(app, ["contamination", str(tmp_path), "--against", str(data), "--n", "3"])
    assert isinstance(refused.exception, InvalidRequest)
    missing = CliRunner().invoke(app, ["contamination", str(suite), "--against", str(tmp_path / "nowhere.jsonl")])
    assert isinstance(missing.exception, NotFound)


PUBLISHED = {
    "aime_2024": "aime_2024",
    "aime_2025": "aime_2025",
    "hmmt_2025": "hmmt_2025",
    "omni_math_hard": "omni_math",
    "livecodebench_v5": "livecodebench",
    "scicode": "scicode",
    "gpqa_diamond": "gpqa",
    "hle": "hle",
}


@pytest.mark.parametrize("name", PUBLISHED, ids=str)
def test_published_suites_are_read_as_they_are_published(name: str) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra `train`)")
    folder = SAMPLES / PUBLISHED[name]
    options = {"targets_file": folder / "test_data.h5"} if name == "scicode" else {}
    read = [
        " ".join(normal_words(text))
        for file in files_of([folder])
        for one in rows_of(file)
        for _field, text in texts_of(one.row or {}, problems_only=True)
    ]
    # The problem of every item, without what the suite puts around it, is what is looked for.
    for one in suite(name, SuiteOptions(path=folder, **options)):
        asked = " ".join(normal_words(one.task.prompt))
        assert any(text and text in asked for text in read), one.task.id


def test_fresh_problems_of_mini_are_not_in_other_fresh_problems_of_mini(tmp_path: Path) -> None:
    # Given problems of the same templates from two draws
    words = ["contamination", "mini", "--n", "32", "--seed", "5", "--json", "--against"]
    other = tmp_path / "other.jsonl"
    own = suite("mini", SuiteOptions(n=32, seed=5))
    others = [
        one for one in suite("mini", SuiteOptions(n=32, seed=6)) if one.task.prompt not in {x.task.prompt for x in own}
    ]
    other.write_text("".join(one.model_dump_json() + "\n" for one in [*others, own[7]]))
    # Then templates are no sign, and a problem itself is
    told = CliRunner().invoke(app, [*words, str(other)])
    found = json.loads(told.stdout)["items"]
    assert [one["item"] for one in found if one["status"] == Cleanliness.contaminated.value] == [own[7].task.id]


def test_the_table_of_the_documentation_is_this_run() -> None:
    section = re.search(r"<!-- planted -->\n(.*?)\n<!-- /planted -->", DOCUMENT.read_text(), re.DOTALL)
    assert section is not None
    assert section[1] == table(), "python tests/harness/planted_overlaps.py prints the table of docs/data.md"
