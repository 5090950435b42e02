"""A simulated model server: real HTTP, OpenAI's wire with the dialects of vLLM and Cerebras, scripted replies and faults."""

from .engine import SimulatedEngine
from .rates import RateHeaders, Refill, ServerRates
from .replies import ChatRequest, Fault, FaultKind, ReasoningField, Reply, Responder, Script
from .responders import SolvingResponder, detect_role, fill_schema
from .server import CallOutcome, CallRecord, SimulatedServer

__all__ = [
    "CallOutcome",
    "CallRecord",
    "ChatRequest",
    "Fault",
    "FaultKind",
    "RateHeaders",
    "ReasoningField",
    "Refill",
    "Reply",
    "Responder",
    "Script",
    "ServerRates",
    "SimulatedEngine",
    "SimulatedServer",
    "SolvingResponder",
    "detect_role",
    "fill_schema",
]
