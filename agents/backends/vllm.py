"""A running vLLM server: the OpenAI wire, and a look at whether speculative decoding is on and what it brings.

Where the server reports acceptance for each request (`--per-request-spec-decode-metrics summary`, experimental in vLLM),
`Finish.draft_acceptance` is the call's own. Elsewhere it is the server's recent mean, from the counters at `/metrics`:
accepted over drafted tokens between the last two readings, shared by all calls of that time. Readings are at least
`REFRESH_S` apart, run beside the calls, and never delay or fail one. Names of the counters: vLLM's documentation of
per-request acceptance metrics, "Relationship to Prometheus metrics".
"""

import asyncio
from collections.abc import AsyncGenerator
from typing import NamedTuple

from ...schemas.completion import CompletionRequest, Delta, StreamItem
from ...schemas.errors import BackendError
from ...schemas.settings import BackendSettings
from .openai import OpenAIBackend

VLLM_URL = "http://127.0.0.1:8000/v1"
REFRESH_S = 5.0

_DRAFTED = "vllm:spec_decode_num_draft_tokens_total"
_ACCEPTED = "vllm:spec_decode_num_accepted_tokens_total"


class DraftCounters(NamedTuple):
    """The server's counters of speculation, summed over its engines and models."""

    drafted: float
    """Tokens proposed since the server started."""
    accepted: float
    """Of these, tokens that the model accepted."""


def draft_counters(exposition: str) -> DraftCounters | None:
    """Read the counters from a Prometheus text exposition; None = speculation is off (vLLM then exports none)."""
    sums: dict[str, float] = {}
    for line in exposition.splitlines():
        name = line.partition("{")[0].partition(" ")[0]
        if name in (_DRAFTED, _ACCEPTED):
            try:
                sums[name] = sums.get(name, 0.0) + float(line.rpartition("}")[2].split()[-1])
            except (ValueError, IndexError):
                continue
    if _DRAFTED not in sums:
        return None
    return DraftCounters(drafted=sums[_DRAFTED], accepted=sums.get(_ACCEPTED, 0.0))


class VllmBackend(OpenAIBackend):
    """Completions from a vLLM server. See `Backend` for the contract."""

    default_url = VLLM_URL

    def __init__(self, settings: BackendSettings, *, name: str) -> None:
        """Check the settings; connect to nothing. Raises ConfigurationError."""
        super().__init__(settings, name=name)
        base = self._url
        self._metrics_url = (base.parent if base.name == "v1" else base) / "metrics"
        self._last: DraftCounters | None = None
        self._acceptance: float | None = None
        self._read_at: float | None = None
        self._reading: asyncio.Task[None] | None = None

    async def stream(
        self, request: CompletionRequest, *, unseen: list[Delta] | None = None
    ) -> AsyncGenerator[StreamItem, None]:
        """Yield deltas, then exactly one `Finish`. See `Backend.stream`."""
        self._refresh_beside()
        stream = super().stream(request, unseen=unseen)
        try:
            async for item in stream:
                yield item
        finally:
            await stream.aclose()
            self._refresh_beside()

    def draft_acceptance(self) -> float | None:
        """Return the recent mean share of accepted draft tokens; None = speculation is off, or not read yet."""
        return self._acceptance

    async def probe(self) -> dict[str, str]:
        """Check the model, and tell whether speculation is on. Raises BackendError."""
        facts = await super().probe()
        try:
            counters = draft_counters(await self.get_text(self._metrics_url))
        except BackendError:
            facts["speculation"] = "not known: /metrics cannot be read"
            return facts
        if counters is None:
            facts["speculation"] = "off (start vLLM with --speculative-config to have it)"
        elif counters.drafted:
            share = counters.accepted / counters.drafted
            facts["speculation"] = f"on, {share:.0%} of {counters.drafted:,.0f} drafted tokens accepted since the start"
        else:
            facts["speculation"] = "on, nothing drafted yet"
        return facts

    async def aclose(self) -> None:
        """Close connections; running streams end with StreamBroken."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        await super().aclose()

    def _refresh_beside(self) -> None:
        now = asyncio.get_running_loop().time()
        running = self._reading is not None and not self._reading.done()
        if self._closed or running or (self._read_at is not None and now - self._read_at < REFRESH_S):
            return
        self._read_at = now
        self._reading = asyncio.create_task(self._read_counters())

    async def _read_counters(self) -> None:
        try:
            now = draft_counters(await self.get_text(self._metrics_url))
        except BackendError:
            return
        before, self._last = self._last, now
        if now is None:
            self._acceptance = None
            return
        restarted = before is None or now.drafted < before.drafted
        drafted = now.drafted if restarted or before is None else now.drafted - before.drafted
        accepted = now.accepted if restarted or before is None else now.accepted - before.accepted
        if drafted > 0:
            self._acceptance = min(1.0, max(0.0, accepted / drafted))
