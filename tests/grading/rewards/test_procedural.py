"""Generated problems: reasoning-gym's own verifiers in a process of their own, guarded, and what fails loudly."""

import importlib.util
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from harness.reward_cases import Case, read_cases
from k2think.grading.rewards.procedural import close_gym_pool, gym_pool
from k2think.grading.score import score_sync
from k2think.schemas.errors import ConfigurationError, GradingError

CASES = [case for case in read_cases() if case.source.startswith("reasoning_gym:")]
PREMISES: dict[str, Any] = {"metadata": {"variables": ["P", "Q"], "premises": ["P", "(P → Q)"]}}


@pytest.fixture(scope="module", autouse=True)
def gym_ends() -> Iterator[None]:
    yield
    close_gym_pool()


@pytest.mark.parametrize("case", CASES, ids=[f"{place}-{case.why}" for place, case in enumerate(CASES)])
def test_case(case: Case) -> None:
    scored = score_sync(case.source, case.text, case.truth, case.meta)
    assert (scored.value, scored.reason) == (case.value, case.reason), scored


def by_us(name: str, answer: str, truth: str | None, meta: dict[str, Any]) -> float:
    return score_sync(f"reasoning_gym:{name}", f"<answer>{answer}</answer>", truth, meta).value


def by_the_library_alone(name: str, answer: str, truth: str | None, meta: dict[str, Any]) -> float:
    entry = {"question": "", "answer": truth, "metadata": {}, **meta}
    return gym_pool().submit(name, answer, entry).result()["value"]


GARBAGE: list[tuple[str, str, str | None, dict[str, Any]]] = [
    ("propositional_logic", "(P ∨ ¬P)", None, PREMISES),
    ("propositional_logic", "x", None, PREMISES),
    ("game_of_life_halting", "banana", "True", {}),
    ("chain_sum", "12 or 13 or 14", "12", {}),
    ("countdown", "no idea", "1+2", {"metadata": {"numbers": [1, 2], "target": 3}}),
]


@pytest.mark.parametrize(("name", "answer", "truth", "meta"), GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_for_which_the_library_pays_earns_nothing(
    name: str, answer: str, truth: str | None, meta: dict[str, Any]
) -> None:
    assert by_the_library_alone(name, answer, truth, meta) > 0.0
    assert by_us(name, answer, truth, meta) == 0.0


def test_partial_credit_is_for_those_who_ask_and_above_what_garbage_earns() -> None:
    scrambled = {"metadata": {}, "answer": "alpha beta gamma delta", "question": ""}
    meta: dict[str, Any] = {"entry": {**scrambled, "metadata": {}}}
    answer = "<answer>it is alpha beta gamma delta</answer>"
    assert score_sync("reasoning_gym:chain_sum", answer, None, meta).value == 0.0
    scored = score_sync("reasoning_gym:chain_sum", answer, None, {**meta, "partial": True})
    assert 0.0 < scored.value < 1.0
    assert not scored.correct


@pytest.mark.parametrize("name", ["rearc", "chain_sum", "number_sorting", "graph_color", "list_functions"])
def test_a_generators_own_entry_survives_json(name: str) -> None:
    entries = ENTRIES[name]
    for entry in json.loads(json.dumps(entries)):
        good = entry.pop("good", entry["answer"])
        scored = score_sync(f"reasoning_gym:{name}", f"<answer>\n{good}\n</answer>", entry["answer"], {"entry": entry})
        assert scored.correct, (name, scored)
        scored = score_sync(f"reasoning_gym:{name}", "<answer>-77</answer>", entry["answer"], {"entry": entry})
        assert scored.value == 0.0, (name, scored)


ENTRIES: dict[str, list[dict[str, Any]]] = {
    "rearc": [{"question": "", "answer": "1 2\n3 4", "metadata": {"output": [[1, 2], [3, 4]]}}],
    "chain_sum": [{"question": "5 + 7 =", "answer": "12", "metadata": {"difficulty": {}}}],
    "number_sorting": [{"question": "", "answer": "['1', '2', '30']", "metadata": {"direction": "ascending"}}],
    "graph_color": [
        {
            "question": "",
            "answer": None,
            "good": '{"0": 1, "1": 2}',
            "metadata": {"puzzle": {"vertices": [0, 1], "edges": [[0, 1]], "num_colors": 2, "color_options": [1, 2]}},
        }
    ],
    "list_functions": [{"question": "", "answer": "[]", "metadata": {}}],
}
"""Written by hand in the form that the library makes."""


def test_an_unknown_generator_is_named_with_its_neighbours() -> None:
    with pytest.raises(ConfigurationError, match=re.escape("no generator 'chain_sums'; did you mean chain_sum")):
        score_sync("reasoning_gym:chain_sums", "<answer>5</answer>", "5")


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("k2think.grading.rewards.procedural.find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=re.escape("pip install 'k2think[procedural]'")):
        score_sync("reasoning_gym:chain_sum", "<answer>5</answer>", "5")
    assert importlib.util.find_spec("reasoning_gym") is not None


@pytest.mark.parametrize(
    ("source", "truth", "meta"),
    [
        ("reasoning_gym:chain_sum", "5", {"entry": [1]}),
        ("reasoning_gym:propositional_logic", "Q", {"metadata": {}}),
        ("reasoning_gym:number_sorting", "no list", {}),
        ("logic__reasoning_gym", "5", {}),
        ("procedural", "5", {}),
    ],
    ids=range(5),
)
def test_an_entry_that_its_own_verifier_refuses_is_an_error(source: str, truth: str, meta: dict[str, Any]) -> None:
    with pytest.raises(GradingError):
        score_sync(source, "<answer>5</answer>", truth, meta)
