"""The result of a job, put together from its rows in the transaction that ends it."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, select

from ..schemas.completion import TokenUsage
from ..schemas.jobs import Comparison, JobStatus, SelectionReport, SolveResult, Timings, UsageReport
from ..schemas.messages import AgentKind, GenerateCandidate
from ..schemas.outcomes import Candidate, Compared
from ..schemas.progress import Ending, JobView
from ..schemas.trace import AttemptOutcome
from .attempts import ledger
from .rows import load_body
from .tables import comparisons, steps

_SPANS = (
    select(steps.c.kind, steps.c.status, steps.c.created_at, steps.c.finished_at)
    .where(steps.c.job_id == bindparam("job_id"), steps.c.finished_at.is_not(None))
    .order_by(steps.c.seq)
)
_BODY = select(steps.c.body).where(steps.c.job_id == bindparam("job_id"), steps.c.name == bindparam("name"))
_COMPARISONS = (
    select(comparisons)
    .where(comparisons.c.job_id == bindparam("job_id"))
    .order_by(comparisons.c.at, comparisons.c.first, comparisons.c.second)
)


def build_result(conn: Connection, job: JobView, ending: Ending, *, now: float) -> SolveResult:
    """Return the result that the ending stands for; an answer is in it only when the job succeeded."""
    candidate, plan = _winner(conn, job, ending)
    return SolveResult(
        job_id=job.job_id,
        status=ending.status,
        answer=candidate.answer if candidate else None,
        content=candidate.content if candidate else None,
        reasoning=candidate.reasoning if candidate else None,
        finish_reason=candidate.finish_reason if candidate else None,
        plan=plan,
        selection=_selection(conn, job, ending.selection),
        usage=_usage(conn, job.job_id),
        timings=_timings(conn, job, now=now),
        error=ending.error,
        metadata=job.request.metadata,
    )


def load_comparisons(conn: Connection, job_id: str) -> tuple[Comparison, ...]:
    """Return the job's verdicts in the order in which they came."""
    rows = conn.execute(_COMPARISONS, {"job_id": job_id})
    return tuple(
        Comparison(first=row.first, second=row.second, winner=row.winner, usable=row.usable, reason=row.reason)
        for row in rows
    )


def _winner(conn: Connection, job: JobView, ending: Ending) -> tuple[Candidate | None, str | None]:
    if ending.status != JobStatus.succeeded or ending.winner is None:
        return None, None
    for name, step in job.steps.items():
        if isinstance(step.result, Candidate) and step.result.index == ending.winner:
            body = load_body(conn.execute(_BODY, {"job_id": job.job_id, "name": name}).scalar_one())
            return step.result, body.plan if isinstance(body, GenerateCandidate) else None
    return None, None


def _selection(conn: Connection, job: JobView, report: SelectionReport | None) -> SelectionReport | None:
    judged = any(isinstance(step.result, Compared) for step in job.steps.values())
    if report is None or report.comparisons or not judged:
        return report
    return report.model_copy(update={"comparisons": load_comparisons(conn, job.job_id)})


def _usage(conn: Connection, job_id: str) -> UsageReport:
    by_agent = dict.fromkeys(AgentKind, TokenUsage())
    calls: dict[str, int] = {}
    wasted = 0
    for line in ledger(conn, job_id):
        by_agent[line.agent] += line.usage
        calls[line.agent] = calls.get(line.agent, 0) + line.calls
        if line.outcome != AttemptOutcome.done:
            wasted += line.usage.completion
    return UsageReport(
        planner=by_agent[AgentKind.planner],
        generator=by_agent[AgentKind.generator],
        verifier=by_agent[AgentKind.verifier],
        safety=by_agent[AgentKind.safety],
        total=sum(by_agent.values(), TokenUsage()),
        calls={str(agent): count for agent, count in calls.items()},
        wasted_tokens=wasted,
    )


def _timings(conn: Connection, job: JobView, *, now: float) -> Timings:
    started_at = job.started_at
    spans = [row for row in conn.execute(_SPANS, {"job_id": job.job_id}) if row.status != "cancelled"]
    return Timings(
        queue=max(0.0, (now if started_at is None else started_at) - job.created_at),
        plan=_stretch(spans, "make_plan"),
        generate=_stretch(spans, "generate_candidate"),
        verify=_stretch(spans, "compare_pair"),
        screen=_stretch(spans, "screen_input", since=started_at) + _stretch(spans, "screen_output"),
        total=max(0.0, now - job.created_at),
    )


def _stretch(spans: Sequence[Any], kind: str, *, since: float | None = None) -> float:
    """Seconds from the first message of the kind (or `since`) to its last result; 0 when there was none."""
    of_kind = [row for row in spans if row.kind == kind]
    if not of_kind:
        return 0.0
    began = min(row.created_at for row in of_kind) if since is None else since
    return max(0.0, max(row.finished_at for row in of_kind) - began)
