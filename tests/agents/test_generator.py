"""The generator: the prompt, the answer apart from the reasoning, and the task's own checks."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from k2think.agents.backends.simulator import CallOutcome, Fault, FaultKind, ReasoningField, Reply
from k2think.agents.generator import generate, run_checks, visible_content
from k2think.grading import code as grading_code
from k2think.grading.sandbox import require_sandbox
from k2think.schemas.checks import AnswerForm, Checks, UnitTest
from k2think.schemas.completion import ChatMessage, FinishReason
from k2think.schemas.errors import SandboxUnavailable, StreamBroken
from k2think.schemas.messages import GenerateCandidate
from k2think.schemas.outcomes import CheckStatus
from k2think.schemas.policy import Sampling

SOLVED = "<think>7 and 8 is 15, carry.</think>The sum is <answer>405</answer>"
DOUBLE = "```python\nn = int(input())\nprint(2 * n)\n```\n"
DOUBLE_TESTS = (UnitTest(stdin="3\n", expected_stdout="6\n"), UnitTest(stdin="-1\n", expected_stdout="-2\n"))


def body(problem: str = "What is 347 + 58?", *earlier: tuple[str, str], **fields: Any) -> GenerateCandidate:
    turns = [*earlier, ("user", problem)]
    messages = tuple(ChatMessage.model_validate({"role": r, "content": c}) for r, c in turns)
    return GenerateCandidate(messages=messages, candidate=1, **fields)


def sandbox_works() -> bool:
    try:
        require_sandbox()
    except SandboxUnavailable:
        return False
    return True


async def test_reasoning_content_and_answer_come_apart(bind: Any) -> None:
    bound = await bind(
        Reply(text="The sum is <answer>405</answer>", reasoning="7 and 8 is 15", reasoning_field=ReasoningField.inline)
    )
    candidate = await generate(body(sampling=Sampling(seed=11)), bound.context)
    assert candidate.index == 1
    assert candidate.reasoning.strip() == "7 and 8 is 15"
    assert candidate.content == "The sum is 405"
    assert candidate.answer == "405"
    assert candidate.finish_reason is FinishReason.stop
    assert candidate.check is CheckStatus.none
    assert bound.context.record.answer == "405"
    assert bound.context.record.usage.total > 0


@pytest.mark.parametrize("field", list(ReasoningField))
async def test_every_way_of_sending_reasoning_is_understood(bind: Any, field: ReasoningField) -> None:
    bound = await bind(Reply(text="<answer>405</answer>", reasoning="carry one", reasoning_field=field))
    candidate = await generate(body(), bound.context)
    assert (candidate.reasoning.strip(), candidate.content, candidate.answer) == ("carry one", "405", "405")


async def test_sampling_is_passed_on_and_the_backend_limits_where_it_is_silent(bind: Any) -> None:
    bound = await bind(SOLVED, max_tokens=321)
    await generate(
        body(sampling=Sampling(temperature=0.7, top_p=0.9, seed=5, stop=("</answer>", "END"))), bound.context
    )
    await generate(body(sampling=Sampling(max_tokens=50)), bound.context)
    first, second = bound.requests
    assert (first.body["temperature"], first.body["top_p"], first.seed) == (0.7, 0.9, 5)
    assert first.stop == ("</answer>", "END")
    assert first.max_tokens == 321
    assert second.max_tokens == 50


async def test_the_plan_stands_before_the_problem(bind: Any) -> None:
    bound = await bind(SOLVED)
    await generate(body(plan="Add the ones first."), bound.context)
    await generate(body(), bound.context)
    with_plan, without = (request.messages[-1][1] for request in bound.requests)
    assert with_plan.index("Add the ones first.") < with_plan.index("What is 347 + 58?")
    assert without == "What is 347 + 58?"


async def test_the_papers_prompt_has_the_published_form(bind: Any) -> None:
    bound = await bind(SOLVED)
    await generate(body(plan="Add the ones first.", templates="paper"), bound.context)
    (system_role, system), (_, user) = bound.requests[0].messages
    assert system_role == "system"
    assert "<think> reasoning process here </think> <answer> answer here </answer>" in system
    assert user == (
        "<question>What is 347 + 58?</question>\nBelow are some helpful insights or ideas:\n<ideas>Add the ones first.</ideas>\n"
        "The ideas above may provide some insights in solving the challenge. Now please answer the original question."
    )


async def test_placeholders_in_what_people_write_stay_as_they_are(bind: Any) -> None:
    bound = await bind(SOLVED)
    await generate(
        body("Explain {{plan}} and {{problem}} in Jinja.", plan="Recall what {{problem}} does."), bound.context
    )
    text = bound.requests[0].messages[-1][1]
    assert "Explain {{plan}} and {{problem}} in Jinja." in text
    assert "Recall what {{problem}} does." in text


async def test_history_goes_before_the_problem_and_one_system_turn_leads(bind: Any) -> None:
    bound = await bind(SOLVED)
    await generate(
        body("n^2?", ("system", "Answer in French."), ("user", "n = 7"), ("assistant", "Oui.")), bound.context
    )
    messages = bound.requests[0].messages
    assert [role for role, _ in messages] == ["system", "user", "assistant", "user"]
    assert messages[0][1].endswith("Answer in French.")
    assert messages[-1] == ("user", "n^2?")


async def test_the_plain_set_adds_no_word_and_takes_none_away(bind: Any) -> None:
    bound = await bind(Reply(" It is <answer>49</answer>.\n", reasoning="Seven sevens."))
    conversation = (
        ("system", " Answer in French. "),
        ("user", "n = 7"),
        ("system", "Now in English."),
        ("assistant", ""),
        ("developer", "Short."),
    )
    asked = body(" n^2?\n{{plan}}", *conversation, templates="plain", sampling=Sampling(stop=()))
    candidate = await generate(asked, bound.context)
    assert bound.requests[0].messages == (*conversation, ("user", " n^2?\n{{plan}}"))
    assert candidate.content == " It is <answer>49</answer>.\n"
    assert (candidate.answer, candidate.reasoning) == ("49", "Seven sevens.")


async def test_the_mini_model_gets_one_turn_in_its_own_format(bind: Any) -> None:
    bound = await bind("<think>7+8=15</think><answer>405</answer>", templates="mini")
    history = (("user", "Hi"), ("assistant", "Hello"))
    candidate = await generate(
        body(" What is\n 347  + 58? <solve>", *history, plan="add digits", templates="paper"), bound.context
    )
    assert bound.requests[0].messages == (("user", "<solve><plan>add digits</plan>What is 347 + 58?"),)
    assert candidate.answer == "405"


async def test_the_mini_models_refusal_is_no_answer(bind: Any) -> None:
    bound = await bind("<think>outside my kinds</think><answer></answer>", templates="mini")
    candidate = await generate(body("Who painted the Mona Lisa?"), bound.context)
    assert (candidate.answer, candidate.content) == (None, "")


async def test_a_completion_cut_off_while_thinking_has_no_answer(bind: Any) -> None:
    bound = await bind("<think>" + "so " * 100, max_tokens=20)
    candidate = await generate(body(), bound.context)
    assert candidate.finish_reason is FinishReason.length
    assert (candidate.answer, candidate.content) == (None, "")
    assert candidate.reasoning


async def test_a_broken_stream_passes_through_and_leaves_what_came(bind: Any) -> None:
    bound = await bind(Reply(text=SOLVED * 5, fault=Fault(FaultKind.reset, after_tokens=8)))
    with pytest.raises(StreamBroken):
        await generate(body(), bound.context)
    assert bound.context.record.raw_text
    assert bound.context.record.usage.completion > 0


async def test_cancelling_closes_the_stream_and_leaves_a_record(bind: Any) -> None:
    bound = await bind(Reply(text=SOLVED * 100, token_s=0.02))
    task = asyncio.create_task(generate(body(), bound.context))
    while bound.context.record.time_to_first_token_s is None:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    while bound.server.open_streams:
        await asyncio.sleep(0.01)
    assert bound.server.calls[0].outcome is CallOutcome.aborted
    assert bound.context.record.prompt


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("The sum is <answer>405</answer>", "The sum is 405"),
        ("The sum is <answer>405", "The sum is 405"),
        ("<answer>405</ans", "405"),
        ("<ANSWER> 405 </ANSWER >", "405"),
        ("<answer>\n```python\nprint(1)\n```\n", "```python\nprint(1)\n```"),
        ("no tags", "no tags"),
        ("a < b </b", "a < b </b"),
        ("", ""),
    ],
)
def test_content_is_the_text_without_answer_tags(text: str, content: str) -> None:
    assert visible_content(text) == content


@given(st.text())
def test_no_text_raises(text: str) -> None:
    assert visible_content(visible_content(text)) is not None


@pytest.mark.parametrize(
    ("text", "form", "answer", "status"),
    [
        ("<answer>405", AnswerForm.integer, "405", CheckStatus.passed),
        ("<answer>B", AnswerForm.choice, "B", CheckStatus.passed),
        ("<answer>four hundred apples or so", AnswerForm.number, None, CheckStatus.failed),
        ("<answer>4.5", AnswerForm.integer, None, CheckStatus.failed),
        ("I do not know.", AnswerForm.number, None, CheckStatus.failed),
        ("", AnswerForm.number, None, CheckStatus.failed),
    ],
)
async def test_an_answer_of_the_wrong_form_is_no_answer(
    bind: Any, text: str, form: AnswerForm, answer: str | None, status: CheckStatus
) -> None:
    bound = await bind(text)
    candidate = await generate(body(checks=Checks(answer_form=form)), bound.context)
    assert (candidate.answer, candidate.check) == (answer, status)
    assert (candidate.check_detail is None) is (status is CheckStatus.passed)
    assert bound.context.record.answer == answer


@pytest.mark.skipif(not sandbox_works(), reason="no sandbox on this machine")
async def test_unit_tests_decide_about_code(bind: Any) -> None:
    checks = Checks(unit_tests=DOUBLE_TESTS)
    right = await generate(body("Double it.", checks=checks), (await bind(DOUBLE)).context)
    assert (right.check, right.check_detail) == (CheckStatus.passed, None)
    assert right.answer == "n = int(input())\nprint(2 * n)"
    wrong = await generate(body("Double it.", checks=checks), (await bind(DOUBLE.replace("2 * n", "n + 3"))).context)
    assert wrong.check is CheckStatus.failed
    assert "unit test 2 of 2" in (wrong.check_detail or "")


async def test_a_text_without_code_fails_its_unit_tests(bind: Any) -> None:
    bound = await bind("I would rather not.")
    candidate = await generate(body(checks=Checks(unit_tests=DOUBLE_TESTS)), bound.context)
    assert (candidate.check, candidate.answer) == (CheckStatus.failed, None)


async def test_tests_that_cannot_be_run_are_an_error_and_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def unavailable() -> None:
        raise SandboxUnavailable("user namespaces are switched off")

    monkeypatch.setattr(grading_code, "require_sandbox", unavailable)
    answer, status, detail = await run_checks(DOUBLE, "code", Checks(unit_tests=DOUBLE_TESTS))
    assert (answer, status) == ("code", CheckStatus.error)
    assert "user namespaces" in (detail or "")
