"""The safety agent: layer 1 (rules and secrets, no model), then layer 2 (a guard model, where one is configured)."""

import asyncio
from collections.abc import Sequence

from ..schemas.completion import ChatMessage, CompletionRequest
from ..schemas.errors import BackendError
from ..schemas.messages import ScreenInput, ScreenOutput, ScreenPlan
from ..schemas.outcomes import Screened, ScreenVerdict
from ..schemas.trace import CallTrace
from .context import AgentContext
from .screening.guards import REPLY_SCHEMA, GuardFormat, GuardReply, guard_format, guard_messages, read_reply
from .screening.normalise import readings
from .screening.rules import match_rules
from .screening.secrets import find_secret

THREAD_CHARS_MIN = 20_000
"""Longer texts are screened in a thread, so that heartbeats and streams go on."""
CHUNK_CHARS = 16_000
"""Text per guard call where the guard's context length is not known."""
CHUNK_OVERLAP_CHARS = 400
CHUNK_CHARS_MIN = 2_000
CHARS_PER_TOKEN_MIN = 2
"""For turning a context length into characters, on the safe side."""
RESERVED_TOKENS = 1_536
"""Of the guard's context, for its own policy and its reply."""
QUESTION_CHARS_MAX = 4_000
"""Characters of the question that a guard sees along with an answer."""
CALLS_MAX = 128
"""Guard calls per screening; a text that needs more is not screened, which is an error."""
GUARD_MAX_TOKENS = 1_024

RULES_LAYER = "rules"

Screening = ScreenInput | ScreenPlan | ScreenOutput


async def screen(body: Screening, context: AgentContext, *, fail_open: bool = False) -> Screened:
    """Screen a request, a plan by itself, or an answer with its reasoning and plan.

    A guard's reply that cannot be read is `error`; with `fail_open`, it and a failing guard count as safe.
    Raises BackendError (the step may be tried again) unless `fail_open`.
    """
    length = sum(len(turn.content) for turn in body.messages) + sum(map(len, _shown(body)))
    if length >= THREAD_CHARS_MIN:
        category = await asyncio.to_thread(screen_by_rules, body)
    else:
        category = screen_by_rules(body)
    if category is not None:
        return Screened(verdict=ScreenVerdict.unsafe, category=category, layer=RULES_LAYER)
    if context.backend is None:
        return Screened(verdict=ScreenVerdict.safe, layer=RULES_LAYER)
    try:
        reply = await _ask_guard(body, context)
    except BackendError:
        if not fail_open:
            raise
        reply = GuardReply(ScreenVerdict.error)
    if reply.verdict is ScreenVerdict.error and fail_open:
        return Screened(verdict=ScreenVerdict.safe, layer=RULES_LAYER)
    return Screened(verdict=reply.verdict, category=reply.category, layer=context.backend.name)


def screen_by_rules(body: Screening) -> str | None:
    """Return the category that layer 1 refuses for; None = it has no objection. Linear in the length of the texts."""
    if isinstance(body, ScreenInput):
        return _first_category([(turn.content, turn.role == "user") for turn in body.messages])
    shown = _shown(body)
    asked = [turn.content for turn in body.messages if turn.role == "user"]
    if any(find_secret(text, known=asked) for text in shown):
        return "secrets"
    return _first_category([(text, False) for text in shown])


def _first_category(texts: Sequence[tuple[str, bool]]) -> str | None:
    for text, asked in texts:
        for reading in readings(text):
            category = match_rules(reading, asked=asked)
            if category is not None:
                return category
    return None


def _shown(body: Screening) -> tuple[str, ...]:
    """The texts of models that are to be shown, in their order; empty for a request."""
    match body:
        case ScreenInput():
            return ()
        case ScreenPlan():
            return (body.plan,)
        case ScreenOutput():
            return tuple(text for text in (body.plan, body.reasoning, body.content) if text)


async def _ask_guard(body: Screening, context: AgentContext) -> GuardReply:
    backend, settings = context.bound()
    form = guard_format(backend.model, settings.templates or backend.templates)
    context_tokens = settings.context_tokens
    chunk = CHUNK_CHARS
    if context_tokens is not None:
        chunk = max((context_tokens - RESERVED_TOKENS) * CHARS_PER_TOKEN_MIN, CHUNK_CHARS_MIN)
    pieces = guard_pieces(body, chunk)
    if len(pieces) > CALLS_MAX:
        return GuardReply(ScreenVerdict.error)
    for turns in pieces:
        record = context.record if len(pieces) == 1 else CallTrace()
        try:
            completion = await context.complete(
                CompletionRequest(
                    messages=guard_messages(turns, form),
                    temperature=0.0,
                    top_p=1.0,
                    max_tokens=min(GUARD_MAX_TOKENS, settings.max_tokens),
                    json_schema=REPLY_SCHEMA if form is GuardFormat.policy else None,
                    request_id=context.request_id,
                ),
                record=record,
            )
        finally:
            if record is not context.record:
                add_call(context.record, record)
        reply = read_reply(completion.text, form)
        if reply.verdict is not ScreenVerdict.safe:
            return reply
    return GuardReply(ScreenVerdict.safe)


def guard_pieces(body: Screening, chunk: int) -> list[tuple[ChatMessage, ...]]:
    """Return the conversations that the guard is asked about, each of about `chunk` characters, covering all of the text."""
    if isinstance(body, ScreenInput):
        if sum(len(turn.content) for turn in body.messages) <= chunk:
            return [body.messages]
        return [
            (ChatMessage(role="user", content=part),) for turn in body.messages for part in _parts(turn.content, chunk)
        ]
    asked = min(QUESTION_CHARS_MAX, chunk // 4)
    question = ChatMessage(role="user", content=body.messages[-1].content[-asked:])
    shown = "\n\n".join(_shown(body))
    return [(question, ChatMessage(role="assistant", content=part)) for part in _parts(shown, chunk - asked)]


def _parts(text: str, size: int) -> list[str]:
    """Cut a text into pieces of `size` that overlap, so that nothing hides on a border."""
    starts = range(0, max(len(text) - CHUNK_OVERLAP_CHARS, min(len(text), 1)), size - CHUNK_OVERLAP_CHARS)
    return [text[start : start + size] for start in starts]


def add_call(total: CallTrace, call: CallTrace) -> None:
    """Add one of several calls to the attempt's record: texts and times are those of the last, tokens and retries add up."""
    earlier = total.model_copy()
    for name in CallTrace.model_fields:
        setattr(total, name, getattr(call, name))
    total.usage = earlier.usage + call.usage
    total.duration_s = earlier.duration_s + call.duration_s
    total.retries = earlier.retries + call.retries
    total.left_calls = earlier.left_calls + call.left_calls
    total.usage_estimated = earlier.usage_estimated or call.usage_estimated
