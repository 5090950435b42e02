"""However long the log is: no query of a job's life, of the sweeper or of the doors reads all of a table."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from k2think.agents.pipeline import advance, first_step
from k2think.schemas.jobs import SolveRequest
from k2think.schemas.messages import Body, ComparePair, GenerateCandidate, MakePlan
from k2think.schemas.outcomes import Candidate, Compared, Planned, Preference, Screened, ScreenVerdict, StepResult
from k2think.schemas.policy import Policy
from k2think.schemas.trace import CallTrace
from k2think.store.gauges import read_gauges
from k2think.store.job_views import job_object, list_job_objects
from k2think.store.jobs import (
    accept_job,
    apply_decision,
    attached_jobs,
    events_after,
    job_result,
    job_trace,
    load_job,
    queue_depths,
    unreplied,
)
from k2think.store.steps import claim_step, finish_step, heartbeat
from k2think.store.sweep import (
    any_unrung,
    dead_letters,
    due_jobs,
    due_steps,
    mark_published,
    ready_counts,
    running_leases,
)
from k2think.store.tables import attempts, comparisons, events, jobs, metadata, steps
from sqlalchemy import Connection, Index, create_engine, event, insert, literal, select, text
from sqlalchemy.pool import StaticPool

NOW = 1_795_000_000.0
COPIES = 500
LOG = (jobs, steps, attempts, events, comparisons)


def result_of(body: Body) -> StepResult:
    match body:
        case MakePlan():
            return Planned(plan="add")
        case GenerateCandidate(candidate=index):
            return Candidate(index=index, content=str(index), answer=str(index))
        case ComparePair(first=first, second=second):
            return Compared(first=first, second=second, preference=Preference.first)
        case _:
            return Screened(verdict=ScreenVerdict.safe)


def live(conn: Connection) -> str:
    """Take a job from its request to its end; return its id."""
    request = SolveRequest(problem="What is 1 + 1?", policy=Policy(n=3), idempotency_key="key")
    accepted = accept_job(conn, request=request, first=first_step(request), tenant="default", now=NOW, queue_max=10**6)
    assert accepted.message is not None
    messages = [accepted.message]
    while messages:
        message = messages.pop(0)
        claim = claim_step(conn, message, worker="worker", now=NOW, lease_s=15)
        if claim is None:
            continue
        heartbeat(conn, worker="worker", now=NOW, lease_s=15)
        assert finish_step(conn, claim, result=result_of(message.body), call=CallTrace(backend="openai"), now=NOW)
        job = load_job(conn, message.job_id, lock=True)
        messages += apply_decision(conn, job, advance(job, now=NOW), now=NOW).messages
    return accepted.job_id


def copy(conn: Connection, job_id: str) -> None:
    """Write a finished job many times more: a long log, as far as the planner is concerned."""
    for n in range(COPIES):
        for table in LOG:
            wanted = [column for column in table.columns if column is not events.c.seq]
            key = jobs.c.id if table is jobs else table.c.job_id
            fresh = {key.name: literal(f"{job_id}-{n}"), "idempotency_key": literal(None)}
            values = [fresh.get(column.name, column) for column in wanted]
            conn.execute(insert(table).from_select([c.name for c in wanted], select(*values).where(key == job_id)))


def looks(job_id: str) -> tuple[Callable[[Connection], Any], ...]:
    """What sweeper and doors ask."""
    return (
        attached_jobs,
        ready_counts,
        running_leases,
        dead_letters,
        queue_depths,
        lambda conn: due_jobs(conn, now=NOW, skip=[job_id]),
        lambda conn: due_steps(conn, now=NOW, short=["safety", "planner"]),
        lambda conn: mark_published(conn, [(job_id, "plan")], now=NOW, due_at=NOW),
        lambda conn: any_unrung(conn, now=NOW),
        lambda conn: unreplied(conn, limit=10, skip=[job_id]),
        lambda conn: read_gauges(conn, now=NOW),
        lambda conn: job_result(conn, job_id),
        lambda conn: job_trace(conn, job_id),
        lambda conn: events_after(conn, job_id, 0),
        lambda conn: job_object(conn, job_id, tenant="default"),
        lambda conn: list_job_objects(conn, tenant="default"),
        lambda conn: list_job_objects(conn, tenant="default", after=job_id),
    )


def partial_indexes() -> set[str]:
    """Those that hold what is unfinished only, so that reading all of one is no matter."""
    indexes: list[Index] = [index for table in metadata.tables.values() for index in table.indexes]
    return {str(index.name) for index in indexes if index.dialect_options["sqlite"]["where"] is not None}


@pytest.mark.parametrize("statistics", [False, True], ids=["without_statistics", "with_statistics"])
def test_nothing_reads_the_whole_log(statistics: bool) -> None:
    engine = create_engine("sqlite://", poolclass=StaticPool)
    statements: dict[str, Any] = {}

    @event.listens_for(engine, "before_cursor_execute")
    def note(_conn: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, many: bool) -> None:
        statements.setdefault(statement, parameters[0] if many else parameters)

    with engine.connect() as conn:
        metadata.create_all(conn)
        copy(conn, live(conn))
        if statistics:
            conn.execute(text("ANALYZE"))
        conn.execute(text("UPDATE jobs SET idempotency_key = NULL"))
        statements.clear()
        job_id = live(conn)
        for look in looks(job_id):
            look(conn)
        asked = {
            words: values for words, values in statements.items() if words.startswith(("SELECT", "UPDATE", "WITH"))
        }
        assert len(asked) > 30
        scans: list[str] = []
        for words, values in asked.items():
            plan = [str(row[3]) for row in conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {words}", values)]
            for line in plan:
                found = re.match(r"SCAN (\w+)(?: USING (?:COVERING )?INDEX (\w+))?", line)
                if found and found[1] in {table.name for table in LOG} and found[2] not in partial_indexes():
                    scans.append(f"{line}: {' '.join(words.split())[:200]}")
    engine.dispose()
    assert not scans, "\n".join(scans)
