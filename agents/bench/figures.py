"""What was measured, from single calls up to a report."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from statistics import mean, median

from ...schemas.errors import BackendError

FAILURES_KEPT = 3
"""Reasons of failed calls that a level tells."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One call that came to its end."""

    first_token_s: float | None
    """Seconds from the call to its first token; None = none came."""
    duration_s: float
    """Seconds from the call to its end."""
    prompt_tokens: int
    """Tokens of the prompt, as the engine counted them."""
    tokens: int
    """Tokens generated, as the engine counted them."""
    draft_acceptance: float | None = None
    """Share of drafted tokens that were accepted; None = no speculation, or not told."""
    accepted_length: float | None = None
    """Mean tokens of one verification; None = as above."""

    @property
    def tokens_per_s(self) -> float | None:
        """Tokens per second after the first; None = too short to tell."""
        decoding_s = self.duration_s - (self.first_token_s or 0.0)
        return (self.tokens - 1) / decoding_s if self.tokens > 1 and decoding_s > 0 else None


@dataclass(frozen=True, slots=True)
class Run:
    """One round of one client."""

    samples: tuple[Sample, ...]
    """Calls that came to their end."""
    failures: tuple[BackendError, ...]
    """Why the others did not."""
    wall_s: float
    """Seconds of the round."""
    cpu_s: float
    """Seconds of this process's CPU in the round; with an embedded engine most of it is the engine's."""

    @property
    def tokens_per_s(self) -> float:
        """Tokens of all streams per second."""
        return sum(sample.tokens for sample in self.samples) / self.wall_s


@dataclass(frozen=True, slots=True)
class Figures:
    """All rounds of one client at one number of streams."""

    calls: int
    """Calls that came to their end."""
    failed: int
    """Calls that did not."""
    failures: tuple[str, ...]
    """Why, at most three different reasons."""
    prompt_tokens: float | None
    """Mean tokens of a prompt; None = no call came to its end."""
    tokens: float | None
    """Mean tokens of a completion; None = as above."""
    first_token_p50_s: float | None
    """Median seconds to the first token; None = none came."""
    first_token_p95_s: float | None
    """Seconds within which 95 % of the calls had it; None = none came."""
    stream_tokens_per_s: float | None
    """Median over the calls of a stream's tokens per second after its first; None = too short to tell."""
    tokens_per_s: float
    """Tokens of all streams per second, over all rounds."""
    cpu_ms_per_call: float | None
    """Milliseconds of this process's CPU per call; None = no call came to its end."""
    draft_acceptance: float | None
    """Mean share of drafted tokens accepted; None = no speculation, or not told."""
    accepted_length: float | None
    """Mean tokens of one verification; None = as above."""


@dataclass(frozen=True, slots=True)
class Level:
    """One number of streams."""

    streams: int
    """Calls at once."""
    ours: Figures
    """Our client, as the agents use it."""
    bare: Figures | None
    """The bare client with the same requests; None = there is none for the kind, or it was not wanted."""
    overhead: float | None
    """Share of the bare client's throughput that ours lacks, over all rounds; negative = ours was faster. None = no bare client."""
    overhead_rounds: tuple[float, ...]
    """The same of each round."""
    limit_tokens_per_s: float | None
    """Tokens of all streams per second that the memory allows without speculation; None = not known."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One way of running the backend."""

    name: str
    """Such as `without speculation`."""
    facts: dict[str, str]
    """What the backend tells of itself."""
    levels: tuple[Level, ...]
    """By growing number of streams."""


def percentile(values: Sequence[float], share: float) -> float | None:
    """Return the smallest value that is not below `share` (0..1) of them (nearest rank); None = there are none."""
    ordered = sorted(values)
    return ordered[max(0, ceil(share * len(ordered)) - 1)] if ordered else None


def summed(runs: Sequence[Run]) -> Figures:
    """Return the figures of all rounds."""
    samples = [sample for run in runs for sample in run.samples]
    failures = [str(failure) for run in runs for failure in run.failures]
    firsts = [sample.first_token_s for sample in samples if sample.first_token_s is not None]
    rates = [sample.tokens_per_s for sample in samples if sample.tokens_per_s is not None]
    shares = [sample.draft_acceptance for sample in samples if sample.draft_acceptance is not None]
    lengths = [sample.accepted_length for sample in samples if sample.accepted_length is not None]
    wall_s = sum(run.wall_s for run in runs)
    return Figures(
        calls=len(samples),
        failed=len(failures),
        failures=tuple(dict.fromkeys(failures))[:FAILURES_KEPT],
        prompt_tokens=mean(sample.prompt_tokens for sample in samples) if samples else None,
        tokens=mean(sample.tokens for sample in samples) if samples else None,
        first_token_p50_s=percentile(firsts, 0.5),
        first_token_p95_s=percentile(firsts, 0.95),
        stream_tokens_per_s=median(rates) if rates else None,
        tokens_per_s=sum(sample.tokens for sample in samples) / wall_s,
        cpu_ms_per_call=sum(run.cpu_s for run in runs) * 1000 / len(samples) if samples else None,
        draft_acceptance=mean(shares) if shares else None,
        accepted_length=mean(lengths) if lengths else None,
    )


def level_of(
    streams: int, ours: Sequence[Run], bare: Sequence[Run] | None, *, limit_tokens_per_s: float | None
) -> Level:
    """Put both clients' rounds side by side."""
    mine = summed(ours)
    other = None if bare is None else summed(bare)
    rounds = [lacks(a.tokens_per_s, b.tokens_per_s) for a, b in zip(ours, bare or (), strict=bare is not None)]
    return Level(
        streams=streams,
        ours=mine,
        bare=other,
        overhead=None if other is None else lacks(mine.tokens_per_s, other.tokens_per_s),
        overhead_rounds=tuple(found for found in rounds if found is not None),
        limit_tokens_per_s=limit_tokens_per_s,
    )


def lacks(ours: float, bare: float) -> float | None:
    """Return the share of the bare throughput that ours lacks; None = the bare client brought nothing."""
    return 1 - ours / bare if bare > 0 else None
