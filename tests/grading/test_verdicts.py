"""The hand-made table of answer pairs, both ways round."""

import asyncio
from pathlib import Path

import pytest
from k2think.grading import canonical, equivalent, quick
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
    assert asyncio.run(equivalent(a, b, form=form, limit_s=20)) is same
    assert asyncio.run(equivalent(b, a, form=form, limit_s=20)) is same
    assert quick(a, b, form=form) in (same, None)
    if not same:
        assert canonical(a, form=form) != canonical(b, form=form)


@pytest.mark.parametrize("separator", [" ", ", ", " or "])
def test_lists_too_long_to_read_are_compared_as_they_are_written(separator: str) -> None:
    long = [str(n) for n in range(201)]
    written = separator.join(long)
    for other in ([*long[:-1], "7"], [*long, *long[:50]], long[:200], long[::-1]):
        for opening, closing in (("", ""), ("(", ")")):
            assert quick(opening + written + closing, opening + separator.join(other) + closing) is False
    assert quick(written, f" {written}") is True


@pytest.mark.parametrize(
    "text", ["1e9999", "10^{2400}*10^{2400}", "9" * 400 + "e400 km^9/nm^9", "x = 10^{2400}*10^{1800}"]
)
def test_numbers_beyond_what_python_writes_have_a_canonical_form(text: str) -> None:
    assert canonical(text) == canonical(f" {text}")
    assert quick(text, "5") in (False, None)
    assert quick(text, "2x + y = 1") in (False, None)
