"""`k2think jobs …` and `k2think queues`: looking at what the database holds. No stack need run."""

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..schemas.errors import InvalidRequest, NotFound
from ..schemas.jobs import JobError, JobStatus
from ..schemas.settings import Settings, load_settings
from ..schemas.trace import JobTrace
from ..schemas.withheld import withhold_refused
from .exits import Exit
from .terminal import age, cell, console, plain, print_json, table

if TYPE_CHECKING:
    from ..store.database import Database

PREFIX_CHARS_MIN = 8
AMBIGUOUS_SHOWN = 5
LIST_MAX = 10_000
DEAD_LETTERS_SHOWN = 10

jobs_app = typer.Typer(
    help="Look at jobs: list, show, why, trace, cancel. Needs only the database.", no_args_is_help=True
)

JobId = Annotated[str, typer.Argument(metavar="ID", help="The job's id, or its first characters (at least 8).")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@jobs_app.command("list")
def list_(
    status: Annotated[JobStatus | None, typer.Option(help="Only jobs in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=LIST_MAX, help="Jobs at most.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first.

    Examples:

      k2think jobs list --status failed

      k2think jobs list --limit 1000 --json | jq -r '.[].job_id'
    """
    from ..store.jobs import list_jobs

    database = open_database(load_settings())
    try:
        found = database.read_sync(lambda connection: list_jobs(connection, status=status, limit=limit))
    finally:
        database.close()
    if as_json:
        print_json([job.model_dump(mode="json") for job in found])
        return
    rows = table("ID", "STATUS", "AGE", "PROBLEM", "ANSWER", wide="PROBLEM")
    for job in found:
        outcome = job.answer if job.answer is not None else f"({job.error_code})" if job.error_code else ""
        rows.add_row(job.job_id, job.status.value, age(job.created_at), cell(job.problem), cell(outcome))
    if found:
        console().print(rows)
    else:
        print("No jobs." if status is None else f"No {status.value} jobs.")


@jobs_app.command("show")
def show(job_id: JobId, as_json: AsJson = False) -> None:
    """Show what a job came to: answer, how it was chosen, tokens, time.

    Examples:

      k2think jobs show 019a2b3c

      k2think jobs show 019a2b3c --json | jq .usage
    """
    from .job_text import result_lines

    trace = withhold_refused(_trace(job_id))
    result = trace.result
    if as_json:
        print_json(_unfinished(trace) if result is None else result.model_dump(mode="json"))
        return
    if result is None:
        done = sum(step.status.final for step in trace.steps)
        print(
            f"job {trace.job_id}: {trace.status.value} for {age(trace.created_at)}, {done} of {len(trace.steps)} steps done"
        )
        return
    _print(result_lines(result))


@jobs_app.command("why")
def why(job_id: JobId) -> None:
    """Explain in a few lines why a job came to its answer, or to none.

    Which candidates agreed, which were out and why, what the judge said, what was tried again, what each stage cost.

    Example:

      k2think jobs why 019a2b3c
    """
    from .job_text import why_lines

    _print(why_lines(withhold_refused(_trace(job_id))))


@jobs_app.command("trace")
def trace(job_id: JobId, as_json: AsJson = False) -> None:
    r"""Show everything about a job: each step, attempt and model call, with prompts, parameters and texts.

    Where the safety filter withheld something, all text of the models is shown as \[withheld].

    Examples:

      k2think jobs trace 019a2b3c | less

      k2think jobs trace 019a2b3c --json > trace.json
    """
    from .trace_text import trace_lines

    found = withhold_refused(_trace(job_id))
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        _print(trace_lines(found))


@jobs_app.command("cancel")
def cancel(job_id: JobId) -> None:
    """Cancel a job: no call starts any more, and running ones are closed.

    A job that has ended already is left as it is; the exit code is 0 then too.

    Example:

      k2think jobs cancel 019a2b3c
    """
    settings = load_settings()
    database = open_database(settings)
    try:
        full = _resolve(database, job_id)
        ended = _cancel(settings, database, full)
        status = _status(database, full)
    finally:
        database.close()
    if ended:
        print(f"job {full}: cancelled")
    else:
        print(f"job {full}: had ended already ({status.value})")
    raise typer.Exit(Exit.succeeded)


def queues(as_json: AsJson = False) -> None:
    """Show how much work waits and runs in each queue, who is alive, and the steps that were given up (dead letters).

    `ready` and `running` are what the database knows; `in redis` are messages on their way, where a Redis is reachable.
    Alive are the processes that gave a sign of life in the last K2THINK_LEASE_S seconds and were not told to stop.

    Examples:

      k2think queues

      k2think queues --json | jq '.queues.generator.ready'
    """
    from ..store.jobs import queue_depths
    from ..store.sweep import dead_letters
    from ..store.workers import ROLES_NEEDED, living_roles

    settings = load_settings()
    database = open_database(settings)
    try:
        depths = database.read_sync(queue_depths)
        dead = database.read_sync(lambda connection: dead_letters(connection, limit=LIST_MAX))
        living = database.read_sync(
            lambda connection: living_roles(connection, since=database.now() - settings.lease_s)
        )
    finally:
        database.close()
    waiting = _in_redis(settings, sorted({*_standard_queues(), *depths}))
    names = sorted({*_standard_queues(), *depths})
    none = {"ready": 0, "running": 0}
    alive = {role: living.get(role, 0) for role in (*ROLES_NEEDED, *sorted({*living} - {*ROLES_NEEDED}))}
    if as_json:
        rows = {name: {**depths.get(name, none), "in_redis": waiting and waiting.get(name)} for name in names}
        facts = {"dead_letters": len(dead), "alive": alive, "redis_reachable": waiting is not None}
        print_json({"queues": rows, **facts})
        return
    lines = table("QUEUE", "READY", "RUNNING", "IN REDIS")
    for name in names:
        depth = depths.get(name, none)
        inside = "?" if waiting is None else str(waiting.get(name, 0))
        lines.add_row(cell(name), str(depth["ready"]), str(depth["running"]), inside)
    console().print(lines)
    print("alive: " + (", ".join(f"{role} {count}" for role, count in alive.items()) if living else "nobody"))
    print(f"dead letters: {len(dead)}")
    for letter in dead[:DEAD_LETTERS_SHOWN]:
        said = plain(letter.failure.message)
        print(f"  {letter.job_id} {letter.step}: {letter.attempts} attempts, {age(letter.at)} ago: {said}")


def open_database(settings: Settings) -> "Database":
    """Open the database to look at it. Raises NotFound when there is none yet, SchemaMismatch for another version's."""
    from ..store.existing import open_existing

    return open_existing(settings)


def live_broker(settings: Settings) -> str | None:
    """Return the URL of the configured Redis, or of a running `up` on the data folder; None = there is neither."""
    from ..workers.queues import broker_url
    from ..workers.redis_server import answers, broker_url_of, socket_path

    if settings.broker_url is not None:
        return broker_url(settings)
    socket: Path = socket_path(settings.data_dir)
    return broker_url_of(socket) if answers(socket) else None


def _trace(job_id: str) -> JobTrace:
    from ..store.jobs import job_trace

    database = open_database(load_settings())
    try:
        full = _resolve(database, job_id)
        return database.read_sync(lambda connection: job_trace(connection, full))
    finally:
        database.close()


def _resolve(database: "Database", given: str) -> str:
    """Turn the beginning of an id into the whole. Raises NotFound, InvalidRequest."""
    from ..store.lookup import job_ids_beginning

    prefix = given.strip().lower()
    if not re.fullmatch(r"[0-9a-f-]{1,36}", prefix):
        raise NotFound(f"no job {plain(given)[:80]!r}: an id looks like 019a2b3c-4d5e-7f60-8a1b-2c3d4e5f6071")
    if len(prefix) < PREFIX_CHARS_MIN:
        raise InvalidRequest(f"the id {given!r} is too short: give at least {PREFIX_CHARS_MIN} characters of it")
    found = database.read_sync(lambda connection: job_ids_beginning(connection, prefix, limit=AMBIGUOUS_SHOWN + 1))
    if not found:
        raise NotFound(f"no job {given!r}: `k2think jobs list` shows those that exist")
    if len(found) > 1:
        shown = "\n".join(f"  {job_id}" for job_id in found[:AMBIGUOUS_SHOWN])
        more = "\n  …" if len(found) > AMBIGUOUS_SHOWN else ""
        raise InvalidRequest(f"several jobs begin with {given!r}; give more of the id:\n{shown}{more}")
    return found[0]


def _cancel(settings: Settings, database: "Database", job_id: str) -> bool:
    """End the job, and tell the workers where a Redis is at hand; elsewhere they notice at their next heartbeat."""
    from ..store.jobs import request_cancel
    from ..workers.session import open_session
    from ..workers.stack import with_broker

    broker = live_broker(settings)
    if broker is None:
        error = JobError(code="cancelled", message="cancelled by the caller")
        applied = database.run_sync(
            lambda connection: request_cancel(
                connection, job_id, now=database.now(), status=JobStatus.cancelled, error=error
            )
        )
        return applied is not None

    async def tell() -> bool:
        async with open_session(with_broker(settings, broker)) as session:
            return await session.submitter.cancel(job_id)

    return asyncio.run(tell())


def _status(database: "Database", job_id: str) -> JobStatus:
    from ..store.jobs import job_result

    status, _result = database.read_sync(lambda connection: job_result(connection, job_id))
    return status


def _unfinished(trace: JobTrace) -> dict[str, object]:
    return {"job_id": trace.job_id, "status": trace.status.value, "created_at": trace.created_at, "result": None}


def _standard_queues() -> list[str]:
    from ..schemas.messages import AgentKind

    return [agent.value for agent in AgentKind]


def _in_redis(settings: Settings, names: list[str]) -> dict[str, int] | None:
    """Return the messages that wait in Redis by queue; None = no Redis is reachable."""
    import redis

    from ..workers.queues import list_keys
    from ..workers.redis_clients import redis_client

    broker = live_broker(settings)
    if broker is None:
        return None
    client = redis_client(broker, socket_timeout=2, socket_connect_timeout=2)
    try:
        counts: dict[str, int] = {}
        for name in names:
            pipeline = client.pipeline(transaction=False)
            for key in list_keys(name):
                pipeline.llen(key)
            counts[name] = sum(pipeline.execute())
        return counts
    except (redis.RedisError, OSError):
        return None
    finally:
        client.close()


def _print(lines: list[str]) -> None:
    for line in lines:
        print(plain(line))
