"""The simulated engine: a number of slots, a pace, and speculation that can be read from its counters."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager


class SimulatedEngine:
    """What stands behind the simulated server. One event loop only."""

    def __init__(
        self,
        *,
        slots: int = 1_000_000,
        token_s: float = 0.0,
        prefill_s: float = 0.0,
        draft_acceptance: float | None = None,
        per_request_acceptance: bool = False,
        chunk_tokens: int = 1,
        samples_wrongly: bool = False,
    ) -> None:
        """Set the pace.

        `slots`: requests that decode at once, the others wait. `token_s`: seconds per token of one request. `prefill_s`:
        seconds before the first token. `draft_acceptance`: share of drafted tokens accepted (one is drafted per token
        sent); None = no speculation. `per_request_acceptance`: also report it in each reply, as vLLM can. `chunk_tokens`:
        tokens in one chunk of a stream, as vLLM's `--stream-interval`. `samples_wrongly`: by its own log-probabilities, every
        token is one that the model rules out.
        """
        self.token_s = token_s
        self.prefill_s = prefill_s
        self.draft_acceptance = draft_acceptance
        self.per_request_acceptance = per_request_acceptance
        self.chunk_tokens = chunk_tokens
        self.samples_wrongly = samples_wrongly
        self.tokens_sent = 0
        """Tokens of all requests."""
        self.running = 0
        """Requests in a slot."""
        self.running_max = 0
        """Most requests that were in a slot at once."""
        self._slots = asyncio.Semaphore(slots)

    @asynccontextmanager
    async def slot(self) -> AsyncGenerator[float, None]:
        """Hold a slot; gives the seconds that it was waited for."""
        asked = time.monotonic()
        async with self._slots:
            self.running += 1
            self.running_max = max(self.running_max, self.running)
            try:
                yield time.monotonic() - asked
            finally:
                self.running -= 1

    def drafting(self) -> dict[str, float]:
        """Return what vLLM tells of one call's drafts."""
        share = self.draft_acceptance or 0.0
        return {"draft_acceptance_rate": share, "mean_acceptance_length": 1 + share}

    def metrics(self) -> str:
        """Return the counters as vLLM exports them."""
        lines = [f'vllm:num_requests_running{{engine="0",model_name="simulated"}} {float(self.running)}']
        if self.draft_acceptance is not None:
            accepted = self.tokens_sent * self.draft_acceptance
            for name, value in (
                ("num_drafts", self.tokens_sent),
                ("num_draft_tokens", self.tokens_sent),
                ("num_accepted_tokens", accepted),
            ):
                lines += [
                    f"# TYPE vllm:spec_decode_{name}_total counter",
                    f'vllm:spec_decode_{name}_total{{engine="0",model_name="simulated"}} {float(value)}',
                    f'vllm:spec_decode_{name}_created{{engine="0",model_name="simulated"}} 1.0',
                ]
        return "\n".join(lines) + "\n"
