"""``k2think eval``: asks models the problems of a suite and reports what came back. Heavy imports wait until a command needs them."""

from __future__ import annotations

import typer

from .commands import eval_regrade, eval_run, eval_suites
from .contamination_command import eval_contamination
from .evidence.command import eval_evidence
from .report.command import eval_compare, eval_report

app = typer.Typer(help="Evaluate models and policies.", no_args_is_help=True)


@app.callback()
def _group() -> None:  # pyright: ignore[reportUnusedFunction]
    """Evaluate models and policies."""


app.command("run")(eval_run)
app.command("suites")(eval_suites)
app.command("regrade")(eval_regrade)
app.command("evidence")(eval_evidence)
app.command("contamination")(eval_contamination)
app.command("report")(eval_report)
app.command("compare")(eval_compare)
