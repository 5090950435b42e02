"""The generator: one candidate solution, its final answer, and the task's own checks on it."""

import re

from ..grading.code import TestReport, run_unit_tests
from ..grading.extract import extract_answer
from ..grading.form import matches_form
from ..schemas.checks import AnswerForm, Checks
from ..schemas.completion import ChatMessage, CompletionRequest
from ..schemas.errors import GradingError
from ..schemas.messages import GenerateCandidate
from ..schemas.outcomes import Candidate, CheckStatus
from .context import AgentContext
from .conversation import split_problem
from .templates import TemplateSet, choose_set, load_templates

DETAIL_CHARS_MAX = 500

_ANSWER_TAG = re.compile(r"<\s{0,5}/?\s{0,5}answer\s{0,5}>", re.IGNORECASE)
_CUT_TAG = re.compile(r"</(?:a|an|ans|answ|answe|answer)?\Z", re.IGNORECASE)


async def generate(body: GenerateCandidate, context: AgentContext) -> Candidate:
    """Sample one candidate and run the task's checks on it. Raises BackendError."""
    backend, settings = context.bound()
    templates = load_templates(choose_set(backend.templates, body.templates))
    sampling = body.sampling
    completion = await context.complete(
        CompletionRequest(
            messages=prompt(body, templates),
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=settings.max_tokens if sampling.max_tokens is None else sampling.max_tokens,
            stop=sampling.stop,
            seed=sampling.seed,
            request_id=context.request_id,
        )
    )
    answer = final_answer(completion.text, body.checks)
    answer, check, detail = await run_checks(completion.text, answer, body.checks)
    context.record.answer = answer
    return Candidate(
        index=body.candidate,
        content=completion.text if templates.manifest.verbatim else visible_content(completion.text),
        answer=answer,
        reasoning=completion.reasoning,
        finish_reason=completion.finish.finish_reason,
        check=check,
        check_detail=detail,
    )


def prompt(body: GenerateCandidate, templates: TemplateSet) -> tuple[ChatMessage, ...]:
    """Return the messages of the call: instructions, earlier turns, and the problem with the plan before it.

    A verbatim set sends the conversation as it came.
    """
    if templates.manifest.verbatim:
        return body.messages
    system, history, problem = split_problem(body.messages)
    values = {"problem": templates.prepared(problem)}
    if body.plan:
        values["plan"] = templates.prepared(body.plan)
    if not templates.manifest.history:
        system, history = "", ()
    return templates.chat("generator_with_plan" if body.plan else "generator", system=system, history=history, **values)


def visible_content(text: str) -> str:
    """Return the answer text without `<answer>` tags; the last one may lack its end, which a stop string swallows."""
    return _CUT_TAG.sub("", _ANSWER_TAG.sub("", text).strip()).strip()


def final_answer(text: str, checks: Checks) -> str | None:
    """Return the final answer in `text`, looked for in the form that the checks ask for; None = none."""
    form = checks.answer_form
    if form is None and checks.unit_tests:
        form = AnswerForm.code
    found = extract_answer(text, form=form)
    return found.answer if found else None


async def run_checks(text: str, answer: str | None, checks: Checks) -> tuple[str | None, CheckStatus, str | None]:
    """Return the answer (None when it has the wrong form), the outcome of the checks, and what a failed one said.

    Checks that cannot be run are an error, which says nothing about the candidate.
    """
    form = checks.answer_form
    if form is None and not checks.unit_tests:
        return answer, CheckStatus.none, None
    if form is not None and (answer is None or not matches_form(answer, form)):
        return None, CheckStatus.failed, f"the text has no final answer of the form {form.value!r}"
    if not checks.unit_tests:
        return answer, CheckStatus.passed, None
    code = extract_answer(text, form=AnswerForm.code)
    if code is None:
        return answer, CheckStatus.failed, "the text has no code to test"
    try:
        report = await run_unit_tests(code.answer, checks.unit_tests, stop_at_failure=True)
    except GradingError as exc:
        return answer, CheckStatus.error, str(exc)[:DETAIL_CHARS_MAX]
    if report.all_passed:
        return answer, CheckStatus.passed, None
    return answer, CheckStatus.failed, _failure(report)


def _failure(report: TestReport) -> str:
    number, result = next((i, r) for i, r in enumerate(report.results, 1) if not r.passed)
    return f"unit test {number} of {report.total}: {result.reason}: {result.detail}"[:DETAIL_CHARS_MAX]
