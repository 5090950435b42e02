"""What must be true after a chaos run, whatever happened in it: checked from SQL, the client's ledger and the engine's."""

import json
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from clock import true_time
from faults import Injected, pid_of
from k2think.agents.backends.simulator import CallOutcome, CallRecord
from load import FINAL, Batch, Job, Load, digest_of
from sqlalchemy import Connection, Row, text
from stack import Stack

STARTS_MAX = 3
LATE_S = 2.0
"""How long after its job's end a step may at most begin."""
CLOSED_S = 10.0
"""How long after its job's end a stream may at most be open, as long as nothing stood still."""
BELLS_SHARE = 0.1
BELLS_MIN = 5
EXAMPLES_MAX = 5
CUT = (CallOutcome.aborted, CallOutcome.faulted)

_QUERIES = {
    "jobs": "SELECT id, idempotency_key, status, result, finished_at FROM jobs",
    "steps": "SELECT job_id, name, kind, status, attempts, released, lease_until, created_at, published_at,"
    " finished_at, result FROM steps",
    "attempts": "SELECT job_id, step, attempt, worker, outcome, claimed_at, finished_at, backend, completion_tokens,"
    " usage_estimated FROM attempts",
    "comparisons": "SELECT job_id, first, second FROM comparisons",
    "endings": "SELECT job_id, count(*) AS times FROM events WHERE kind = 'finished' GROUP BY job_id",
    "lines": "SELECT batch_id, line, status, job_id FROM batch_requests",
    "batches": "SELECT id, status, lease_until FROM batches",
}
_TIMES = {"claimed_at", "created_at", "finished_at", "published_at"}


@dataclass
class Rows:
    """All that the database says."""

    jobs: dict[str, Any]
    steps: dict[tuple[str, str], Any]
    attempts: list[Any]
    comparisons: list[Any]
    endings: dict[str, int]
    lines: list[Any]
    batches: list[Any]


def read_rows(conn: Connection) -> Rows:
    """Read everything in one snapshot. Times of clocks that had jumped are told by the true one."""
    now = time.time()
    found = {name: [_by_true_time(row, now) for row in conn.execute(text(query))] for name, query in _QUERIES.items()}
    return Rows(
        jobs={row.id: row for row in found["jobs"]},
        steps={(row.job_id, row.name): row for row in found["steps"]},
        attempts=found["attempts"],
        comparisons=found["comparisons"],
        endings={row.job_id: row.times for row in found["endings"]},
        lines=found["lines"],
        batches=found["batches"],
    )


def _by_true_time(row: Row[Any], now: float) -> SimpleNamespace:
    values = row._asdict()
    for name in _TIMES & values.keys():
        if values[name] is not None:
            values[name] = true_time(values[name], now)
    return SimpleNamespace(**values)


@dataclass
class Verdict:
    """What was found."""

    violations: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """By the rule that was broken: where."""
    figures: dict[str, Any] = field(default_factory=dict[str, Any])

    def require(self, held: bool, rule: str, where: object) -> None:
        """Note a violation unless it held."""
        if not held:
            self.violations[rule].append(str(where))

    def shown(self) -> dict[str, Any]:
        """The violations with a few examples each."""
        return {
            rule: {"count": len(where), "examples": where[:EXAMPLES_MAX]} for rule, where in self.violations.items()
        }


def check(stack: Stack, load: Load, rows: Rows, injected: list[Injected]) -> Verdict:
    """Check everything that can be seen in the rows and the ledgers."""
    verdict = Verdict()
    _check_jobs(verdict, load, rows)
    _check_steps(verdict, rows)
    lost_at = [fault.began for fault in injected if fault.name == "net:engine:dead"]
    _check_calls(verdict, stack, rows, lost_at)
    for batch in load.batches:
        _check_batch(verdict, batch, rows)
    _check_bells(verdict, rows, before=min([stack.first_kill, *(fault.began for fault in injected)]))
    for problem in load.problems:
        verdict.require(False, "the gateway answered as it must not", problem)
    return verdict


