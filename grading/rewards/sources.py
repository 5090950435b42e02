"""Data sources by name: what each is about, and how its answers are checked.

The names are those of Guru (LLM360/guru-RL-92k: `data_source` of the rows, names of its parquet files, the older names
in LLM360/Reasoning360), of the benchmarks of `evaluation/`, and of generators (`reasoning_gym:NAME`, `mini:FAMILY`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from ...schemas.errors import ConfigurationError
from ...schemas.scores import Domain


class Check(StrEnum):
    """How an answer is checked. Each is one function of this folder."""

    math = "math"
    """Equivalent to the truth, as mathematics."""
    code = "code"
    """Unit tests in the sandbox."""
    choice = "choice"
    """One of several lettered choices."""
    free = "free"
    """Free answer: equivalence, then a judge."""
    zebra = "zebra"
    """Table of a zebra puzzle, cell by cell."""
    ordering = "ordering"
    """A list in its order."""
    graph = "graph"
    """A node's name."""
    grid = "grid"
    """ARC-like grid of numbers."""
    simulation = "simulation"
    """Output of a program for an input, or input for an output."""
    cruxeval = "cruxeval"
    """What a function returns, or what makes it return that."""
    table = "table"
    """Cells and numbers read off tables."""
    generator = "generator"
    """Whatever the generator's own verifier says."""


@dataclass(frozen=True, slots=True)
class Source:
    """What is known of a data source."""

    domain: Domain
    """The domain that its problems count for."""
    check: Check
    """How its answers are checked."""
    detail: str = ""
    """Name of reasoning-gym's generator; empty for other sources, and where the rows tell it."""
    family: str = ""
    """Name of k2think's own problem family; empty for other sources."""


_ARC = Source(Domain.logic, Check.grid)

PREFIXES: tuple[tuple[str, Source], ...] = (
    ("simulation__arcagi", _ARC),  # the rows of logic__arcagi*.parquet and logic__barc*.parquet say simulation
    ("simulation__barc", _ARC),
    ("logic__arcagi", _ARC),
    ("logic__barc", _ARC),
    ("arcagi", _ARC),
    ("barc", _ARC),
    ("logic__reasoning_gym", Source(Domain.procedural, Check.generator)),
    ("logic__zebra_puzzle", Source(Domain.logic, Check.zebra)),
    ("zebra_puzzle", Source(Domain.logic, Check.zebra)),
    ("logic__ordering_puzzle", Source(Domain.logic, Check.ordering)),
    ("ordering_puzzle", Source(Domain.logic, Check.ordering)),
    ("logic__graph_logical", Source(Domain.logic, Check.graph)),
    ("graph_logical", Source(Domain.logic, Check.graph)),
    ("simulation__codeio", Source(Domain.simulation, Check.simulation)),
    ("simulation__cruxeval", Source(Domain.simulation, Check.cruxeval)),
    ("cruxeval", Source(Domain.simulation, Check.cruxeval)),
    ("stem__supergpqa", Source(Domain.science, Check.choice)),
    ("stem__gpqa", Source(Domain.science, Check.choice)),
    ("supergpqa", Source(Domain.science, Check.choice)),
    ("gpqa", Source(Domain.science, Check.choice)),
    ("hle_choice", Source(Domain.science, Check.choice)),
    ("hle", Source(Domain.science, Check.free)),
    ("stem__web", Source(Domain.science, Check.free)),
    ("stem_web", Source(Domain.science, Check.free)),
    ("table__", Source(Domain.table, Check.table)),
    ("codegen__", Source(Domain.code, Check.code)),
    ("livecodebench", Source(Domain.code, Check.code)),
    ("scicode", Source(Domain.code, Check.code)),
    ("math__", Source(Domain.math, Check.math)),
    ("aime", Source(Domain.math, Check.math)),
    ("amc", Source(Domain.math, Check.math)),
    ("hmmt", Source(Domain.math, Check.math)),
    ("omni_math", Source(Domain.math, Check.math)),
    ("math_500", Source(Domain.math, Check.math)),
)
"""The first prefix that fits decides."""

_SIZE = re.compile(r"(?:_\d+(?:\.\d+)?k?)?(?:\.parquet)?$", re.IGNORECASE)


def find_source(name: str) -> Source | None:
    """Return what is known of the data source `name`, or None. File names of Guru are accepted, too."""
    kind, colon, detail = name.partition(":")
    kind = re.sub(r"[\s/-]+", "_", kind.rpartition("/")[2] if kind.endswith(".parquet") else kind).casefold()
    if colon and detail and kind == "reasoning_gym":
        return Source(Domain.procedural, Check.generator, detail=detail)
    if colon and detail and kind == "mini":
        return Source(Domain.procedural, Check.generator, family=detail)
    kind = _SIZE.sub("", kind)
    return next((source for prefix, source in PREFIXES if kind.startswith(prefix)), None)


def source_of(name: str) -> Source:
    """Return what is known of the data source `name`; raises ConfigurationError for one that nobody knows."""
    source = find_source(name)
    if source is None:
        known = ", ".join(sorted({prefix for prefix, _ in PREFIXES}))
        raise ConfigurationError(
            f"{name!r} is neither a domain ({', '.join(Domain)}) nor a data source that k2think knows. "
            f"Names of sources begin with one of: {known}, reasoning_gym:NAME, mini:FAMILY"
        )
    return source
