"""What a long history costs: the status query, the lists, the sweeper's looks, and the whole life of a job. Prints JSON.

    python benchmarks/log_size.py --rows 1000000
    python benchmarks/log_size.py --rows 1000000 --database postgresql

Two databases are filled with finished jobs, one to 1,000 rows and one to --rows (jobs, steps, attempts, events and
comparisons together). The rows are those of jobs that this program plays through the store's own functions, with texts as
long as a model's, copied under new ids and at other times. Then both are measured in turn, --rounds times: queries on jobs
drawn from the whole log, and new jobs that are accepted, claimed, finished and decided, --at-once of them side by side.

CPU is this process's and, with PostgreSQL, its server's; models, Redis and HTTP have no part in it. A million rows need
about 2 GB of disk and some minutes. `ratio` is the large log's figure by the small one's: 1.0 is flat.
"""

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from k2think.schemas.completion import ChatMessage, TokenUsage
from k2think.schemas.ids import uuid7
from k2think.schemas.jobs import SolveRequest
from k2think.schemas.messages import Body, ComparePair, Envelope, GenerateCandidate, MakePlan
from k2think.schemas.outcomes import Candidate, Compared, Planned, Preference, Screened, ScreenVerdict, StepResult
from k2think.schemas.policy import Policy
from k2think.schemas.settings import Settings
from k2think.schemas.trace import CallTrace
from k2think.store.database import Database
from k2think.store.job_views import job_object, list_job_objects
from k2think.store.jobs import events_after, job_result, queue_depths, unreplied
from k2think.store.migrate import upgrade
from k2think.store.steps import claim_step, finish_step
from k2think.store.sweep import any_unrung, due_jobs, ready_counts
from k2think.store.tables import attempts, comparisons, events, jobs, steps
from k2think.workers.coordinator import Coordinator
from k2think.workers.dispatcher import Dispatcher
from k2think.workers.logs import quiet_logs
from k2think.workers.submit import Submitter
from pydantic import SecretStr
from race.figures import quantile, rounded
from race.postgres import running_postgres
from sqlalchemy import Column, ColumnElement, Connection, Double, MetaData, Table, Text, func, insert, select, text

SMALL_ROWS = 1_000
PATTERNS = 16
"""Jobs that are played to be copied."""
TABLES = (jobs, steps, attempts, events, comparisons)
TIMES = {column.name for table in TABLES for column in table.columns if column.name.endswith("_at")} | {"at"}
LEASE_S = 15.0
SPREAD_S = 0.05
"""Seconds between two copied jobs."""
TENANT = "default"
WORDS = "first second number therefore consider value equation because follows assume multiply remaining total result "
PROBLEM = "Two trains leave towards each other, 417 km apart, at 63 and 76 km/h. When do they meet? " * 2
COPY_BATCH = 5_000


