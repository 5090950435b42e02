"""Faults that reward functions in use have had, each planted here once more: what we claim must fail on the planted one.

The published ones are those of Guru's reference rewards; a planted function has that one fault and is else as plain as
can be. What reasoning-gym's verifiers pay for garbage: test_procedural.py.
"""

import ast
import contextlib
import json
import random
import re
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from k2think.grading import grading_counts, quick
from k2think.grading.score import score_sync
from k2think.schemas.errors import GradingError

Grade = Callable[[str, str, Any], float]
"""Source, text, truth → value."""
Claim = Callable[[Grade], None]


def ours(source: str, text: str, truth: Any) -> float:
    return score_sync(source, text, truth).value


def tagged(text: str, flags: int = re.DOTALL) -> str | None:
    found = re.findall(r"<answer>(.*?)</answer>", text, flags)
    return found[-1].strip() if found else None


def boxed(text: str) -> str | None:
    found = re.findall(r"\\boxed\{((?:[^{}]|\{[^{}]*\})*)\}", text)
    return found[-1] if found else None


# ---- An <answer> that spans lines

TABLE = {"header": ["Position", "Job"], "rows": [["1", "plumber"], ["2", "cook"]]}


def zebra_over_lines(grade: Grade) -> None:
    assert grade("logic__zebra_puzzle", f"<answer>\n{json.dumps(TABLE, indent=1)}\n</answer>", TABLE) == 1.0


def zebra_on_one_line_only(source: str, text: str, truth: Any) -> float:
    answer = tagged(text, flags=0)
    return float(answer is not None and ast.literal_eval(answer) == truth)


def ordering_over_lines(grade: Grade) -> None:
    assert grade("logic__ordering_puzzle", "<answer>\n['owl',\n 'jay']\n</answer>", ["owl", "jay"]) == 1.0


def graph_over_lines(grade: Grade) -> None:
    assert grade("logic__graph_logical", "<answer>\nfdebme\n</answer>", "fdebme") == 1.0


def text_on_one_line_only(source: str, text: str, truth: Any) -> float:
    return float(tagged(text, flags=0) == truth)


# ---- Limits by SIGALRM


def in_a_thread(grade: Grade) -> None:
    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(grade, "math", r"\boxed{2\sqrt{2}}", r"\sqrt{8}").result() == 1.0


def limited_by_an_alarm(source: str, text: str, truth: Any) -> float:
    def ring(*_: object) -> None:
        raise TimeoutError

    try:
        signal.signal(signal.SIGALRM, ring)  # fails outside the main thread
    except Exception:
        return 0.0
    return 1.0


# ---- Choices


def no_answer_earns_nothing(grade: Grade) -> None:
    assert sum(grade("stem__supergpqa", f"I cannot tell.\n\nAttempt {n}.", "C") for n in range(200)) == 0.0


def chance(source: str, text: str, truth: Any) -> float:
    return float(random.choice("ABCDEFGHIJ") == truth) if boxed(text) is None else 0.0


def a_word_is_no_letter(grade: Grade) -> None:
    for word, letter in (("Energy", "E"), ("DNA", "A"), ("Increases", "I"), (r"\text{Both}", "B")):
        assert grade("stem__supergpqa", rf"\boxed{{{word}}}", letter) == 0.0, word
    assert grade("stem__supergpqa", r"\boxed{E}", "E") == 1.0


def a_letter_somewhere(source: str, text: str, truth: Any) -> float:
    inside = boxed(text) or ""
    return float(next((letter for letter in "ABCDEFGHIJ" if letter in inside), None) == truth)


# ---- Mathematics


def sets_have_no_order(grade: Grade) -> None:
    assert grade("math", r"\boxed{\{1,2\}}", r"\{2,1\}") == 1.0
    assert grade("math", r"\boxed{\{1,3\}}", r"\{2,1\}") == 0.0


def sets_item_by_item(source: str, text: str, truth: Any) -> float:
    first, second = (re.findall(r"\d+", side) for side in (boxed(text) or "", truth))
    return float(first == second)


def a_decimal_rounds_pi(grade: Grade) -> None:
    assert grade("math", r"\boxed{6.28}", r"2\pi") == 1.0
    assert grade("math", r"\boxed{2\pi}", "6.28") == 1.0
    assert grade("math", r"\boxed{6.29}", r"2\pi") == 0.0


