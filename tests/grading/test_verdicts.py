"""The hand-made table of answer pairs, both ways round."""

from pathlib import Path

import pytest
from k2think.grading import canonical, equivalent_sync, quick
from k2think.schemas.checks import AnswerForm

Row = tuple[str, str, bool, AnswerForm | None, str]


def _rows() -> list[Row]:
    rows: list[Row] = []
    for line in (Path(__file__).parent / "verdicts.tsv").read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            a, b, verdict, form, why = line.split("\t")
            assert verdict in ("same", "different"), line
            rows.append((a, b, verdict == "same", None if form == "-" else AnswerForm(form), why))
    return rows


ROWS = _rows()


def test_table_is_large_and_without_repetition() -> None:
    assert len(ROWS) >= 150
    assert len({(a, b, form) for a, b, _, form, _ in ROWS}) == len(ROWS)


@pytest.mark.parametrize(("a", "b", "same", "form", "why"), ROWS, ids=[f"{i}-{r[4]}" for i, r in enumerate(ROWS)])
def test_verdict(a: str, b: str, same: bool, form: AnswerForm | None, why: str) -> None:
    assert equivalent_sync(a, b, form=form, limit_s=20) is same
    assert equivalent_sync(b, a, form=form, limit_s=20) is same
    assert quick(a, b, form=form) in (same, None)
    if not same:
        assert canonical(a, form=form) != canonical(b, form=form)
