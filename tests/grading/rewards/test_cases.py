"""The hand-made cases of every domain but code."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from harness.reward_cases import FILES, Case, read_cases
from k2think.grading import sandbox_problem
from k2think.grading.rewards.sources import PREFIXES
from k2think.grading.score import check_of, score_sync
from k2think.schemas.errors import GradingError
from k2think.schemas.scores import Domain

CASES = read_cases()
HERE = [case for case in CASES if not case.source.startswith("reasoning_gym:")]
"""Those that need no other process than that of symbolic mathematics; the others are test_procedural.py's."""


def test_the_tables_are_large_without_repetition_and_cover_every_domain() -> None:
    assert len(CASES) >= 250
    assert len({(c.source, c.text, str(c.truth), str(c.meta)) for c in CASES}) == len(CASES)
    assert not [name for name, count in Counter((c.file, c.source, c.why) for c in CASES).items() if count > 2]
    for file in FILES:
        mine = [case for case in CASES if case.file == file]
        assert len(mine) >= 25
        assert {0.0, 1.0} <= {case.value for case in mine}, "what is right and what is wrong"
    checks = {check_of(c.source, c.truth, c.meta) for c in CASES if c.reason != "error"}
    assert len(checks) == 11, "every check but code's, which has tests of its own"


@pytest.mark.parametrize("case", HERE, ids=[f"{case.file}-{place}-{case.why}" for place, case in enumerate(HERE)])
def test_case(case: Case) -> None:
    if case.value is None:
        with pytest.raises(GradingError):
            score_sync(case.source, case.text, case.truth, case.meta)
        return
    scored = score_sync(case.source, case.text, case.truth, case.meta)
    assert (scored.value, scored.reason) == (pytest.approx(case.value), case.reason), scored
    assert scored.correct == (case.value == 1.0)
    assert (scored.answer is None) == (case.reason == "no_answer")


BAD_TRUTHS: list[tuple[str, Any, dict[str, Any]]] = [
    ("math", None, {}),
    ("math", "", {}),
    ("math", [], {}),
    ("math", {"a": 1}, {}),
    ("math", True, {}),
    ("math", "5", {"answer_form": "poem"}),
    ("science", "nonsense", {"choices": ["a", "b"]}),
    ("stem__supergpqa", "Energy", {}),
    ("science", "A", {"choices": ["only one"]}),
    ("stem_web", None, {}),
    ("stem_web", "5", {"tolerance": "much"}),
    ("logic__zebra_puzzle", {"rows": []}, {}),
    ("logic__zebra_puzzle", "no table", {}),
    ("logic__zebra_puzzle", {"header": ["a", "b"], "rows": [["1"]]}, {}),
    ("logic__ordering_puzzle", [], {}),
    ("logic__ordering_puzzle", 5, {}),
    ("logic__graph_logical", None, {}),
    ("logic__arcagi1", [[]], {}),
    ("logic__arcagi1", [[1, "x"]], {}),
    ("logic__arcagi1", "[[1, 2", {}),
    ("simulation__codeio", None, {}),
    ("simulation__codeio", '"output":', {}),
    ("simulation__cruxeval-i", {"functional": "def f(x):\n    return x"}, {}),
    ("table__hitab", None, {}),
    ("table__hitab", "|", {}),
    ("procedural", "5", {}),
    ("mini:words", None, {}),
]


@pytest.mark.parametrize(("domain", "truth", "meta"), BAD_TRUTHS, ids=range(len(BAD_TRUTHS)))
def test_a_truth_that_is_no_reference_is_an_error_and_never_a_zero(
    domain: str, truth: Any, meta: dict[str, Any]
) -> None:
    with pytest.raises(GradingError):
        score_sync(domain, "<answer>5</answer>", truth, meta)


@pytest.mark.parametrize("domain", list(Domain))
def test_a_domain_alone_is_checked_by_what_is_known_of_the_problem(domain: Domain) -> None:
    known: dict[Domain, list[tuple[Any, dict[str, Any], str]]] = {
        Domain.math: [("5", {}, "math")],
        Domain.code: [(None, {}, "code")],
        Domain.science: [("C", {}, "choice"), ("left", {"choices": ["left", "right"]}, "choice"), ("5 m", {}, "free")],
        Domain.logic: [
            ({"rows": []}, {}, "zebra"),
            ([[1]], {}, "grid"),
            (["a"], {}, "ordering"),
            ("abc", {}, "graph"),
            ("[[1]]", {"source": "logic__barc"}, "grid"),
        ],
        Domain.simulation: [(5, {}, "simulation"), (5, {"source": "simulation__cruxeval-o"}, "cruxeval")],
        Domain.table: [("a|b", {}, "table")],
        Domain.procedural: [("5", {"source": "mini:words"}, "generator")],
    }
    for truth, meta, check in known[domain]:
        assert check_of(domain, truth, meta) == check
        assert check_of(domain.value, truth, meta) == check


@pytest.mark.skipif(bool(sandbox_problem()), reason="no sandbox on this machine")
def test_a_predicted_input_is_tried_in_the_sandbox() -> None:
    """CRUXEval-I: any input that leads to the result is right, and nothing but literals reaches the function."""
    truth = {"functional": "def f(text, n):\n    return sorted(text * n)"}
    question = "assert f(??) == 17\n[PYTHON]\ndef f(text, n): ...\nassert f(??) == ['a', 'a']\n[/PYTHON]"
    for answer, reason in (
        ("assert f('a', 2) == ['a', 'a']", "tests_passed"),
        ("f('aa', 1)", "tests_passed"),
        ("['a', 'a'], 1", "tests_passed"),
        ("assert f('b', 2) == ['a', 'a']", "tests_failed"),
        ("assert f('b', 2) == ['b', 'b']", "tests_failed"),
        ("assert f(__import__('os').environ, 2) == ['a', 'a']", "wrong_form"),
        ("assert f(type('x', (), {}), 2) == ['a', 'a']", "wrong_form"),
    ):
        scored = score_sync("simulation__cruxeval-i", f"[ANSWER]\n{answer}\n[/ANSWER]", truth, {"question": question})
        assert scored.reason == reason, answer
        assert scored.correct == (reason == "tests_passed")


def test_the_guide_names_every_reason_and_every_source() -> None:
    root = Path(__file__).parents[3]
    guide = (root / "docs" / "rewards.md").read_text(encoding="utf-8")
    explained = set(re.findall(r"`(\w+)`", guide.partition("## Reasons")[2].partition("## The judge")[0]))
    modules = [file.read_text(encoding="utf-8") for file in (root / "grading" / "rewards").glob("*.py")]
    given = {reason for text in modules for reason in re.findall(r"(?:right|wrong)\(\s*\"(\w+)\"", text)}
    assert len(given) > 8
    assert given <= explained
    assert {case.reason for case in CASES} - {"error"} <= explained
    assert not [prefix for prefix, _ in PREFIXES if not re.search(rf"`{re.escape(prefix.rstrip('_'))}", guide)]
