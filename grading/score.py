"""The one scoring function: training's reward, evaluation's verdict and selection's check are this."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import JsonValue

from ..schemas.errors import GradingError, UserError
from ..schemas.scores import Domain, Score, Task
from .blocking import run
from .counts import count
from .rewards.judge import Judge
from .rewards.sources import Check, find_source, source_of

__all__ = ["Judge", "check_of", "score", "score_sync", "score_task"]

_LETTERS = frozenset("ABCDEFGHIJ")


async def score(
    domain: Domain | str,
    text: str,
    truth: JsonValue,
    meta: Mapping[str, JsonValue] | None = None,
    *,
    judge: Judge | None = None,
) -> Score:
    """Say what `text`, a model's whole output, is worth.

    `domain` is a domain, or the name of a data source (`logic__zebra_puzzle`, `reasoning_gym:chain_sum`). With a domain
    alone, `meta["source"]` names the source; without that the form of `truth` tells how to check.
    What `truth` and `meta` hold for each domain, and every `reason`: docs/rewards.md.

    Never raises for anything that stands in `text`. Raises GradingError when the check itself fails (no sandbox, a
    worker or a judge that died, a truth that is no reference), ConfigurationError for an unknown source or a package
    that is not installed.
    """
    details = dict(meta or {})
    if domain not in set(Domain):
        details["source"] = domain
    try:
        result = await _score(check_of(domain, truth, details), text, truth, details, judge)
    except UserError:
        raise
    except GradingError:
        count("score_error")
        raise
    except Exception as exc:
        count("score_error")
        raise GradingError(f"the check of an answer ({domain}) failed: {type(exc).__name__}: {exc}") from exc
    count("scored")
    return result


async def score_task(task: Task, text: str, *, judge: Judge | None = None) -> Score:
    """:func:`score` for a typed task: its source and its question are handed on."""
    meta: dict[str, JsonValue] = {"question": task.prompt, **task.meta, "source": task.source}
    return await score(task.domain, text, task.truth, meta, judge=judge)


def score_sync(
    domain: Domain | str,
    text: str,
    truth: JsonValue,
    meta: Mapping[str, JsonValue] | None = None,
    *,
    judge: Judge | None = None,
) -> Score:
    """:func:`score` for threads and for processes of any kind: blocks until it is decided."""
    return run(score(domain, text, truth, meta, judge=judge))


def check_of(domain: Domain | str, truth: JsonValue, meta: Mapping[str, JsonValue]) -> Check:
    """Return how an answer is to be checked. Raises ConfigurationError when that cannot be known."""
    if domain not in set(Domain):
        return source_of(domain).check
    name = meta.get("source")
    known = find_source(name) if isinstance(name, str) else None
    if known is not None and known.domain == domain:
        return known.check
    match Domain(domain):
        case Domain.math:
            return Check.math
        case Domain.code:
            return Check.code
        case Domain.science:
            return Check.choice if meta.get("choices") or _is_letter(truth) else Check.free
        case Domain.logic:
            return _logic_check(truth)
        case Domain.simulation:
            return Check.simulation
        case Domain.table:
            return Check.table
        case Domain.procedural:
            return Check.generator


def _is_letter(truth: JsonValue) -> bool:
    return isinstance(truth, str) and truth.strip() in _LETTERS


def _logic_check(truth: JsonValue) -> Check:
    if isinstance(truth, str):  # JSON or Python, as a column of a table holds it
        written = "".join(truth.split())
        if written.startswith("{"):
            return Check.zebra
        if written.startswith("["):
            return Check.grid if written.startswith("[[") else Check.ordering
    if isinstance(truth, dict):
        return Check.zebra
    if isinstance(truth, list):
        return Check.grid if truth and isinstance(truth[0], list) else Check.ordering
    return Check.graph


async def _score(
    check: Check, text: str, truth: JsonValue, meta: Mapping[str, JsonValue], judge: Judge | None
) -> Score:
    match check:
        case Check.math:
            from .rewards.math import score_math

            return await score_math(text, truth, meta)
        case Check.code:
            from .rewards.code import score_code

            return await score_code(text, truth, meta)
        case Check.choice:
            from .rewards.science import score_choice

            return score_choice(text, truth, meta)
        case Check.free:
            from .rewards.science import score_free

            return await score_free(text, truth, meta, judge)
        case Check.zebra:
            from .rewards.zebra import score_zebra

            return score_zebra(text, truth, meta)
        case Check.ordering:
            from .rewards.logic import score_ordering

            return score_ordering(text, truth, meta)
        case Check.graph:
            from .rewards.logic import score_graph

            return score_graph(text, truth, meta)
        case Check.grid:
            from .rewards.grid import score_grid

            return score_grid(text, truth, meta)
        case Check.simulation:
            from .rewards.simulation import score_simulation

            return score_simulation(text, truth, meta)
        case Check.cruxeval:
            from .rewards.cruxeval import score_cruxeval

            return await score_cruxeval(text, truth, meta)
        case Check.table:
            from .rewards.table import score_table

            return score_table(text, truth, meta)
        case Check.generator:
            from .rewards.procedural import score_generated

            return await score_generated(text, truth, meta)
