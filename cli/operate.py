"""`k2think up`, `gateway`, `worker`, `sweeper`, `db`: the processes that an operator runs."""

from enum import StrEnum
from importlib.util import find_spec
from typing import Annotated

import typer

from ..schemas.errors import ConfigurationError
from .checkup import working_settings

db_app = typer.Typer(help="The database's schema.", no_args_is_help=True)


class Role(StrEnum):
    """Roles of a worker process."""

    planner = "planner"
    generator = "generator"
    verifier = "verifier"
    safety = "safety"
    intake = "intake"
    all = "all"


def up() -> None:
    """Run the whole stack in the foreground: everything that solves jobs, and the HTTP doors.

    One worker process per role, one generator for each backend in K2THINK_BACKENDS, a sweeper and a gateway.
    With no settings also an embedded Redis, and SQLite in the data folder. Each is restarted when it dies.

    The doors are at http://127.0.0.1:8400: /v1 for any OpenAI client, the trace page at /ui.
    K2THINK_GATEWAY__HOST and K2THINK_GATEWAY__PORT say where else.

    Ctrl-C drains: running steps get K2THINK_SHUTDOWN_S seconds.
    The rest is handed back, and taken up by the next worker.

    Examples:

      k2think up

      K2THINK_GATEWAY__PORT=8500 k2think up
    """
    from ..gateway.address import check_gateway
    from ..workers.up import run_up

    raise typer.Exit(run_up(working_settings(), check_gateway=check_gateway))


def gateway() -> None:
    """Serve the HTTP doors: /v1 for any OpenAI client, /v1/jobs, /metrics, and the trace page at /ui.

    Needs K2THINK_BROKER_URL; `k2think up` starts a gateway by itself. It solves nothing: workers do.

    Run as many as you need behind a balancer.
    All of them need the same database, Redis and K2THINK_GATEWAY__FILES_DIR.

    Listens on 127.0.0.1, port 8400, unless K2THINK_GATEWAY__HOST and K2THINK_GATEWAY__PORT say otherwise.
    An address that other machines reach needs an API key to exist: `k2think keys create`.
    """
    if find_spec("fastapi") is None or find_spec("uvicorn") is None:
        raise ConfigurationError("the HTTP doors are not installed: pip install 'k2think[gateway]'")
    from ..gateway.serve import run_gateway

    raise typer.Exit(run_gateway(working_settings()))


def worker(
    role: Annotated[
        Role,
        typer.Argument(help="Which agent to run; `intake` serves the Celery door, `all` is everything in one process."),
    ],
    backend: Annotated[
        str | None,
        typer.Option(help="Bind the generators of this worker to a backend named in K2THINK_BACKENDS."),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=10_000,
            help="Steps in flight at once. Default: 8 for the embedded engine, 16 for safety rules alone, else 100.",
        ),
    ] = None,
) -> None:
    """Run one worker process; run as many of each role as you need, on as many machines.

    Needs K2THINK_BROKER_URL, and for more than one machine K2THINK_DATABASE_URL. SIGTERM drains it.
    """
    from ..workers.worker import run_worker

    settings = working_settings()
    raise typer.Exit(run_worker(settings, role=role.value, backend=backend, concurrency=concurrency))


def sweeper() -> None:
    """Run a sweeper: it takes up the work of dead workers, rings for lost messages, ends what is past its deadline.

    At least one must run; any number may.
    """
    from ..workers.worker import run_sweeper

    raise typer.Exit(run_sweeper(working_settings()))


@db_app.command("upgrade")
def upgrade() -> None:
    """Create the tables, or bring them to this version. Safe to run again, and by several processes at once."""
    from ..store.migrate import check
    from ..store.migrate import upgrade as run_upgrade
    from ..workers.stack import prepare_data_dir

    settings = working_settings()
    if settings.database_url is None:
        prepare_data_dir(settings)
    run_upgrade(settings.sqlalchemy_url)
    print(f"The database's schema is {check(settings.sqlalchemy_url)}.")
