"""Generated problems: k2think's own families, and any generator of reasoning-gym by its name.

A family's answer has one canonical spelling; another spelling of the same value is right, too. A generator's answers
are what its own verifier takes in full: by default there is no partial credit, since most verifiers pay some for
answers that cannot be right.
"""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import Future
from importlib.util import find_spec
from typing import Any

from pydantic import JsonValue

from ...schemas.errors import ConfigurationError, GradingError
from ...schemas.scores import Score
from ..equivalence import quick
from ..normal import fold
from ..process import SharedPool, WorkerPool
from .final import Meta, no_answer, right, stated_answer, text_option, text_truth, wrong
from .math import is_undone
from .sources import Source, source_of

LIMIT_S = 20.0
"""Wall-clock seconds for one answer, with the first trial of its problem."""
BOOT_LIMIT_S = 120.0
"""Seconds in which a child must have imported reasoning-gym; three on an idle machine."""
FULL = 1 - 1e-9
"""From here on a verifier's value is full credit: some add floats up."""


class GymPool(WorkerPool[dict[str, Any]]):
    """Runs reasoning-gym's verifiers."""

    def __init__(self, *, processes: int = 1) -> None:
        super().__init__(
            "k2think.grading.rewards.gym",
            needs="is reasoning-gym installed? `pip install 'k2think[procedural]'` installs it",
            processes=processes,
            boot_limit_s=BOOT_LIMIT_S,
        )

    def submit(self, name: str, answer: str, entry: dict[str, Any], limit_s: float = LIMIT_S) -> Future[dict[str, Any]]:
        """Have the verifier `name` look at `answer` to the problem `entry`."""
        return self.ask({"name": name, "answer": answer, "entry": entry}, limit_s)

    def verdict(self, reply: dict[str, Any]) -> dict[str, Any]:
        """Hand a child's reply on."""
        return reply


_shared = SharedPool(GymPool)


def gym_pool() -> GymPool:
    """Return the pool of this process: one child, ended at exit."""
    return _shared.get()


def close_gym_pool() -> None:
    """End the child now; a later score starts a new one."""
    _shared.close()


async def score_generated(text: str, truth: JsonValue, meta: Meta) -> Score:
    """Score a generated problem, by `meta["source"]`: `mini:FAMILY` or `reasoning_gym:NAME`.

    reasoning-gym: meta's `entry` is the generator's own (question, answer, metadata), or `metadata` beside `truth`;
    `partial` (default false) pays what its verifier does, where that is more than garbage earns.
    """
    source = source_of(text_option(meta, "source") or _unnamed(meta))
    answer = stated_answer(text)
    if answer is None or not answer.strip():
        return no_answer()
    if source.family:
        return _score_family(answer.strip(), text_truth(truth, "generated"))
    return await _score_by_gym(answer, truth, meta, source)


def _unnamed(meta: Meta) -> str:
    name = text_option(meta, "generator")
    if not name:
        raise GradingError("a generated problem needs meta['source'], such as reasoning_gym:chain_sum or mini:words")
    return f"reasoning_gym:{name}"


def _score_family(answer: str, truth: str) -> Score:
    if answer == truth:
        return right("equal", truth)
    if quick(answer, truth):
        if is_undone(answer, truth):
            return wrong("undone", answer, "a computation that was left undone is not an answer")
        return right("equivalent", truth)
    return wrong("different", answer, f"the truth is {truth}")


async def _score_by_gym(answer: str, truth: JsonValue, meta: Meta, source: Source) -> Score:
    name = source.detail or text_option(meta, "task") or text_option(meta, "generator")
    if not name:
        raise GradingError(
            "a problem of reasoning-gym needs its generator's name: meta['source'] = 'reasoning_gym:NAME'"
        )
    if find_spec("reasoning_gym") is None:
        raise ConfigurationError(
            f"the answer to a problem of {name} can be checked by reasoning-gym only, which is not installed: "
            "pip install 'k2think[procedural]'"
        )
    entry = _entry(truth, meta, name)
    reply = await asyncio.wrap_future(gym_pool().submit(name, answer, entry))
    for reason in ("timeout", "memory"):
        if reply.get(reason):
            return wrong(reason, answer, "the verifier ran out of it on this answer")
    if "unknown" in reply:
        near = f"; did you mean {' or '.join(reply['unknown'])}?" if reply["unknown"] else ""
        raise ConfigurationError(f"reasoning-gym has no generator {name!r}{near}")
    return _read(reply, answer, entry, name, meta.get("partial") is True)


def _read(reply: dict[str, Any], answer: str, entry: dict[str, Any], name: str, partial: bool) -> Score:
    own, value, garbage = reply["own"], float(reply["value"]), float(reply["garbage"])
    if reply["error"] or (own is not None and own < FULL):
        said = reply["error"] or f"gives it {own:g}"
        raise GradingError(f"the verifier of {name} does not take the problem's own answer: {said}")
    if garbage >= FULL:  # this verifier takes anything here
        if own is None:
            raise GradingError(f"the verifier of {name} takes any answer, and the problem has none of its own")
        equal = fold(answer) == fold(str(entry["answer"]))
        return right("equal", answer) if equal else wrong("different", answer, f"the truth is {entry['answer']}")
    if reply["failure"]:
        return wrong("wrong_form", answer, f"the verifier could not read it: {reply['failure']}")
    if value >= FULL:
        return right("verified", answer)
    credit = value if partial and value > garbage else 0.0
    return wrong("different", answer, f"the verifier gives it {value:.3g}, garbage {garbage:.3g}", value=credit)


def _entry(truth: JsonValue, meta: Meta, name: str) -> dict[str, Any]:
    given = meta.get("entry")
    entry: Any = json.loads(given) if isinstance(given, str) else given
    if entry is None:
        metadata = meta.get("metadata")
        details: Any = json.loads(metadata) if isinstance(metadata, str) else metadata
        entry = {"question": text_option(meta, "question"), "answer": truth, "metadata": details or {}}
    if not isinstance(entry, dict) or not isinstance(entry.get("metadata", {}), dict):
        raise GradingError(f"the entry of a problem of {name} must be an object with question, answer and metadata")
    return {"question": "", "answer": truth, "metadata": {}, **entry}
