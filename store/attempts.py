"""The attempts' rows: one per start of a step, with the model call that it made."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, func, insert, select, update

from ..schemas.completion import TokenUsage
from ..schemas.messages import AGENT_OF_KIND, AgentKind
from ..schemas.outcomes import StepFailure
from ..schemas.trace import AttemptOutcome, CallTrace
from .rows import call_columns, dump
from .tables import attempts, steps

_NO_CALL = call_columns(None)

_OPEN = insert(attempts).inline()
_THIS = (
    attempts.c.job_id == bindparam("b_job_id"),
    attempts.c.step == bindparam("b_step"),
    attempts.c.attempt == bindparam("b_attempt"),
)
_CLOSE = (
    update(attempts)
    .where(*_THIS)
    .values(
        outcome=bindparam("outcome"),
        finished_at=bindparam("finished_at"),
        error=bindparam("error"),
        **{name: bindparam(name) for name in _NO_CALL},
    )
)
_GIVE_UP = (
    update(attempts)
    .where(*_THIS, attempts.c.outcome == AttemptOutcome.running)
    .values(outcome=bindparam("outcome"), finished_at=bindparam("finished_at"), error=bindparam("error"))
)
_OUTCOME = select(attempts.c.outcome, attempts.c.backend).where(*_THIS)
_LEDGER = (
    select(
        steps.c.kind,
        attempts.c.outcome,
        func.count(),
        func.sum(attempts.c.prompt_tokens),
        func.sum(attempts.c.completion_tokens),
        func.sum(attempts.c.reasoning_tokens),
        func.sum(attempts.c.wasted_prompt_tokens),
        func.sum(attempts.c.wasted_completion_tokens),
    )
    .join_from(attempts, steps, (steps.c.job_id == attempts.c.job_id) & (steps.c.name == attempts.c.step))
    .where(attempts.c.job_id == bindparam("job_id"), attempts.c.backend != "")
    .group_by(steps.c.kind, attempts.c.outcome)
)


@dataclass(frozen=True, slots=True)
class LedgerLine:
    """The model calls of one agent that ended in one way."""

    agent: AgentKind
    outcome: AttemptOutcome
    calls: int
    usage: TokenUsage


def open_attempt(
    conn: Connection, job_id: str, step: str, attempt: int, *, worker: str, queued_at: float, now: float
) -> None:
    """Write the row of an attempt that starts."""
    row: dict[str, Any] = {
        "job_id": job_id,
        "step": step,
        "attempt": attempt,
        "worker": worker,
        "outcome": str(AttemptOutcome.running),
        "queued_at": queued_at,
        "claimed_at": now,
        **_NO_CALL,
    }
    conn.execute(_OPEN, row)


def close_attempt(
    conn: Connection,
    job_id: str,
    step: str,
    attempt: int,
    outcome: AttemptOutcome,
    *,
    now: float,
    call: CallTrace | None,
    error: StepFailure | None = None,
) -> None:
    """Write how the attempt ended, with its call."""
    row: dict[str, Any] = {
        "b_job_id": job_id,
        "b_step": step,
        "b_attempt": attempt,
        "outcome": str(outcome),
        "finished_at": now,
        "error": None if error is None else dump(error),
        **call_columns(call),
    }
    conn.execute(_CLOSE, row)


def give_up_attempt(
    conn: Connection,
    job_id: str,
    step: str,
    attempt: int,
    outcome: AttemptOutcome,
    *,
    now: float,
    error: StepFailure | None = None,
) -> None:
    """Write how a running attempt ended whose worker has not reported (yet): cancelled or lost."""
    row: dict[str, Any] = {
        "b_job_id": job_id,
        "b_step": step,
        "b_attempt": attempt,
        "outcome": str(outcome),
        "finished_at": now,
        "error": None if error is None else dump(error),
    }
    conn.execute(_GIVE_UP, row)


def close_late(conn: Connection, job_id: str, step: str, attempt: int, *, now: float, call: CallTrace | None) -> None:
    """Write the call of an attempt that lost its fence: stale, or cancelled when the step was no longer wanted.

    What it used was paid for, so the ledger must have it. An attempt that has reported already is left as it is.
    """
    row = conn.execute(_OUTCOME, {"b_job_id": job_id, "b_step": step, "b_attempt": attempt}).first()
    if row is None or row.backend:
        return
    if row.outcome == AttemptOutcome.cancelled:
        close_attempt(conn, job_id, step, attempt, AttemptOutcome.cancelled, now=now, call=call)
    elif row.outcome in (AttemptOutcome.running, AttemptOutcome.lost):
        close_attempt(conn, job_id, step, attempt, AttemptOutcome.stale, now=now, call=call)


def ledger(conn: Connection, job_id: str) -> list[LedgerLine]:
    """Return the job's model calls, summed by agent's kind of work and outcome.

    What attempts left for another call has a line of its own, as cancelled, without a count.
    """
    lines: list[LedgerLine] = []
    for kind, outcome, calls, *sums in conn.execute(_LEDGER, {"job_id": job_id}):
        agent = AGENT_OF_KIND[kind]
        prompt, completion, reasoning, wasted_prompt, wasted_completion = map(int, sums)
        usage = TokenUsage(prompt=prompt, completion=completion, reasoning=reasoning)
        lines.append(LedgerLine(agent, AttemptOutcome(outcome), int(calls), usage))
        if wasted_prompt or wasted_completion:
            usage = TokenUsage(prompt=wasted_prompt, completion=wasted_completion)
            lines.append(LedgerLine(agent, AttemptOutcome.cancelled, 0, usage))
    return lines
