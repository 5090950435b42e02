"""What operations cost: counting a job, a sign of life, and a scrape beside a long history. Prints JSON.

    python benchmarks/operations.py --rows 1000000

CPU is this process's; the database is SQLite in a temporary folder. Nothing but this machine is needed.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable

from k2think.gateway.operations.metrics import Reading, render
from k2think.schemas.backend_settings import BackendSettings
from k2think.schemas.completion import ChatMessage, TokenUsage
from k2think.schemas.ids import uuid7
from k2think.schemas.jobs import JobStatus, SolveResult
from k2think.schemas.messages import AgentKind, Envelope, GenerateCandidate, MakePlan, ScreenInput
from k2think.schemas.outcomes import Candidate, Planned, Screened, ScreenVerdict, StepResult
from k2think.schemas.trace import CallTrace
from k2think.store.database import Database
from k2think.store.gauges import read_gauges
from k2think.store.migrate import upgrade
from k2think.store.workers import WorkerRow, seen_workers, sign_of_life
from k2think.workers.counters import Counters
from k2think.workers.queues import role_queues
from sqlalchemy import Connection, text

PROCESSES = 50
UNFINISHED = 10_000
_NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :rows) "
_JOBS = (
    "INSERT INTO jobs (id, tenant, request_digest, status, priority, attached, created_at, deadline_at, problem,"
    " equivalences, request, finished_at) "
    "SELECT :prefix || i, 'default', '', :status, 1, 0, 0, 0, '', '[]', '{}', 0 FROM n"
)
_STEPS = (
    "INSERT INTO steps (job_id, name, seq, kind, queue, priority, status, attempts, released, due_at, created_at,"
    " ready_at, body) SELECT :prefix || i, 'screen_input', 0, 'screen_input', 'safety', 1, :status, 1, 0, 0, 0, 0, '{}' FROM n"
)
MESSAGES = (ChatMessage(role="user", content="What is 1 + 1?"),)
JOB: tuple[tuple[Envelope, StepResult, int], ...] = tuple(
    (Envelope(job_id="job", step="step", attempt=1, body=body), result, steps)
    for body, result, steps in (
        (ScreenInput(messages=MESSAGES), Screened(verdict=ScreenVerdict.safe), 2),
        (MakePlan(messages=MESSAGES), Planned(plan="Add."), 1),
        (GenerateCandidate(messages=MESSAGES, candidate=0), Candidate(index=0, content="2", answer="2"), 3),
    )
)
"""Message, result and number of the steps of a job on whose answer all agree."""
CALL = CallTrace(
    backend="openai", usage=TokenUsage(prompt=100, completion=200, reasoning=150), time_to_first_token_s=0.1
)
BACKEND = BackendSettings()
ENDED = SolveResult(job_id="job", status=JobStatus.succeeded)


def timed(call: Callable[[], object], *, times: int) -> dict[str, float]:
    """Return milliseconds of CPU and of the clock for one call."""
    call()
    cpu, clock = time.process_time(), time.perf_counter()
    for _ in range(times):
        call()
    cpu, clock = time.process_time() - cpu, time.perf_counter() - clock
    return {"cpu_ms": round(cpu / times * 1e3, 3), "ms": round(clock / times * 1e3, 3)}


def count_a_job(counters: Counters) -> None:
    """Record what one job makes its workers and the gateway record."""
    for envelope, result, steps in JOB:
        for _ in range(steps):
            counters.received(envelope)
            counters.started(envelope, waited_s=0.01)
            counters.succeeded(envelope, result, seconds=0.1)
            if not isinstance(result, Screened):
                counters.called("generator", CALL, BACKEND, outcome="ok")
    counters.job_ended(ENDED)
    counters.request_answered("POST", "/v1/jobs", 202, seconds=0.01)


def fill(conn: Connection, rows: int) -> None:
    """Write a history of finished jobs, one step each, and a queue of unfinished ones."""
    for prefix, job, step, count in (("done-", "succeeded", "done", rows), ("open-", "queued", "ready", UNFINISHED)):
        for statement, status in ((_JOBS, job), (_STEPS, step)):
            head, _, tail = statement.partition("SELECT")
            conn.execute(text(f"{head} {_NUMBERS} SELECT {tail}"), {"rows": count, "prefix": prefix, "status": status})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000, help="finished jobs in the database (default 100,000)")
    rows: int = parser.parse_args().rows

    counters = Counters()
    counters.expect(AgentKind, queues=role_queues("all"), backends=[(agent.value, "openai") for agent in AgentKind])
    figures: dict[str, object] = {"rows": rows, "unfinished": UNFINISHED, "processes": PROCESSES}
    figures["count_one_job"] = timed(lambda: count_a_job(counters), times=2_000)
    figures["snapshot"] = timed(counters.snapshot, times=200) | {"bytes": len(counters.snapshot())}

    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/k2think.db"
        upgrade(url)
        database = Database(url)

        def sign(worker: str) -> None:
            now = time.time()
            row = WorkerRow(worker, "all", "host", 1, "0", None, 8, 1, False, now, now, counters.snapshot())
            database.run_sync(lambda conn: sign_of_life(conn, row))

        figures["sign_of_life"] = timed(lambda: sign("all-0"), times=100)
        database.run_sync(lambda conn: fill(conn, rows))
        for _ in range(PROCESSES - 1):
            sign(f"all-{uuid7()}")

        def read() -> Reading:
            found, gauges = database.read_sync(
                lambda conn: (seen_workers(conn, since=0), read_gauges(conn, now=time.time()))
            )
            return Reading(found, 0, gauges, None, UNFINISHED)

        reading = read()
        figures["scrape_sql"] = timed(read, times=10)
        figures["scrape_text"] = timed(lambda: render(reading), times=5) | {"bytes": len(render(reading))}
        database.close()
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
