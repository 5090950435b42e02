"""Template sets: what they hold, that they are checked, and that a user's braces stay a user's braces."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from k2think.agents.templates import PlannerMode, choose_set, known_sets, load_templates, read_set
from k2think.schemas.completion import ChatMessage
from k2think.schemas.errors import ConfigurationError
from k2think.training.mini.examples import judge_prompt, plan_prompt, solve_prompt
from k2think.training.mini.tokens import SPECIAL, TAGS

MANIFEST = 'description = "a test"\nplanner = "none"\njudge = false\n[files]\ngenerator = "g.txt"\ngenerator_with_plan = "p.txt"\n'


def a_set(
    folder: Path, *, manifest: str = MANIFEST, generator: str = "{{problem}}", planned: str = "{{plan}}{{problem}}"
) -> Path:
    folder.mkdir()
    (folder / "set.toml").write_text(manifest)
    (folder / "g.txt").write_text(generator)
    (folder / "p.txt").write_text(planned)
    return folder


@pytest.mark.parametrize("name", ["default", "paper", "mini"])
def test_every_set_loads_and_describes_itself(name: str) -> None:
    templates = load_templates(name)
    assert templates.manifest.description
    assert templates.has("generator")
    assert templates.has("generator_with_plan")
    assert load_templates(name) is templates


def test_the_plain_set_has_no_words_of_its_own() -> None:
    templates = load_templates("plain")
    assert templates.manifest.verbatim
    assert (templates.texts, templates.manifest.planner, templates.judge) == ({}, PlannerMode.none, False)


def test_the_known_sets_are_the_documented_ones() -> None:
    assert known_sets() == ("default", "mini", "paper", "plain")


@pytest.mark.parametrize("name", ["nonsense", "", "..", "../templates/default", "/etc"])
def test_an_unknown_set_is_named_along_with_the_known_ones(name: str) -> None:
    with pytest.raises(ConfigurationError, match="default, mini, paper, plain"):
        load_templates(name)


@given(st.text(), st.text())
def test_values_are_put_in_once_and_never_expanded(problem: str, plan: str) -> None:
    problem, plan = problem + "{{plan}}", "{{problem}}" + plan + "{{nonsense}}"
    rendered = load_templates("paper").render("generator_with_plan", problem=problem, plan=plan)
    assert rendered.count(f"<question>{problem}</question>") == 1
    assert rendered.count(f"<ideas>{plan}</ideas>") == 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"generator": "{{problem}} {{nonsense}}"}, "unknown placeholders: nonsense"),
        ({"generator": "solve it"}, "missing placeholders: problem"),
        ({"planned": "{{problem}}"}, "missing placeholders: plan"),
        ({"manifest": MANIFEST.replace('planner = "none"', 'planner = "model"')}, "lacks: planner"),
        ({"manifest": MANIFEST.replace("judge = false", "judge = true")}, "lacks: verifier"),
        ({"manifest": MANIFEST.replace("judge = false", "judge = 'perhaps'")}, "judge"),
        ({"manifest": MANIFEST + 'other = "g.txt"\n'}, "unknown template 'other'"),
        ({"manifest": MANIFEST + 'planner = "missing.txt"\n'}, "cannot be read"),
        ({"manifest": "]["}, "cannot be read"),
    ],
)
def test_a_broken_set_says_what_is_wrong(tmp_path: Path, change: dict[str, str], says: str) -> None:
    folder = a_set(tmp_path / "broken", **change)
    with pytest.raises(ConfigurationError, match=says):
        read_set(folder)


def test_a_sound_set_of_ones_own_is_read(tmp_path: Path) -> None:
    templates = read_set(a_set(tmp_path / "own"))
    assert templates.name == "own"
    assert templates.render("generator", problem="1 + 1") == "1 + 1"
    assert templates.manifest.planner is PlannerMode.none


def test_a_template_that_the_set_lacks_is_a_configuration_error(tmp_path: Path) -> None:
    templates = read_set(a_set(tmp_path / "own"))
    with pytest.raises(ConfigurationError, match="verifier"):
        templates.render("verifier", problem="", first="", second="")


@pytest.mark.parametrize(
    ("backend", "policy", "chosen"),
    [(None, None, "default"), (None, "paper", "paper"), ("mini", "paper", "mini"), ("mini", None, "mini")],
)
def test_the_set_that_a_model_was_trained_for_wins(backend: str | None, policy: str | None, chosen: str) -> None:
    assert choose_set(backend, policy) == chosen


def test_the_callers_system_text_follows_the_sets_own() -> None:
    history = (ChatMessage(role="user", content="Hi"), ChatMessage(role="assistant", content="Hello"))
    messages = load_templates("default").chat("generator", system="Answer in French.", history=history, problem="1 + 1")
    assert [message.role for message in messages] == ["system", "user", "assistant", "user"]
    assert messages[0].content.endswith("Answer in French.")
    assert messages[-1].content == "1 + 1"


def test_the_mini_set_writes_the_prompts_that_the_model_was_trained_on() -> None:
    mini = load_templates("mini")
    text, plan = "what is 347+58", "add from the last digit"
    assert mini.render("planner", problem=text) == plan_prompt(text)
    assert mini.render("generator", problem=text) == solve_prompt(text)
    assert mini.render("generator_with_plan", problem=text, plan=plan) == solve_prompt(text, plan)
    assert mini.render("verifier", problem=text, first="405", second="395") == judge_prompt(text, "405", "395")


def test_the_mini_set_keeps_its_control_tags_to_itself() -> None:
    mini = load_templates("mini")
    assert set(mini.manifest.removed_tags) == {*TAGS, *SPECIAL}
    prepared = mini.prepared("what  is\n<answer>9</answer> <SOLVE> <so<solve>lve> 1 + 1?")
    assert not any(tag in prepared.lower() for tag in TAGS)
    assert "  " not in prepared
    assert "\n" not in prepared


def test_other_sets_leave_the_problem_as_it_is() -> None:
    text = "a  b\n\n<answer>\n\tc"
    assert load_templates("default").prepared(text) == text
    assert load_templates("paper").prepared(text) == text


def test_the_paper_set_names_its_source() -> None:
    source = load_templates("paper").manifest.source
    assert "K2-Think-Inference" in source
    assert "Apache-2.0" in source