def a_misspelt_argument(source: str, text: str, truth: Any) -> float:
    try:
        return float(bool(quick(boxed(text) or "", truth, tiemout=True)))  # type: ignore[call-arg]
    except Exception:
        return 0.0


def thinking_that_never_ended_is_no_answer(grade: Grade) -> None:
    assert grade("math", r"<think>Perhaps \boxed{5}? Let me check", "5") == 0.0
    assert grade("math", r"<think>Perhaps 4.</think>\boxed{5}", "5") == 1.0


def whatever_follows_a_tag_if_there_is_one(source: str, text: str, truth: Any) -> float:
    return float(boxed(text.split("</think>")[-1]) == truth)


def prose_is_no_answer(grade: Grade) -> None:
    assert grade("math", "I looked at 3 and at 5 and am not sure about either of them.\nSorry.", "5") == 0.0
    assert grade("math", "I get:\n\n5", "5") == 1.0


def the_last_number(source: str, text: str, truth: Any) -> float:
    numbers = re.findall(r"\d+", text)
    return float(bool(numbers) and numbers[-1] == truth)


def a_question_handed_back_is_no_answer(grade: Grade) -> None:
    assert grade("math", r"\boxed{347+58}", "405") == 0.0
    assert grade("math", r"\boxed{405}", "405") == 1.0


def equality_alone(source: str, text: str, truth: Any) -> float:
    return float(quick(boxed(text) or "", truth) is True)


# ---- Simulation


def the_thought_is_no_answer(grade: Grade) -> None:
    thought = '<think>\n```json\n{"output": 42}\n```\nNo, wrong.</think>\n'
    assert grade("simulation__codeio", thought + '```json\n{"output": 41}\n```', '"output": 42') == 0.0
    assert grade("simulation__codeio", thought + "I give up.\nSorry.", '"output": 42') == 0.0
    assert grade("simulation__codeio", '```json\n{"output": 42}\n```', '"output": 42') == 1.0


def the_first_block(source: str, text: str, truth: Any) -> float:
    blocks = re.findall(r"```(?:json)?\s*([\s\S]*?)```", text)
    return float(bool(blocks) and json.loads(blocks[0]) == json.loads("{" + truth + "}"))


# ---- Code in an answer


def code_is_not_run(grade: Grade) -> None:
    for source, truth in (
        ("table__finqa", "1"),
        ("logic__ordering_puzzle", ["1"]),
        ("simulation__codeio", '"output": 1'),
    ):
        CANARY.unlink(missing_ok=True)
        for text in (
            f"<answer>{CANARY_CODE}</answer>",
            rf"\boxed{{{CANARY_CODE}}}",
            f"<answer>[{CANARY_CODE}]</answer>",
        ):
            assert grade(source, text, truth) == 0.0
        assert not CANARY.exists(), f"{source} ran the answer"


CANARY = Path("canary-of-the-grader")
CANARY_CODE = f"open({str(CANARY)!r}, 'w').close()"


def evaluated(source: str, text: str, truth: Any) -> float:
    with contextlib.suppress(Exception):
        return float(eval(tagged(text) or boxed(text) or "") == truth)  # noqa: S307
    return 0.0


# ---- Grids and tables


def no_grid_is_no_grid(grade: Grade) -> None:
    assert grade("logic__arcagi1", "I see no rule.\nSorry.", [[0]]) == 0.0
    assert grade("logic__arcagi1", "<answer>[[0]]</answer>", [[0]]) == 1.0


def zero_for_want_of_a_grid(source: str, text: str, truth: Any) -> float:
    answer = tagged(text)
    return float((json.loads(answer) if answer else [[0]]) == truth)


def a_row_too_many_is_not_right(grade: Grade) -> None:
    longer = {**TABLE, "rows": [*TABLE["rows"], ["3", "thief"]]}
    assert grade("logic__zebra_puzzle", f"<answer>{json.dumps(longer)}</answer>", TABLE) < 1.0
    assert grade("logic__zebra_puzzle", f"<answer>{json.dumps(TABLE)}</answer>", TABLE) == 1.0


def the_cells_of_the_truth(source: str, text: str, truth: Any) -> float:
    rows = json.loads(tagged(text) or "{}")["rows"]
    return float(all(rows[r][c] == cell for r, row in enumerate(truth["rows"]) for c, cell in enumerate(row)))


