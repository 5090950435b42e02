"""The simulated model of a chaos run: it solves more or less well, misbehaves when told to, and keeps an exact ledger."""

import random
from dataclasses import dataclass, field

from k2think.agents.backends.simulator import ChatRequest, Fault, FaultKind, Reply, SolvingResponder, detect_role

KILLER = "poison-killer"
"""Mark of a problem whose worker dies while it is solved."""
BROKEN = "poison-broken"
"""Mark of a problem to which the model never gives a usable reply."""

FAULTS: dict[str, Fault | None] = {
    "429": Fault.rate_limited(retry_after="1"),
    "500": Fault(FaultKind.status, status=500),
    "reset": Fault(FaultKind.reset, after_tokens=3),
    "stall": Fault(FaultKind.stall, after_tokens=3),
    "malformed": Fault(FaultKind.malformed_json, after_tokens=3),
    "truncated": Fault(FaultKind.truncated, after_tokens=3),
    "no_end": Fault(FaultKind.no_end, after_tokens=3),
    "null": None,
}
"""What the engine may do wrong; None = nothing, but its chunks carry nulls."""


@dataclass
class Model:
    """The responder of the simulated server."""

    solver: SolvingResponder
    random: random.Random
    fault: str | None = None
    """Name of what goes wrong now; None = nothing."""
    share: float = 0.5
    """Share of the calls that it happens to."""
    killers: list[str] = field(default_factory=list[str])
    """Request ids (job.step.attempt) of calls whose worker is to be killed, oldest first."""

    def __call__(self, request: ChatRequest) -> Reply:
        if KILLER in request.text and detect_role(request) == "generator":
            self.killers.append(request.headers.get("x-request-id", ""))
            return Reply(text="It is so", fault=Fault(FaultKind.stall, after_tokens=1))
        if BROKEN in request.text and detect_role(request) == "generator":
            return Reply(text="<answer>405</answer>", fault=Fault(FaultKind.malformed_json, after_tokens=2))
        reply = self.solver(request)
        if self.fault is None or self.random.random() >= self.share:
            return reply
        fault = FAULTS[self.fault]
        return Reply(
            text=reply.text,
            reasoning=reply.reasoning,
            reasoning_field=reply.reasoning_field,
            fault=fault,
            null_content=fault is None,
        )