def words(characters: int) -> str:
    """Return some text of this length."""
    return (WORDS * (characters // len(WORDS) + 1))[:characters]


class Silent:
    """In the dispatcher's place: keeps the messages for who plays the workers."""

    def __init__(self) -> None:
        self.messages: dict[str, list[Envelope]] = {}

    def publish(self, messages: tuple[Envelope, ...] | list[Envelope]) -> None:
        """Keep them by job."""
        for message in messages:
            self.messages.setdefault(message.job_id, []).append(message)

    def notify_cancel(self, job_id: str, steps: list[str] | None) -> None:
        """Nobody listens."""

    def notify_job(self, job_id: str, *, ended: bool = False) -> None:
        """Nobody listens."""


class Players:
    """Accepts jobs on one database and plays all workers for them, by the functions that the real ones call."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._bell = Silent()
        self._coordinator = Coordinator(database, cast(Dispatcher, self._bell))
        settings = Settings(_env_file=None, broker_url=SecretStr("redis://nowhere"))  # pyright: ignore[reportCallIssue]
        self._submitter = Submitter(settings, self._coordinator)

    async def play(self, number: int) -> str:
        """Run one job from its request to its end; return its id."""
        request = SolveRequest(problem=f"{PROBLEM} ({number})", policy=Policy(n=3))
        job_id = (await self._submitter.submit(request)).job_id
        while messages := self._bell.messages.pop(job_id, []):
            for message in messages:
                await self._step(message, number)
        return job_id

    async def _step(self, message: Envelope, number: int) -> None:
        claim = await self.database.run(
            lambda conn: claim_step(conn, message, worker="all-1", now=self.database.now(), lease_s=LEASE_S)
        )
        if claim is None:  # no longer wanted
            return
        result, call = outcome(message.body, number)
        await self._coordinator.advance(
            message.job_id,
            lambda conn: finish_step(conn, claim, result=result, call=call, now=self.database.now()),
        )


def outcome(body: Body, number: int) -> tuple[StepResult, CallTrace | None]:
    """Return what an agent makes of a step, with its model call. In every second job the candidates disagree."""
    match body:
        case MakePlan():
            return Planned(plan=words(400)), called(400, 0)
        case GenerateCandidate(candidate=index):
            answer = str(index if number % 2 else 3)
            return Candidate(index=index, content=words(600), answer=answer, reasoning=words(2_000)), called(600, 2_000)
        case ComparePair(first=first, second=second):
            preference = Preference.first if first < second else Preference.second
            return Compared(first=first, second=second, preference=preference, reason=words(200)), called(200, 800)
        case _:
            return Screened(verdict=ScreenVerdict.safe), None


def called(content: int, reasoning: int) -> CallTrace:
    """Return the record of a call with texts of so many characters."""
    usage = TokenUsage(prompt=300, completion=(content + reasoning) // 4, reasoning=reasoning // 4)
    return CallTrace(
        backend="openai",
        model="model",
        prompt=[ChatMessage(role="user", content=words(1_200))],
        parameters={"temperature": 1.0, "max_tokens": 4096, "seed": 1},
        raw_text=words(content),
        reasoning=words(reasoning),
        usage=usage,
        finish_reason="stop",
        time_to_first_token_s=0.1,
        duration_s=1.0,
    )


# ---- Filling


COPIES = Table(
    "copies", MetaData(), Column("id", Text), Column("pattern", Text), Column("age_s", Double), prefixes=["TEMPORARY"]
)
"""New id of each copy, the job that is copied, and by how many seconds the copy is older."""


def count_rows(conn: Connection) -> int:
    """Return the rows of the log."""
    return sum(conn.execute(select(func.count()).select_from(table)).scalar_one() for table in TABLES)


def copy_rows(conn: Connection, table: Table) -> None:
    """Write one table's rows of the patterns once more for each row of COPIES."""
    wanted = [column for column in table.columns if column is not events.c.seq]
    key = jobs.c.id if table is jobs else table.c.job_id
    order = [COPIES.c.id, *([events.c.seq] if table is events else [])]
    rows = select(*(copied(column) for column in wanted)).join_from(COPIES, table, key == COPIES.c.pattern)
    conn.execute(insert(table).from_select([column.name for column in wanted], rows.order_by(*order)))


def copied(column: Column[Any]) -> ColumnElement[Any]:
    """The value of a copy: the id is its own, times are earlier."""
    if column is jobs.c.id or column.name == "job_id":
        return COPIES.c.id
    return column - COPIES.c.age_s if isinstance(column.type, Double) and column.name in TIMES else column


async def fill(url: str, rows: int) -> tuple[Database, list[str]]:
    """Make a database with about this many rows of finished jobs; return it open, with the ids of its jobs."""
    await asyncio.to_thread(upgrade, url)
    database = Database(url)
    players = Players(database)
    ids = [await players.play(number) for number in range(PATTERNS)]
    each = await database.read(count_rows) / PATTERNS
    missing = max(0, round(rows / each) - PATTERNS)
    copies = [{"id": uuid7(), "pattern": ids[n % PATTERNS], "age_s": (missing - n) * SPREAD_S} for n in range(missing)]
    ids += [copy["id"] for copy in copies]

    def write(conn: Connection, part: list[dict[str, Any]]) -> None:
        COPIES.create(conn)
        conn.execute(insert(COPIES), part)
        for table in TABLES:
            copy_rows(conn, table)
        COPIES.drop(conn)

    for start in range(0, missing, COPY_BATCH):
        part = copies[start : start + COPY_BATCH]
        await database.run(lambda conn, part=part: write(conn, part))
    if url.startswith("postgresql"):  # which does so by itself in time
        await database.run(lambda conn: conn.execute(text("ANALYZE")))
    return database, ids


@contextmanager
def databases(kind: str) -> Generator[tuple[str, str, int | None]]:
    """Yield the URLs of two empty databases, and the process id of their server; None = SQLite."""
    if kind == "sqlite":
        with tempfile.TemporaryDirectory(prefix="k2log-") as folder:
            yield f"sqlite:///{Path(folder) / 'small.db'}", f"sqlite:///{Path(folder) / 'large.db'}", None
        return
    import psycopg

    with running_postgres() as (url, pid):
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CREATE DATABASE large")
        yield url, url.replace("/postgres?", "/large?"), pid


# ---- Measuring


@dataclass
class Measured:
    """One database and what it took there."""

    database: Database
    ids: list[str]
    rows: int
    """Before anything was measured; new jobs add to them."""
    ms: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    """Milliseconds of each query."""
    cpu_ms: list[float] = field(default_factory=list[float])
    """CPU per job, by round."""
    wall_ms: list[float] = field(default_factory=list[float])
    """Clock per job, by round."""

    def figures(self) -> dict[str, Any]:
        """Return medians over the rounds, and quantiles of the queries."""
        told: dict[str, Any] = {"rows": self.rows}
        for name, values in self.ms.items():
            told[name] = {"p50_ms": quantile(values, 0.5), "p95_ms": quantile(values, 0.95)}
        told["job"] = {"cpu_ms": statistics.median(self.cpu_ms), "wall_ms": statistics.median(self.wall_ms)}
        return told


def queries(database: Database, job_id: str) -> dict[str, Callable[[Connection], object]]:
    """The reads that callers and the sweeper wait for."""
    now = database.now()
    return {
        "status": lambda conn: job_result(conn, job_id),
        "get_job": lambda conn: job_object(conn, job_id, tenant=TENANT),
        "list_jobs": lambda conn: list_job_objects(conn, tenant=TENANT),
        "list_older_jobs": lambda conn: list_job_objects(conn, tenant=TENANT, after=job_id),
        "events": lambda conn: events_after(conn, job_id, 0),
        "queue_depths": queue_depths,
        "sweep": lambda conn: (
            due_jobs(conn, now=now),
            ready_counts(conn),
            any_unrung(conn, now=now),
            unreplied(conn, limit=100),
        ),
    }


async def ask(measured: Measured, times: int, *, seed: int) -> None:
    """Time each query on jobs from anywhere in the log."""
    for job_id in random.Random(seed).choices(measured.ids, k=times):
        for name, query in queries(measured.database, job_id).items():
            began = time.perf_counter()
            await measured.database.read(query)
            measured.ms.setdefault(name, []).append(1e3 * (time.perf_counter() - began))


async def live(measured: Measured, count: int, *, at_once: int, server: int | None) -> None:
    """Run new jobs through their whole life, and note what one costs."""
    players = Players(measured.database)
    numbers = iter(range(count))

    async def one_after_the_other() -> None:
        for number in numbers:
            await players.play(number)

    cpu, clock = cpu_s(server), time.perf_counter()
    await asyncio.gather(*(one_after_the_other() for _ in range(at_once)))
    measured.cpu_ms.append(1e3 * (cpu_s(server) - cpu) / count)
    measured.wall_ms.append(1e3 * (time.perf_counter() - clock) / count)


def cpu_s(server: int | None) -> float:
    """CPU of this process so far, in seconds, and of a server with the children that it has."""
    own = time.process_time()
    if server is None:
        return own
    children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
    return own + sum(_cpu_of(pid) for pid in (str(server), *children))


def _cpu_of(pid: str) -> float:
    # The scheduler's own count, in nanoseconds: clock ticks are too coarse.
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


async def run(options: argparse.Namespace) -> dict[str, Any]:
    """Fill, measure in turn, compare."""
    with databases(options.database) as (small_url, large_url, server):
        both: dict[str, Measured] = {}
        for name, url, rows in (("small", small_url, SMALL_ROWS), ("large", large_url, options.rows)):
            database, ids = await fill(url, rows)
            both[name] = Measured(database, ids, await database.read(count_rows))
            print(f"{name}: {both[name].rows} rows, {len(ids)} jobs", file=sys.stderr)
        try:
            for measured in both.values():  # what is done for the first time costs more
                await live(measured, options.at_once, at_once=options.at_once, server=server)
                measured.cpu_ms.clear()
                measured.wall_ms.clear()
            for number in range(options.rounds):
                order = list(both.values()) if number % 2 else list(both.values())[::-1]
                for measured in order:
                    await ask(measured, options.queries, seed=number)
                    await live(measured, options.jobs, at_once=options.at_once, server=server)
            figures = {name: measured.figures() for name, measured in both.items()}
        finally:
            for measured in both.values():
                await asyncio.to_thread(measured.database.close)
    ratio = {
        name: {key: value / figures["small"][name][key] for key, value in row.items()}
        for name, row in figures["large"].items()
        if isinstance(row, dict)
    }
    return {"database": options.database, "rounds": options.rounds, "jobs": options.jobs, **figures, "ratio": ratio}


def table(found: dict[str, Any]) -> str:
    """Return the figures as Markdown."""
    lines = [f"| {found['database']} | {found['small']['rows']} rows | {found['large']['rows']} rows | ratio |"]
    lines.append("|---|---|---|---|")
    for name, row in found["ratio"].items():
        for key, value in row.items():
            small, large = found["small"][name][key], found["large"][name][key]
            lines.append(f"| {name} {key} | {small:.3g} | {large:.3g} | {value:.2f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000, help="rows of the large log (default 100,000)")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite", help="default sqlite")
    parser.add_argument("--rounds", type=int, default=5, help="times that both are measured (default 5)")
    parser.add_argument("--jobs", type=int, default=100, help="new jobs per round and database (default 100)")
    parser.add_argument("--at-once", type=int, default=16, help="new jobs side by side (default 16)")
    parser.add_argument("--queries", type=int, default=100, help="queries of each kind per round (default 100)")
    options = parser.parse_args()
    quiet_logs()
    found = asyncio.run(run(options))
    print(json.dumps(rounded(found), indent=2))
    print(table(found), file=sys.stderr)


if __name__ == "__main__":
    main()