# ---- Failures


def a_failing_check_is_an_error(grade: Grade) -> None:
    before = grading_counts().get("score_error", 0)
    for source, truth in (("logic__arcagi1", "no grid"), ("logic__zebra_puzzle", {"rows": 5}), ("math", None)):
        try:
            value = grade(source, "<answer>[[1]]</answer>", truth)
        except GradingError:
            continue
        raise AssertionError(f"{source}: {value} for a truth that is none")
    assert grading_counts()["score_error"] == before + 3


def zero_for_a_failure(source: str, text: str, truth: Any) -> float:
    try:
        return float(json.loads(tagged(text) or "") == json.loads(truth))
    except Exception:
        return 0.0


# ---- Judges


async def fooled(question: str, truth: str, answer: str) -> bool:
    """A judge that calls everything correct, as models do with these answers."""
    return True


def master_keys_pass_no_judge(grade: Grade) -> None:
    for key in (":", "Thought process:", ".", "Solution", "Let's solve this problem step by step."):
        assert grade("stem_web", rf"\boxed{{{key}}}", "Krebs cycle") == 0.0, key
    assert grade("stem_web", r"\boxed{citric acid cycle}", "Krebs cycle") == 1.0


def judged(source: str, text: str, truth: Any) -> float:
    return score_sync(source, text, truth, judge=fooled).value


def judged_whatever_it_says(source: str, text: str, truth: Any) -> float:
    return float(boxed(text) is not None)


async def broken(question: str, truth: str, answer: str) -> bool:
    raise ConnectionResetError("the judge's server went away")


def a_judge_that_fails_is_an_error(grade: Grade) -> None:
    try:
        value = grade("stem_web", r"\boxed{citric acid cycle}", "Krebs cycle")
    except GradingError:
        return
    raise AssertionError(f"{value} without a verdict")


def judged_by_the_broken(source: str, text: str, truth: Any) -> float:
    return score_sync(source, text, truth, judge=broken).value


def zero_without_a_verdict(source: str, text: str, truth: Any) -> float:
    return 0.0


FAULTS: dict[str, tuple[Claim, Grade, Grade]] = {
    "zebra: answers over lines": (zebra_over_lines, ours, zebra_on_one_line_only),
    "ordering: answers over lines": (ordering_over_lines, ours, text_on_one_line_only),
    "graph: answers over lines": (graph_over_lines, ours, text_on_one_line_only),
    "SIGALRM in a thread": (in_a_thread, ours, limited_by_an_alarm),
    "supergpqa: chance": (no_answer_earns_nothing, ours, chance),
    "supergpqa: letters in words": (a_word_is_no_letter, ours, a_letter_somewhere),
    "math: order in sets": (sets_have_no_order, ours, sets_item_by_item),
    "math: the misspelt argument": (a_decimal_rounds_pi, ours, a_misspelt_argument),
    "math: unfinished thinking": (thinking_that_never_ended_is_no_answer, ours, whatever_follows_a_tag_if_there_is_one),
    "math: numbers in prose": (prose_is_no_answer, ours, the_last_number),
    "math: the question handed back": (a_question_handed_back_is_no_answer, ours, equality_alone),
    "codeio: the first block": (the_thought_is_no_answer, ours, the_first_block),
    "table, ordering: eval": (code_is_not_run, ours, evaluated),
    "arc: credit for no grid": (no_grid_is_no_grid, ours, zero_for_want_of_a_grid),
    "zebra: rows beyond the truth": (a_row_too_many_is_not_right, ours, the_cells_of_the_truth),
    "all: zero for a crash": (a_failing_check_is_an_error, ours, zero_for_a_failure),
    "judge: master keys": (master_keys_pass_no_judge, judged, judged_whatever_it_says),
    "judge: zero for a failure": (a_judge_that_fails_is_an_error, judged_by_the_broken, zero_without_a_verdict),
}


@pytest.mark.parametrize("name", FAULTS)
def test_we_do_not_have_the_fault(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    claim, grade, _ = FAULTS[name]
    claim(grade)


@pytest.mark.parametrize("name", FAULTS)
def test_the_claim_fails_on_the_fault(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    claim, _, planted = FAULTS[name]
    with pytest.raises(AssertionError):
        claim(planted)
