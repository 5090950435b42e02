"""Laws that equivalence and extraction keep for generated input."""

import asyncio
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st
from k2think.grading import canonical, equivalent, extract_answer, matches_form, quick
from k2think.schemas.checks import AnswerForm

FORMS = st.none() | st.sampled_from(list(AnswerForm))
NUMBERS = st.fractions(max_denominator=1000)
# the pieces that answers are made of, so that random text reaches every reader
FRAGMENTS = st.lists(
    st.sampled_from(
        [
            *"()[]{},;=<>+-*/^_|%$°.: ",
            "\\",
            "\\frac",
            "\\{",
            "\\}",
            "\\sqrt",
            "\\pm",
            "\\cup",
            "\\in",
            "\\le",
            "\\text{",
            "\\pi",
            "\\begin{pmatrix}",
            "\\end{pmatrix}",
            "\\\\",
            "&",
            "12",
            "3.5",
            "0",
            "1,234",
            "x",
            "B",
            "cm",
            "or",
            "½",
            "²",
            "√",
            "e9",
        ]
    ),
    max_size=14,
).map("".join)


def _notations(value: Fraction) -> list[str]:
    n, d = value.numerator, value.denominator
    return [f"{n}/{d}", rf"\frac{{{n}}}{{{d}}}", rf"$\dfrac{{{2 * n}}}{{{2 * d}}}$", f"({n}) / {d}", f"{n * 100}/{d}%"]


@given(NUMBERS, st.data())
def test_notations_of_a_number_are_equal(value: Fraction, data: st.DataObject) -> None:
    a, b = (data.draw(st.sampled_from(_notations(value))) for _ in "ab")
    assert quick(a, b) is True
    assert canonical(a) == canonical(b)


@given(NUMBERS, NUMBERS)
def test_quick_agrees_with_arithmetic(x: Fraction, y: Fraction) -> None:
    for a in _notations(x)[:2]:
        assert quick(a, str(y)) is (x == y)


@given(st.lists(st.integers(-99, 99), min_size=2, max_size=6, unique=True), st.randoms(use_true_random=False))
def test_sets_ignore_order_and_tuples_keep_it(items: list[int], random: object) -> None:
    shuffled = list(items)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, two = (", ".join(map(str, x)) for x in (items, shuffled))
    assert quick("{" + one + "}", r"\{" + two + r"\}") is True
    assert quick(f"({one})", f"({two})") is (items == shuffled)


@settings(max_examples=300)
@given(FRAGMENTS | st.text(max_size=40), FRAGMENTS | st.text(max_size=40), FORMS)
def test_total_reflexive_symmetric(a: str, b: str, form: AnswerForm | None) -> None:
    assert quick(a, a, form=form) is True
    assert quick(a, b, form=form) == quick(b, a, form=form)
    if canonical(a, form=form) == canonical(b, form=form):
        assert quick(a, b, form=form) is not False
    if form is not None:
        matches_form(a, form)
    extract_answer(a + b, form=form)


@settings(max_examples=25, deadline=None)
@given(st.integers(-20, 20), st.integers(1, 20), st.integers(1, 20))
def test_symbolic_agrees_with_quick(n: int, d: int, k: int) -> None:
    # the same number hidden behind a root is decided in the worker, and must come out the same
    hidden = rf"\frac{{{n}\sqrt{{{k * k}}}}}{{{d * k}}}"
    for other in (f"{n}/{d}", f"{n + 1}/{d}"):
        assert asyncio.run(equivalent(hidden, other, limit_s=20)) is quick(f"{n}/{d}", other)


ANSWERS = st.sampled_from(
    ["42", "-1/2", r"\frac{1}{2}", r"\{1,2\}", "x^2+1", "(1, 2)", "New York", "a\nb", r"\sqrt{2}"]
)


@given(st.text(max_size=60).filter(lambda t: "<" not in t), ANSWERS, ANSWERS)
def test_last_answer_wins(prose: str, first: str, last: str) -> None:
    for wrap in ("<answer>{}</answer>", r"\boxed{{{}}}"):
        text = (
            prose + wrap.format(first) + prose.replace("\\", "").replace("{", "").replace("}", "") + wrap.format(last)
        )
        found = extract_answer(text)
        assert found is not None
        assert found.answer == last


@given(ANSWERS)
def test_extraction_is_idempotent_on_wrapped_answers(answer: str) -> None:
    once = extract_answer(f"<think>{answer}9</think> so <answer> {answer} </answer>")
    assert once is not None
    again = extract_answer(f"<answer>{once.answer}</answer>")
    assert again is not None
    assert again.answer == once.answer == answer
