"""The whole trace of a job as text."""

import json
import time
from collections.abc import Iterator

from ..schemas.trace import AttemptTrace, CallTrace, JobTrace, StepTrace

_INDENT = "    "


def trace_lines(trace: JobTrace) -> list[str]:
    """Return everything about a job: the request, each step with its attempts and model calls, events, the result."""
    return list(_lines(trace))


def _lines(trace: JobTrace) -> Iterator[str]:
    yield f"job {trace.job_id}  {trace.status.value}  tenant {trace.tenant}"
    yield f"accepted {_clock(trace.created_at)}, started {_clock(trace.started_at)}, finished {_clock(trace.finished_at)}"
    yield ""
    yield "request"
    for message in trace.request.conversation:
        yield from _block(message.role, message.content)
    yield f"{_INDENT}policy: {trace.request.policy.model_dump_json(exclude_none=True)}"
    if trace.request.checks.answer_form or trace.request.checks.unit_tests:
        yield f"{_INDENT}checks: {trace.request.checks.model_dump_json(exclude_none=True)}"
    if trace.request.metadata:
        yield f"{_INDENT}metadata: {json.dumps(trace.request.metadata, ensure_ascii=False)}"
    for step in trace.steps:
        yield ""
        yield from _step(step, began=trace.created_at)
    yield ""
    yield "events (seconds after acceptance)"
    for event in trace.events:
        detail = f"  {json.dumps(event.detail, ensure_ascii=False)}" if event.detail else ""
        yield f"{_INDENT}{event.at - trace.created_at:9.3f}  {event.kind.value}  {event.step or ''}{detail}"
    yield ""
    yield "result"
    if trace.result is None:
        yield f"{_INDENT}none yet"
    else:
        for line in json.dumps(trace.result.model_dump(mode="json"), indent=2, ensure_ascii=False).splitlines():
            yield _INDENT + line


def _step(step: StepTrace, *, began: float) -> Iterator[str]:
    ended = "" if step.finished_at is None else f", ended at {step.finished_at - began:.3f} s"
    yield f"step {step.name}  {step.kind}  {step.status.value}  (created at {step.created_at - began:.3f} s{ended})"
    for attempt in step.attempts:
        yield from _attempt(attempt)
    if step.failure is not None:
        yield from _block(f"failure {step.failure.code}", step.failure.message)
    if step.result is not None:
        yield from _block("result", json.dumps(step.result, indent=2, ensure_ascii=False))


def _attempt(attempt: AttemptTrace) -> Iterator[str]:
    ran = "" if attempt.finished_at is None else f", ran {attempt.finished_at - attempt.claimed_at:.3f} s"
    waited = max(0.0, attempt.claimed_at - attempt.queued_at)
    yield f"  attempt {attempt.attempt}: {attempt.outcome.value} on {attempt.worker}, waited {waited:.3f} s{ran}"
    if attempt.error is not None:
        yield from _block(f"error {attempt.error.code}", attempt.error.message)
    if attempt.call is not None:
        yield from _call(attempt.call)


def _call(call: CallTrace) -> Iterator[str]:
    yield f"{_INDENT}backend {call.backend}, model {call.model}, finish reason {call.finish_reason or 'none'}"
    usage = call.usage
    counted = " (our count)" if call.usage_estimated else ""
    cached = "" if call.cached_prompt_tokens is None else f" ({call.cached_prompt_tokens} cached)"
    yield (
        f"{_INDENT}tokens: prompt {usage.prompt}{cached}, completion {usage.completion}, "
        f"of these reasoning {usage.reasoning}{counted}"
    )
    first = "none" if call.time_to_first_token_s is None else f"{call.time_to_first_token_s:.3f} s"
    facts = [f"first token after {first}", f"{call.duration_s:.3f} s in all"]
    if call.tokens_per_s is not None:
        facts.append(f"{call.tokens_per_s:,.1f} tokens per second")
    for seconds, what in (
        (call.engine_queue_s, "in the engine's queue"),
        (call.engine_prompt_s, "of prompt processing"),
        (call.engine_completion_s, "of decoding"),
    ):
        if seconds is not None:
            facts.append(f"{seconds:.3f} s {what}")
    if call.draft_acceptance is not None:
        facts.append(f"draft acceptance {call.draft_acceptance:.2f}")
    if call.accepted_length is not None:
        facts.append(f"{call.accepted_length:.2f} tokens a verification")
    if call.limit_wait_s is not None:
        facts.append(f"{call.limit_wait_s:.3f} s before it for the backend's limits")
    if call.retries:
        facts.append(f"{call.retries} refused calls tried again")
    yield f"{_INDENT}{', '.join(facts)}"
    for left in call.left_calls:
        cost = f"{left.duration_s:.3f} s, tokens: prompt {left.usage.prompt}, completion {left.usage.completion}"
        yield f"{_INDENT}before or beside it: backend {left.backend} ({left.reason}), {cost}"
    yield f"{_INDENT}parameters: {json.dumps(call.parameters, ensure_ascii=False)}"
    if call.rate_limits:
        yield f"{_INDENT}rate limits: {json.dumps(call.rate_limits, ensure_ascii=False)}"
    for message in call.prompt:
        yield from _block(f"prompt, {message.role}", message.content)
    if call.reasoning:
        yield from _block("reasoning", call.reasoning)
    yield from _block("text", call.raw_text)
    if call.answer is not None:
        yield from _block("answer", call.answer)


def _block(name: str, text: str) -> Iterator[str]:
    yield f"{_INDENT}{name}:"
    for line in text.split("\n"):
        yield f"{_INDENT}{_INDENT}{line}"


def _clock(at: float | None) -> str:
    return "not yet" if at is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
