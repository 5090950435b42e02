"""The typer application. Commands import what they run only when they run, so that `--help` is quick."""

import errno
import sys
from typing import Annotated, Any

import typer

from .. import __version__
from ..schemas.errors import K2ThinkError
from .batch import batch_app
from .bench import bench_app
from .doctor import doctor
from .exits import Exit, drop_output, fail
from .inspect import jobs_app, queues
from .keys import keys_app
from .models import models_app
from .operate import db_app, gateway, sweeper, up, worker
from .redis_acl import redis_app
from .solve import solve
from .tenants import tenants_app
from .vllm import vllm_app

app = typer.Typer(
    name="k2think",
    help="Plan, sample, verify, screen: the K2-Think reasoning system.\n\n"
    "With nothing configured, everything runs on this machine with the bundled model.\n\n"
    'Start with: k2think solve "What is 347 + 58?"\n\n'
    "Exit codes: 0 succeeded, 1 failed, 2 bad usage or settings, 3 refused, 4 cancelled or expired.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"k2think {__version__}")
        raise typer.Exit()


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version),
    ] = False,
) -> None:
    """See `app`'s help."""


app.command()(solve)
app.add_typer(batch_app, name="batch")
app.command()(up)
app.command()(gateway)
app.command()(worker)
app.command()(sweeper)
app.add_typer(jobs_app, name="jobs")
app.command()(queues)
app.add_typer(keys_app, name="keys")
app.add_typer(tenants_app, name="tenants")
app.add_typer(db_app, name="db")
app.add_typer(models_app, name="models")
app.add_typer(redis_app, name="redis")
app.add_typer(vllm_app, name="vllm")
app.add_typer(bench_app, name="bench")
app.command()(doctor)


def _mount_recipe() -> None:
    from ..evaluation.cli import app as eval_app
    from ..training.cli import app as train_app

    app.add_typer(train_app, name="train", help="Post-training: make a model by the recipe.")
    app.add_typer(eval_app, name="eval", help="Evaluate models and policies.")


_mount_recipe()


_ClickError: Any = typer.BadParameter.__mro__[2]
"""ClickException, by way of typer: newer ones carry a click of their own, whose errors are not the package click's."""


_OUTPUT_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def main() -> None:
    """Entry point: run a command, turn every designed error into one message, and exit."""
    try:
        code = app(standalone_mode=False)
        if sys.stdout:  # not there where who started us closed it
            sys.stdout.flush()
    except typer.Abort:
        print("Aborted.", file=sys.stderr)
        sys.exit(Exit.ended)
    except _ClickError as exc:
        exc.show()
        sys.exit(Exit.usage)
    except K2ThinkError as exc:
        sys.exit(fail(exc))
    except KeyboardInterrupt:
        sys.exit(Exit.ended)
    except BrokenPipeError:
        drop_output()
        sys.exit(Exit.failed)
    except OSError as exc:
        if exc.errno not in _OUTPUT_FULL or exc.filename is not None:
            raise
        drop_output()
        print(f"Error: the output could not be written: {exc.strerror}", file=sys.stderr)
        sys.exit(Exit.failed)
    sys.exit(code if isinstance(code, int) else 0)