def _check_jobs(verdict: Verdict, load: Load, rows: Rows) -> None:
    accepted = {job_id for job in load.jobs for job_id in job.ids}
    lost = {job_id for job_id in accepted if job_id not in rows.jobs}
    for job_id in lost:
        verdict.require(False, "an accepted job is lost", job_id)
    for row in rows.jobs.values():
        verdict.require(row.status in FINAL, "a job has no end", row.id)
        if row.status in FINAL:
            verdict.require(rows.endings.get(row.id) == 1, "a job ended other than once", row.id)
            result = json.loads(row.result) if row.result else {}
            verdict.require(result.get("status") == row.status, "a result is not of its job's state", row.id)
    duplicated = 0
    for job in load.jobs:
        duplicated += _check_job(verdict, job, rows)
    unclear = sum(job.unclear for job in load.jobs if job.key is None)
    unclear += sum(job.celery and not job.ids for job in load.jobs)
    of_lines = {line.job_id for line in rows.lines}
    unknown = [job_id for job_id in rows.jobs if job_id not in accepted and job_id not in of_lines]
    verdict.require(len(unknown) <= unclear, "there are jobs that nobody sent", unknown)
    verdict.figures |= {
        "accepted": len(accepted),
        "lost": len(lost),
        "duplicated": duplicated,
        "by_status": dict(Counter(row.status for row in rows.jobs.values())),
    }


def _check_job(verdict: Verdict, job: Job, rows: Rows) -> int:
    verdict.require(bool(job.ids), "a job was never accepted", job.number)
    if job.key is not None:
        verdict.require(len(set(job.ids)) <= 1, "one idempotency key has several jobs", (job.key, job.ids))
    if job.cancel_answer is not None:
        verdict.require(job.cancel_answer in FINAL, "a cancelled job had not ended", (job.ids, job.cancel_answer))
        ended = rows.jobs.get(job.ids[0])
        same = ended is not None and ended.status == job.cancel_answer
        verdict.require(same, "a job's end changed after it was shown", job.ids[0])
    if job.digest is not None and job.ids[0] in rows.jobs:
        stored = json.loads(rows.jobs[job.ids[0]].result or "{}")
        verdict.require(digest_of(stored) == job.digest, "a result changed after it was shown", job.ids[0])
    return max(0, len(set(job.ids)) - 1)


def _check_steps(verdict: Verdict, rows: Rows) -> None:
    done: dict[tuple[str, str], list[int]] = defaultdict(list)
    for attempt in rows.attempts:
        key = (attempt.job_id, attempt.step)
        where = (*key, attempt.attempt)
        verdict.require(attempt.outcome != "running", "an attempt is still open", where)
        if attempt.outcome == "done":
            done[key].append(attempt.attempt)
        ended = rows.jobs[attempt.job_id].finished_at
        late = ended is not None and attempt.claimed_at > ended + LATE_S
        verdict.require(not late, "a step began after its job's end", where)
    for key, step in rows.steps.items():
        verdict.require(step.lease_until is None, "a lease is left", key)
        verdict.require(step.status in ("done", "failed", "cancelled"), "a step has no end", key)
        verdict.require(step.attempts - step.released <= STARTS_MAX, "a step ran too often", (*key, step.attempts))
        newest = [step.attempts] if step.status == "done" else []
        verdict.require(done[key] == newest, "a result is not of the newest attempt alone", (*key, done[key]))
    for row in rows.comparisons:
        for index in (row.first, row.second):
            step = rows.steps.get((row.job_id, f"generate-{index}"))
            finished = step is not None and step.status == "done"
            verdict.require(finished, "a candidate was compared that had not finished", (row.job_id, index))
    for batch in rows.batches:
        verdict.require(batch.lease_until is None, "a batch's lease is left", batch.id)
    outcomes = Counter(attempt.outcome for attempt in rows.attempts)
    verdict.figures |= {"rejected_stale_writes": outcomes["stale"], "attempts": dict(outcomes)}


