"""A running vLLM server: the OpenAI wire, and a look at whether speculative decoding is on and what it brings.

Where the server reports acceptance for each request (`--per-request-spec-decode-metrics summary`, from vLLM 0.29,
experimental), `Finish.draft_acceptance` and `Finish.accepted_length` are the call's own. Elsewhere they are the server's
recent means, from the counters at `/metrics`: what was drafted and accepted between the last two readings, shared by all
calls of that time. Readings are at least `REFRESH_S` apart, run beside the calls, and never delay or fail one. Names of the
counters and the mean length (one token of the model's own with each verification): vLLM's `SpecDecodingProm`.
"""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any, NamedTuple

from ...schemas.backend_settings import BackendSettings
from ...schemas.completion import CompletionRequest, Delta, StreamItem
from ...schemas.errors import BackendError
from .base import WARNING
from .openai import OpenAIBackend
from .vllm_sampling import CALLS, Place, judged, places_of, sampling_body
from .wire import NOT_TOLD, Drafting

VLLM_URL = "http://127.0.0.1:8000/v1"
REFRESH_S = 5.0
SAMPLING_TIMEOUT_S = 20.0

_DRAFTED = "vllm:spec_decode_num_draft_tokens_total"
_ACCEPTED = "vllm:spec_decode_num_accepted_tokens_total"
_DRAFTS = "vllm:spec_decode_num_drafts_total"


class DraftCounters(NamedTuple):
    """The server's counters of speculation, summed over its engines and models."""

    drafted: float
    """Tokens proposed since the server started."""
    accepted: float
    """Of these, tokens that the model accepted."""
    drafts: float
    """Drafts verified, of one or more tokens each."""

    def since(self, before: "DraftCounters | None") -> "DraftCounters":
        """Return what was counted after `before`; None, or a server that was restarted since = everything."""
        if before is None or self.drafted < before.drafted:
            return self
        return DraftCounters(
            self.drafted - before.drafted, self.accepted - before.accepted, self.drafts - before.drafts
        )

    @property
    def drafting(self) -> Drafting:
        """The means."""
        share = min(1.0, max(0.0, self.accepted / self.drafted)) if self.drafted > 0 else None
        return Drafting(share, 1 + self.accepted / self.drafts if self.drafts > 0 else None)


def draft_counters(exposition: str) -> DraftCounters | None:
    """Read the counters from a Prometheus text exposition; None = speculation is off (vLLM then exports none)."""
    sums: dict[str, float] = {}
    for line in exposition.splitlines():
        name = line.partition("{")[0].partition(" ")[0]
        if name in (_DRAFTED, _ACCEPTED, _DRAFTS):
            try:
                sums[name] = sums.get(name, 0.0) + float(line.rpartition("}")[2].split()[-1])
            except (ValueError, IndexError):
                continue
    if _DRAFTED not in sums:
        return None
    return DraftCounters(drafted=sums[_DRAFTED], accepted=sums.get(_ACCEPTED, 0.0), drafts=sums.get(_DRAFTS, 0.0))


def described(counters: DraftCounters | None) -> str:
    """Say in words what speculation has brought since the server started; None = it is off."""
    if counters is None:
        return "off (start vLLM with --speculative-config to have it)"
    share, length = counters.drafting
    if share is None or length is None:
        return "on, nothing drafted yet"
    drafted = f"{share:.0%} of {counters.drafted:,.0f} drafted tokens accepted since the start"
    return f"on, {drafted}, {length:.2f} tokens a verification"


def not_on(wanted: str) -> str:
    """Say that speculation was asked for in vain."""
    return (
        f"speculation ({wanted}) was asked for and is off at this server: start it with "
        f"`k2think vllm up MODEL --speculative {wanted}`, or with --speculative-config"
    )


def sampling_facts(places: list[Place]) -> dict[str, str]:
    """Return what `probe` tells of sampled tokens."""
    if not places:
        return {"sampling": "not checked: the engine gave no log-probabilities"}
    sampling = judged(places)
    if not sampling.wrong:
        return {"sampling": f"as the model would ({sampling})"}
    advice = "use temperature 0, turn speculation off, or take another version or device"
    return {"sampling": "wrong", WARNING: f"under speculation this engine samples wrongly: {sampling}; {advice}"}


class VllmBackend(OpenAIBackend):
    """Completions from a vLLM server. See `Backend` for the contract."""

    default_url = VLLM_URL

    def __init__(self, settings: BackendSettings, *, name: str) -> None:
        """Check the settings; connect to nothing. Raises ConfigurationError."""
        super().__init__(settings, name=name)
        base = self._url
        self._metrics_url = (base.parent if base.name == "v1" else base) / "metrics"
        self._last: DraftCounters | None = None
        self._drafting = NOT_TOLD
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

    def drafting(self) -> Drafting:
        """Return the recent means; empty while speculation is off, or not read yet."""
        return self._drafting

    async def probe(self) -> dict[str, str]:
        """Check the model, and tell whether speculation is on and samples as the model would. Raises BackendError."""
        facts = await super().probe()
        too_long = facts.pop(WARNING, None)
        try:
            counters = draft_counters(await self.get_text(self._metrics_url))
        except BackendError:
            facts["speculation"] = "not known: /metrics cannot be read"
        else:
            facts["speculation"] = described(counters)
            if counters is not None:
                facts |= await self._sampling_facts(facts["model"])
            elif self._settings.speculative is not None:
                facts[WARNING] = not_on(self._settings.speculative)
        warnings = [text for text in (facts.get(WARNING), too_long) if text is not None]
        return facts | ({WARNING: "; ".join(warnings)} if warnings else {})

    def served_facts(self, wanted: str, served: dict[str, dict[str, Any]]) -> dict[str, str]:
        """See `OpenAIBackend.served_facts`. vLLM refuses a call whose completion alone could be longer than the context."""
        facts = super().served_facts(wanted, served)
        context, asked = served[wanted].get("max_model_len"), self._settings.max_tokens
        if isinstance(context, int) and asked > context:
            facts[WARNING] = (
                f"a completion may have {asked:,} tokens and the whole context {context:,}: vLLM refuses such calls; set "
                f"K2THINK_<ROLE>__MAX_TOKENS (max_tokens) to {max(1, context // 2)} or so"
            )
        return facts

    async def _sampling_facts(self, model: str) -> dict[str, str]:
        """Look at a few sampled tokens."""
        url, body = self._url / "chat" / "completions", sampling_body(model)
        try:
            answers = await asyncio.gather(
                *(self.get_text(url, body=body, timeout_s=SAMPLING_TIMEOUT_S) for _ in range(CALLS))
            )
            places = [place for answer in answers for place in places_of(json.loads(answer))]
        except (BackendError, ValueError) as exc:
            return {"sampling": f"not checked ({exc})"}
        return sampling_facts(places)

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
            self._drafting = NOT_TOLD
            return
        lately = now.since(before)
        if lately.drafted > 0:
            self._drafting = lately.drafting
