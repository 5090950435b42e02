"""All suites by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from ...schemas.errors import InvalidRequest
from ...schemas.evaluation import Item
from ...training.records import read_records
from .files import Loaded, Publication
from .livecodebench import livecodebench_v5
from .mathematics import contest, omni_math_hard
from .mini import mini, resolved
from .options import SuiteOptions
from .scicode import scicode
from .science import gpqa_diamond, hle


@dataclass(frozen=True, slots=True)
class Suite:
    """A suite that has a name."""

    about: str
    """What it is, in one line."""
    load: Callable[[SuiteOptions], Loaded]
    """Returns its items."""
    needs_sandbox: bool = False
    """Whether its answers are programs, which are run in a sandbox."""
    needs_judge: bool = False
    """Whether a part of its answers is free text that only a judge can decide."""


SUITES: dict[str, Suite] = {
    "mini": Suite(
        "fresh problems of eight families, drawn from a seed; nothing to download",
        lambda options: Loaded(mini(options)),
    ),
    "aime_2024": Suite(
        "AIME 2024, I and II, 30 problems (HuggingFaceH4/aime_2024)",
        contest("aime_2024", Publication("HuggingFaceH4/aime_2024", ("data/*.parquet",)), year="2024"),
    ),
    "aime_2025": Suite(
        "AIME 2025, I and II, 30 problems (MathArena/aime_2025)",
        contest("aime_2025", Publication("MathArena/aime_2025", ("data/*.parquet",)), year="2025"),
    ),
    "hmmt_2025": Suite(
        "HMMT February 2025, 30 problems (MathArena/hmmt_feb_2025)",
        contest("hmmt_2025", Publication("MathArena/hmmt_feb_2025", ("data/*.parquet",)), year="2025"),
    ),
    "omni_math_hard": Suite("Omni-MATH from difficulty 9 (KbsdJames/Omni-MATH)", omni_math_hard),
    "livecodebench_v5": Suite(
        "LiveCodeBench release v5, in windows by date (livecodebench/code_generation_lite)",
        livecodebench_v5,
        needs_sandbox=True,
    ),
    "scicode": Suite(
        "SciCode, each problem with all its steps in one answer (SciCode1/SciCode)", scicode, needs_sandbox=True
    ),
    "gpqa_diamond": Suite("GPQA-Diamond, choices shuffled by a seed (Idavidrein/gpqa)", gpqa_diamond),
    "hle": Suite("Humanity's Last Exam, problems without pictures (cais/hle)", hle, needs_judge=True),
}


def suite(name: str, options: SuiteOptions) -> tuple[Item, ...]:
    """Return the items of a suite: one of SUITES, or a file of items as JSON lines (`NAME.jsonl`).

    Raises InvalidRequest, NotFound, ConfigurationError, and what the hub refuses.
    """
    return load_suite(name, options)[0]


def load_suite(name: str, options: SuiteOptions) -> tuple[tuple[Item, ...], dict[str, JsonValue]]:
    """Return the items of a suite, and what it was asked for as the manifest shows it: seed and origin in any case."""
    if name.endswith(".jsonl"):
        loaded = Loaded(own_items(Path(name), options), Path(name).name)
    elif name in SUITES:
        loaded = SUITES[name].load(options)
    else:
        raise InvalidRequest(
            f"there is no suite {name!r}: choose one of {', '.join(SUITES)}, or give a file of items, NAME.jsonl"
        )
    if not loaded.items:
        raise InvalidRequest(f"{name}: no item is left by what was asked for ({_asked(options)})")
    _refuse_twins(name, loaded.items)
    told = (resolved(options) if name == "mini" else options).told()
    for place in ("path", "targets_file"):  # where they lay on this machine; the hash of the data says what they held
        told.pop(place, None)
    if loaded.origin is not None:
        told["origin"] = loaded.origin
    return loaded.items[: options.limit], told


def own_items(path: Path, options: SuiteOptions) -> tuple[Item, ...]:
    """Return the items of a file, one JSON object a line, as `items.jsonl` of a run has them. Raises InvalidRequest."""
    given = options.told().keys() - {"limit"}
    if given:
        raise InvalidRequest(f"{path} holds the items themselves, so {', '.join(sorted(given))} means nothing here")
    return tuple(read_records(path, Item))


def _refuse_twins(name: str, items: tuple[Item, ...]) -> None:
    seen: set[str] = set()
    for item in items:
        if item.task.id in seen:
            raise InvalidRequest(f"{name}: two items have the id {item.task.id!r}; each must have its own")
        seen.add(item.task.id)


def _asked(options: SuiteOptions) -> str:
    return ", ".join(f"{key} = {value}" for key, value in options.told().items()) or "no options"