def _check_calls(verdict: Verdict, stack: Stack, rows: Rows, lost_at: list[float]) -> None:
    """Compare our ledger with the engine's, attempt by attempt: the engine is told in X-Request-Id whose call it is.

    `lost_at`: when the connections that there were got lost, so that the engine could not see a client leave.
    """
    calls: dict[tuple[str, str, int], list[CallRecord]] = defaultdict(list)
    for call in stack.engine.calls:
        job_id, step, number = call.request.headers.get("x-request-id", "..0").split(".")
        calls[job_id, step, int(number)].append(call)
    attempts = {(row.job_id, row.step, row.attempt): row for row in rows.attempts}
    alive = {pid for role in stack.roles if (pid := stack.pid(role)) is not None}
    to_unix = time.time() - time.monotonic()
    figures = Counter[str]()
    for key, made in calls.items():
        attempt = attempts.get(key)
        sent = sum(call.sent_tokens for call in made)
        figures["tokens_sent"] += sent
        verdict.require(attempt is not None, "a call has no attempt", key)
        if attempt is None:
            figures["tokens_unaccounted"] += sent
            continue
        figures["tokens_in_ledger"] += attempt.completion_tokens
        kind = _account(attempt, made, sent=sent, alive=pid_of(attempt.worker) in alive)
        missing = sent - attempt.completion_tokens
        figures[kind] += abs(missing)
        explained = kind != "tokens_unaccounted" or missing == 0
        verdict.require(explained, "tokens are unaccounted", (*key, attempt.outcome, sent, attempt.completion_tokens))
        if pid_of(attempt.worker) not in stack.stopped_pids:
            _check_times(verdict, made, key, rows.jobs[key[0]].finished_at, to_unix, lost_at)
    verdict.figures |= {name: figures[name] for name in _KINDS}


_KINDS = (
    "tokens_sent",
    "tokens_in_ledger",
    "tokens_unaccounted",
    "tokens_lost_with_their_worker",
    "tokens_under_way_when_cut",
)


def _account(attempt: Any, calls: list[CallRecord], *, sent: int, alive: bool) -> str:
    """Where the difference between the two ledgers belongs."""
    if not attempt.backend:
        return "tokens_unaccounted" if alive else "tokens_lost_with_their_worker"
    # What was cut off may have been sent and never received; what was received can never be more than was sent. Of a
    # call whose connection broke before its answer began nothing is known here, whatever the engine had sent of it.
    unanswered = len(calls) > 1 or (attempt.outcome == "failed" and attempt.completion_tokens == 0)
    cut = attempt.usage_estimated or unanswered or any(call.outcome in CUT for call in calls)
    if cut and attempt.completion_tokens <= sent:
        return "tokens_under_way_when_cut"
    return "tokens_unaccounted"


def _check_times(
    verdict: Verdict, calls: list[CallRecord], key: object, ended: float | None, to_unix: float, lost_at: list[float]
) -> None:
    for call in calls:
        if ended is None:
            continue
        opened = call.opened_at + to_unix
        closed = (call.closed_at if call.closed_at is not None else time.monotonic()) + to_unix
        verdict.require(opened <= ended + LATE_S, "a call began after its job's end", key)
        seen = not any(opened <= at <= closed for at in lost_at)
        held = closed <= ended + CLOSED_S or not seen
        verdict.require(held, "a stream stayed open after its job's end", key)


def _check_batch(verdict: Verdict, batch: Batch, rows: Rows) -> None:
    counts: Mapping[str, int] = batch.object.get("request_counts", {})
    good = len(batch.custom_ids) - len(batch.bad)
    verdict.require(batch.object.get("status") == "completed", "a batch is not completed", batch.object)
    seen = Counter(line["custom_id"] for line in batch.lines)
    wrong = [custom_id for custom_id in batch.custom_ids if seen[custom_id] != 1]
    verdict.require(not wrong and len(seen) == len(batch.custom_ids), "a batch line came not exactly once", wrong)
    answered = {line["custom_id"] for line in batch.lines if (line.get("response") or {}).get("status_code") == 200}
    verdict.require(counts.get("completed") == len(answered), "a batch counts wrong", (counts, len(answered), good))
    jobs = [line.job_id for line in rows.lines if line.batch_id == batch.id]
    verdict.require(len(set(jobs)) == len(batch.custom_ids), "batch lines have not each a job", batch.id)


def _check_bells(verdict: Verdict, rows: Rows, *, before: float) -> None:
    """As long as nothing is broken hardly a step waits for the sweeper: its message came after it was committed.

    Hardly, since a worker that has more messages than slots makes the sweeper ring again for some of them.
    """
    quiet = [step for step in rows.steps.values() if step.status == "done" and step.attempts == 1]
    quiet = [step for step in quiet if step.finished_at < before]
    again = sum(step.published_at != step.created_at for step in quiet)
    few = again <= max(BELLS_MIN, BELLS_SHARE * len(quiet))
    verdict.require(few, "steps were rung for again without a fault", f"{again} of {len(quiet)}")
    verdict.figures["rung_again_before_the_first_fault"] = again
