"""Which answers have the form that a task demands."""

import pytest
from k2think.grading import matches_form
from k2think.schemas.checks import AnswerForm

YES = {
    AnswerForm.number: [
        "42",
        "-3/4",
        "1,234",
        "3 1/2",
        "50%",
        "1.5e3",
        "5 cm",
        "x = 5",
        r"2\pi",
        r"\frac{\sqrt{3}}{2}",
        "$5",
    ],
    AnswerForm.integer: ["42", "-7", "1,234", "42.0", "x=5", "5 apples"],
    AnswerForm.expression: ["x^2+1", "42", r"\sin x", "y = 2x"],
    AnswerForm.choice: ["B", "(b)", r"\text{C}", "D."],
    AnswerForm.set: ["{1,2}", r"\{x, y\}", "1, 2", "5", r"x = \pm 2"],
    AnswerForm.interval: ["(1,2)", r"[1,\infty)", "x > 3", r"(0,1)\cup(2,3)", r"\emptyset"],
    AnswerForm.code: ["print(1)"],
    AnswerForm.text: ["anything at all"],
}
NO = {
    AnswerForm.number: ["347 + 58", "Paris", "{1,2}", "x", "2x", "", "(1,2)", "I do not know", "5m + 2"],
    AnswerForm.integer: ["3.5", "1/2", "347 + 58", "2^3", "Paris", r"\pi"],
    AnswerForm.expression: ["I do not know", " "],
    AnswerForm.choice: ["Energy", "42", "A cat", "BC", ""],
    AnswerForm.set: ["nobody knows"],
    AnswerForm.interval: ["5", "{1,2}", "all of them"],
    AnswerForm.code: ["  \n"],
    AnswerForm.text: [""],
}


@pytest.mark.parametrize(("form", "answer"), [(f, a) for f, answers in YES.items() for a in answers])
def test_has_the_form(form: AnswerForm, answer: str) -> None:
    assert matches_form(answer, form)


@pytest.mark.parametrize(("form", "answer"), [(f, a) for f, answers in NO.items() for a in answers])
def test_has_another_form(form: AnswerForm, answer: str) -> None:
    assert not matches_form(answer, form)
