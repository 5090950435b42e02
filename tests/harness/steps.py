"""Short words for what tests of steps do and look at; `story` is the store's fixture."""

from __future__ import annotations

from typing import Any

from k2think.schemas.completion import ChatMessage, TokenUsage
from k2think.schemas.outcomes import Screened, ScreenVerdict, StepFailure, StepStatus
from k2think.schemas.trace import AttemptOutcome, CallTrace, LeftCall
from k2think.store.jobs import job_trace, load_job
from k2think.store.steps import Claim, drop_step

SAFE = Screened(verdict=ScreenVerdict.safe)
FAILURE = StepFailure(code="backend_overloaded", message="the server is busy")
LEFT = LeftCall(
    backend="late", model="m", reason="hedge_lost", usage=TokenUsage(prompt=10, completion=4), duration_s=0.2
)


def call(completion: int = 20) -> CallTrace:
    """A call with a value in every field, and text that no database can hold."""
    return CallTrace(
        backend="main",
        model="m",
        prompt=[ChatMessage(role="user", content="What is 1 + 1?")],
        parameters={"temperature": 1.0, "stop": ["</answer>"]},
        raw_text="two\x00 \ud83d\ude00 \ud800",
        reasoning="one and one",
        answer="2",
        usage=TokenUsage(prompt=10, completion=completion, reasoning=5),
        finish_reason="stop",
        time_to_first_token_s=0.1,
        duration_s=0.5,
        retries=1,
        engine_queue_s=0.01,
        engine_prompt_s=0.02,
        engine_completion_s=0.3,
        cached_prompt_tokens=4,
        draft_acceptance=0.5,
        accepted_length=1.5,
        limit_wait_s=0.25,
        rate_limits={"x-ratelimit-remaining-tokens": "7"},
        left_calls=[LEFT],
    )


def finish(story: Any, claim: Claim, *, result: Any = SAFE, with_call: CallTrace | None = None) -> bool:
    """Report a result of the claimed step."""
    return story.finish(claim, result, with_call)


def fail(story: Any, claim: Claim, *, retry_at: float | None = None) -> bool:
    """Report that the claimed step failed; without a time to retry it is final."""
    return story.fail(claim, FAILURE, retry_at=retry_at, call=call())


def drop(story: Any, claim: Claim, outcome: Any) -> Any:
    """Give the claimed step up; return the message of its next attempt, if there is one."""
    return story.database.run_sync(lambda conn: drop_step(conn, claim, outcome=outcome, call=call(), now=story.now))


def trace(story: Any, job_id: str) -> Any:
    """Return the job's trace."""
    return story.database.read_sync(lambda conn: job_trace(conn, job_id))


def outcomes(story: Any, job_id: str) -> list[AttemptOutcome]:
    """Return how the job's attempts ended, step by step."""
    return [attempt.outcome for step in trace(story, job_id).steps for attempt in step.attempts]


def step_status(story: Any, job_id: str, name: str = "screen_input") -> StepStatus:
    """Return how far a step is."""
    return story.database.read_sync(lambda conn: load_job(conn, job_id)).steps[name].status
