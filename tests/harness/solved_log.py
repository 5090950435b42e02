"""Jobs solved on a real database by the real state machine, with answers that the test gives: a log to look at."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from k2think.agents.generator import final_answer, visible_content
from k2think.agents.pipeline import advance, first_step
from k2think.agents.safety import screen_by_rules
from k2think.schemas.completion import FinishReason, TokenUsage
from k2think.schemas.jobs import SolveRequest, SolveResult
from k2think.schemas.messages import Body, ComparePair, Envelope, GenerateCandidate, MakePlan
from k2think.schemas.outcomes import (
    Candidate,
    CheckStatus,
    Compared,
    Planned,
    Preference,
    Screened,
    ScreenVerdict,
    StepResult,
)
from k2think.schemas.trace import CallTrace
from k2think.store.database import Database
from k2think.store.jobs import accept_job, apply_decision, job_result, load_job
from k2think.store.steps import claim_step, finish_step
from sqlalchemy import Connection

MODEL = "scripted-1"


@dataclass(frozen=True)
class Said:
    """What one sample writes."""

    text: str
    """Visible text, as it came: without the stop string that ended it."""
    reasoning: str = "Step by step."
    """Its reasoning."""
    finish: FinishReason = FinishReason.stop
    """Why it ended."""
    check: CheckStatus = CheckStatus.none
    """What the task's own checks said."""


def boxed(answer: object) -> Said:
    """Return a sample whose answer is this."""
    return Said(f"<answer>The result is \\boxed{{{answer}}}.")


class SolvedLog:
    """A database that jobs are solved on."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def solve(
        self, problem: str, samples: Sequence[Said], *, tenant: str = "default", screened: bool = True, **fields: Any
    ) -> tuple[str, SolveResult]:
        """Solve a problem (or `messages`); return the job's id and result.

        `screened`: by the rules of today; otherwise everything passes, as it may have under those of another day.
        """
        policy = {"n": len(samples), **fields.pop("policy", {})}
        given = fields if "messages" in fields else {"problem": problem, **fields}
        request = SolveRequest.model_validate({**given, "policy": policy})
        accepted = self.database.run_sync(
            lambda conn: accept_job(conn, request=request, first=first_step(request), tenant=tenant, now=time.time())
        )
        assert accepted.message is not None
        waiting = deque([accepted.message])
        while waiting:
            envelope = waiting.popleft()
            result, call = _answer(envelope.body, samples, screened=screened)
            waiting += self.database.run_sync(lambda conn, e=envelope, r=result, c=call: _step(conn, e, r, c))
        _status, solved = self.database.read_sync(lambda conn: job_result(conn, accepted.job_id))
        assert solved is not None
        return accepted.job_id, solved


def _step(conn: Connection, envelope: Envelope, result: StepResult, call: CallTrace | None) -> list[Envelope]:
    now = time.time()
    claim = claim_step(conn, envelope, worker="w", now=now, lease_s=60.0)
    if claim is None:
        # Cancelled meanwhile: the vote was decided.
        return []
    assert finish_step(conn, claim, result=result, call=call, now=now)
    job = load_job(conn, envelope.job_id, lock=True)
    decision = advance(job, now=now)
    assert not decision.undecided, "give answers that the quick rules can compare"
    return list(apply_decision(conn, job, decision, now=now).messages)


def _answer(body: Body, samples: Sequence[Said], *, screened: bool) -> tuple[StepResult, CallTrace | None]:
    match body:
        case MakePlan():
            return Planned(plan="Look at it closely."), None
        case GenerateCandidate():
            said = samples[body.candidate]
            answer = final_answer(said.text, body.checks)
            call = CallTrace(
                backend="scripted",
                model=MODEL,
                raw_text=said.text,
                reasoning=said.reasoning,
                answer=answer,
                finish_reason=said.finish,
                usage=TokenUsage(prompt=5, completion=9),
            )
            candidate = Candidate(
                index=body.candidate,
                content=visible_content(said.text),
                answer=answer,
                reasoning=said.reasoning,
                finish_reason=said.finish,
                check=said.check,
            )
            return candidate, call
        case ComparePair():
            return Compared(first=body.first, second=body.second, preference=Preference.first, reason="neater"), None
        case _:
            category = screen_by_rules(body) if screened else None
            verdict = ScreenVerdict.safe if category is None else ScreenVerdict.unsafe
            return Screened(verdict=verdict, category=category), None
