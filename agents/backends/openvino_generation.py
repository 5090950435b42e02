"""What an embedded engine is made of, and one request inside it."""

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...schemas.completion import CompletionRequest, Delta, StreamItem
from ...schemas.errors import BackendError
from .detokenise import Detokeniser
from .stops import StopScanner


@dataclass(frozen=True)
class EngineSettings:
    """What an engine is made of."""

    folder: Path
    """OpenVINO GenAI model folder."""
    model: str
    """Name to report."""
    threads: int
    """Inference threads."""
    exact: bool
    """Whether all arithmetic is in f32; else in what the processor is fastest with."""
    speculative_tokens: int
    """Prompt-lookup tokens per step; 0 = off."""
    speculative_streams_max: int
    """Streams above which new requests are not speculated; 0 = all are."""
    context_tokens: int
    """Prompt and completion tokens at most."""
    max_tokens: int
    """Completion tokens at most."""


@dataclass(eq=False)
class Generation:
    """One request inside the engine."""

    request: CompletionRequest
    loop: asyncio.AbstractEventLoop
    watched: bool = True
    """Whether somebody sees the text as it comes; else it may come in lumps."""
    items: "asyncio.Queue[StreamItem | BackendError]" = field(default_factory=lambda: asyncio.Queue())
    """What the consumer reads: deltas, then a Finish or an error."""
    unsent: "list[StreamItem | BackendError]" = field(default_factory=lambda: [])
    """What is to be put into it with the next delivery."""
    handle: Any = None
    """The pipeline's handle; None = not added yet."""
    detokeniser: Detokeniser = field(default_factory=Detokeniser)
    stops: StopScanner = field(default_factory=lambda: StopScanner(()))
    prompt_tokens: int = 0
    completion_tokens: int = 0
    drafted: int = 0
    """Tokens that prompt lookup may guess in one step; 0 = the request is not speculated."""
    verifications: int = 0
    """Steps after the first token: with speculation each verifies a draft."""
    submitted_at: float = field(default_factory=time.monotonic)
    added_at: float = 0.0
    first_token_at: float = 0.0
    cancelled: bool = False
    schema: str = ""
    """The JSON schema as text; empty = free text."""
    urgent: bool = True
    """Whether the next delta is handed over at once: the first one is."""
    engine_reason: Any = None
    """The pipeline's finish reason so far."""

    def left(self) -> list[Delta]:
        """Return the deltas that the consumer has not read. For the consumer, when it reads no more."""
        left: list[StreamItem | BackendError] = []
        while not self.items.empty():
            left.append(self.items.get_nowait())
        return [item for item in (*left, *self.unsent) if isinstance(item, Delta)]

    @property
    def accepted_length(self) -> float | None:
        """Mean tokens that a verification brought, the model's own included; None = no draft was verified."""
        if not self.drafted or not self.verifications:
            return None
        # The first token comes from the prompt's own step.
        return (self.completion_tokens - 1) / self.verifications

    @property
    def draft_acceptance(self) -> float | None:
        """Share of the places for drafted tokens that held a right one, 0..1: a step has them whether lookup finds any or not."""
        return None if self.accepted_length is None else (self.accepted_length - 1) / self.drafted
