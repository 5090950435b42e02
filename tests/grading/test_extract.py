"""Where the final answer is found, and where none is."""

import pytest
from k2think.grading import extract_answer
from k2think.schemas.checks import AnswerForm

C, CODE, TEXT = AnswerForm.choice, AnswerForm.code, AnswerForm.text

FOUND = [
    ("<think>1</think><answer>405</answer>", None, "405", "answer_tag"),
    ("<answer>1</answer> no: <answer>2</answer>", None, "2", "answer_tag"),
    ("<answer>1</answer> <answer></answer>", None, "1", "answer_tag"),
    ("<answer>\nA = 1\nB = 2\n</answer>", None, "A = 1\nB = 2", "answer_tag"),  # an answer that spans lines
    ("x <answer>405", None, "405", "answer_tag"),  # the engine removed the stop sequence
    ("x <answer>405</ans", None, "405", "answer_tag"),
    (r"<answer>It is \boxed{7}.</answer> \boxed{8}", None, "7", "answer_tag"),
    ("<answer>The answer is 42.</answer>", None, "42", "answer_tag"),
    ("<ANSWER>Paris</ANSWER>", None, "Paris", "answer_tag"),
    ("<answer>(b)</answer>", C, "B", "answer_tag"),
    ("<answer>B) Paris</answer>", C, "B", "answer_tag"),
    (r"<think>\boxed{1}</think> \boxed{\frac{1}{2}}", None, r"\frac{1}{2}", "boxed"),
    (r"\boxed{\{1,2\}}", None, r"\{1,2\}", "boxed"),
    (r"\boxed{1} then \boxed{2", None, "1", "boxed"),  # the last one is cut off
    (r"\fbox{9}", None, "9", "boxed"),
    (r"so \boxed 5.", None, "5", "boxed"),
    (r"\boxed{\text{B}}", C, "B", "boxed"),
    (r"\boxed{Energy}", C, "Energy", "boxed"),  # never E
    (r"\boxed{\boxed{3}}", None, "3", "boxed"),
    ("The answer is (B).", None, "B", "choice"),
    ("The correct answer is **C**", C, "C", "choice"),
    ("Answer: D", None, "D", "choice"),
    ("Answer: (C)\n\nThe other choice is wrong because the result is negative.", C, "C", "choice"),
    ("**Answer: C**\n\nWhy not B: that option is incorrect.", C, "C", "choice"),
    ("The correct answer is C.\n\nNote that the final result is 5 eV.", C, "C", "choice"),
    ("Answer: C\n\nThe answer is confirmed by the second experiment, too.", C, "C", "choice"),
    ("If the answer is A, it falls.\nSo the correct option is (B).", C, "B", "choice"),
    ("The answer is A.\nNo: the answer is B.", C, "B", "choice"),
    ("thinking...\n\n(A)", C, "A", "choice"),
    ("<think>```python\nbad\n```</think>\n```python\nprint(1)\n```\n", CODE, "print(1)", "code"),
    ("```\na\n```\ntext\n```py\nb\n```", CODE, "b", "code"),
    ("<answer>```python\nx = 1\n```</answer>", CODE, "x = 1", "code"),
    ("<answer>x = 1</answer>", CODE, "x = 1", "code"),
    ("The answer is 42.", None, "42", "number"),
    ("Therefore the final answer is: $1,234$. Done.", None, "$1,234$", "number"),
    ("**Answer:** 3/4", None, "3/4", "number"),
    ("The answer is 42.\n\nThis result is consistent with the check above, as required.", None, "42", "number"),
    ("The result is 41.\nThis choice is one that nobody would have made before", None, "41", "number"),
    ("The answer is 3.5 because of the law.", None, "3.5", "number"),
    ("We add.\n405", None, "405", "number"),
    ("We add.\n**405.**", None, "405", "number"),
    ("347 + 58 = 405", None, "405", "number"),
    ("So the total = 405.", None, "405", "number"),
    ("The answer is x = 5", None, "x = 5", "plain"),
    (r"\frac{1}{2}", None, r"\frac{1}{2}", "number"),
    ("{1, 2}", None, "{1, 2}", "plain"),
    ("yes", None, "yes", "plain"),
    ("The answer is Paris.", None, "Paris", "plain"),
    ("Paris is the capital", TEXT, "Paris is the capital", "plain"),
]
NONE = [
    ("", None),
    ("<think>the answer is 5", None),  # cut off while thinking
    ("<think>a</think> <think>the answer is 5", None),
    ("<answer></answer>", None),
    ("<answer>  \n </answer>", None),
    ("I am not sure what you mean.", None),
    ("There are 3 apples and 4 pears on the table.", None),
    ("The answer is not something that I can tell you without further information", None),
    ("The answer is a prime number which nobody here has seen so far", C),
    (r"\boxed{}", None),
    ("```python\nprint(1)", CODE),  # cut off inside the block
    ("no code here, 42", CODE),
    ("405", C),
    ("A cat sat here", C),
    ("The answer is A.\nWait, the answer is (A) or (B).", C),  # a later hedge counts
    ("The answer is A.\nNo, the answer is not A.", C),
    ("The answer is A.\nBut the answer is not something that I could prove in so short a time", None),
    ("Suppose the answer is A.\nThen the answer is blue.", C),  # another form, but the last word
]


@pytest.mark.parametrize(("text", "form", "answer", "source"), FOUND)
def test_found(text: str, form: AnswerForm | None, answer: str, source: str) -> None:
    found = extract_answer(text, form=form)
    assert found is not None
    assert (found.answer, found.source) == (answer, source)


@pytest.mark.parametrize(("text", "form"), NONE)
def test_nothing_found(text: str, form: AnswerForm | None) -> None:
    assert extract_answer(text, form=form) is None


@pytest.mark.parametrize(
    "piece", ["<answer>", "<think>", r"\boxed{", "{", "```\n", "the answer is ", "=", " ", "\n", "(", "answer: \n", "1"]
)
def test_long_repetition_ends(piece: str) -> None:
    # quadratic time here would take minutes and run into the test's time limit
    for form in (None, CODE):
        found = extract_answer(piece * (200_000 // len(piece)), form=form)
        assert found is None or len(found.answer) <= 200_000
