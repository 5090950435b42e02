"""Guard models: what each family is sent and how its reply is read.

Llama Guard, Qwen3Guard and Granite Guardian are sent the bare conversation, because their own chat templates put the policy
around it (for Granite Guardian the criterion `harm`, its default). Any other model, gpt-oss-safeguard included, gets
our policy as system prompt and answers in JSON. Reply forms: the models' cards on Hugging Face.
"""

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ...schemas.completion import ChatMessage
from ...schemas.outcomes import ScreenVerdict
from ..json_text import find_objects
from ..templates import DEFAULT_SET, load_templates

OTHER_CATEGORY = "harmful_content"
"""Category where the guard names none that we know."""

REPLY_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"violation": {"type": "boolean"}, "category": {"type": "string"}},
    "required": ["violation", "category"],
    "additionalProperties": False,
}
"""What a model that follows our policy is asked for."""


class GuardFormat(StrEnum):
    """Families of guard models; also the names for `K2THINK_SAFETY__TEMPLATES`."""

    llama_guard = "llama-guard"
    """`safe`, or `unsafe` and a line of codes such as `S2,S9`."""
    qwen3guard = "qwen3guard"
    """`Safety: Safe|Controversial|Unsafe` and `Categories: …`; controversial passes."""
    granite_guardian = "granite-guardian"
    """`<score>yes|no</score>`, or the bare word in older versions; yes = the risk is met."""
    policy = "gpt-oss-safeguard"
    """JSON by our own policy; for gpt-oss-safeguard and any instruction-following model."""


@dataclass(frozen=True, slots=True)
class GuardReply:
    """A guard's verdict."""

    verdict: ScreenVerdict
    """safe, unsafe, or error where the reply cannot be read."""
    category: str | None = None
    """General category; None unless unsafe."""


_ERROR = GuardReply(ScreenVerdict.error)
_SAFE = GuardReply(ScreenVerdict.safe)

_LLAMA_CATEGORIES = {
    "S1": "violence", "S2": "crime", "S3": "sexual_crime", "S4": "child_safety", "S5": "defamation", "S6": "specialized_advice",
    "S7": "privacy", "S8": "intellectual_property", "S9": "weapons", "S10": "hate", "S11": "self_harm", "S12": "sexual_content",
    "S13": "elections", "S14": "code_abuse",
}  # fmt: skip
_QWEN_CATEGORIES = {
    "violent": "violence", "non-violent illegal acts": "crime", "sexual content or sexual acts": "sexual_content",
    "personally identifiable information": "privacy", "pii": "privacy", "suicide & self-harm": "self_harm", "unethical acts": "crime",
    "politically sensitive topics": "politics", "copyright violation": "intellectual_property", "jailbreak": "prompt_injection",
}  # fmt: skip
_POLICY_CATEGORIES = frozenset(
    (
        "weapons",
        "violence",
        "illegal_drugs",
        "malware",
        "credential_theft",
        "self_harm",
        "child_safety",
        "sexual_content",
        "hate",
    )
) | {"prompt_injection"}

_SAFETY = re.compile(
    r"^[ \t*]{0,8}safety[ \t*]{0,4}:[ \t*]{0,4}(safe|unsafe|controversial)\b", re.IGNORECASE | re.MULTILINE
)
_CATEGORIES = re.compile(
    r"^[ \t*]{0,8}categor(?:y|ies)[ \t*]{0,4}:[ \t*]{0,4}([^\n]{1,200})", re.IGNORECASE | re.MULTILINE
)
_SCORE = re.compile(r"<score>\s{0,8}(yes|no)\s{0,8}</score>", re.IGNORECASE)
_BARE_SCORE = re.compile(r"\s{0,8}(yes|no)\b[.\s]{0,8}(?:<confidence>[^<]{0,20}</confidence>\s{0,8})?\Z", re.IGNORECASE)
_CODES = re.compile(r"S\d{1,2}(?:\s{0,3},\s{0,3}S\d{1,2}){0,14}", re.IGNORECASE)


def guard_format(model: str, templates: str | None) -> GuardFormat:
    """Return the format for a guard: named by the setting, else told from the model's name, else our policy."""
    for known in GuardFormat:
        if templates == known.value:
            return known
    name = re.sub(r"[^a-z0-9]", "", model.lower())
    if "llamaguard" in name:
        return GuardFormat.llama_guard
    if "qwen3guard" in name:
        return GuardFormat.qwen3guard
    if "graniteguardian" in name:
        return GuardFormat.granite_guardian
    return GuardFormat.policy


def guard_messages(turns: Sequence[ChatMessage], form: GuardFormat) -> tuple[ChatMessage, ...]:
    """Return what the guard is sent; the last turn is the one to classify."""
    if form is not GuardFormat.policy:
        return alternating(turns)
    body = "\n\n".join(f"[{turn.role}]\n{turn.content}" for turn in turns)
    mark = secrets.token_hex(8)
    while mark in body:
        mark = secrets.token_hex(8)
    policy = load_templates(DEFAULT_SET).render("guard", mark=mark)
    fenced = f"=== {mark} ===\n{body}\n=== {mark} ==="
    return (ChatMessage(role="system", content=policy), ChatMessage(role="user", content=fenced))


def alternating(turns: Sequence[ChatMessage]) -> tuple[ChatMessage, ...]:
    """Return user and assistant turns in strict alternation, a user first, as the guards' chat templates demand.

    Text of the caller's system turns counts as the user's; neighbours of one role are joined.
    """
    joined: list[ChatMessage] = []
    for turn in turns:
        role = "assistant" if turn.role == "assistant" else "user"
        if joined and joined[-1].role == role:
            joined[-1] = ChatMessage(role=role, content=f"{joined[-1].content}\n\n{turn.content}")
        else:
            joined.append(ChatMessage(role=role, content=turn.content))
    if joined and joined[0].role == "assistant":
        joined.insert(0, ChatMessage(role="user", content="(no question)"))
    return tuple(joined)


def read_reply(text: str, form: GuardFormat) -> GuardReply:
    """Read a guard's reply; what is not exactly understood is an error. Never raises."""
    match form:
        case GuardFormat.llama_guard:
            return _read_llama(text)
        case GuardFormat.qwen3guard:
            return _read_qwen(text)
        case GuardFormat.granite_guardian:
            return _read_granite(text)
        case GuardFormat.policy:
            return _read_policy(text)


def _read_llama(text: str) -> GuardReply:
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    if not lines or len(lines) > 2:
        return _ERROR
    verdict = lines[0].lower()
    if verdict == "safe" and len(lines) == 1:
        return _SAFE
    if verdict != "unsafe":
        return _ERROR
    codes = _CODES.fullmatch(lines[1]) if len(lines) == 2 else None
    first = re.split(r"[,\s]", lines[1].upper())[0] if codes else ""
    return GuardReply(ScreenVerdict.unsafe, _LLAMA_CATEGORIES.get(first, OTHER_CATEGORY))


def _read_qwen(text: str) -> GuardReply:
    said = {match.group(1).lower() for match in _SAFETY.finditer(text)}
    if len(said) != 1:
        return _ERROR
    if said != {"unsafe"}:
        return _SAFE
    named = _CATEGORIES.search(text)
    first = named.group(1).split(",")[0].strip().lower() if named else ""
    return GuardReply(ScreenVerdict.unsafe, _QWEN_CATEGORIES.get(first, OTHER_CATEGORY))


def _read_granite(text: str) -> GuardReply:
    said = {match.group(1).lower() for match in _SCORE.finditer(text)}
    if not said and (bare := _BARE_SCORE.match(text)):
        said = {bare.group(1).lower()}
    if len(said) != 1:
        return _ERROR
    return GuardReply(ScreenVerdict.unsafe, OTHER_CATEGORY) if said == {"yes"} else _SAFE


def _read_policy(text: str) -> GuardReply:
    replies = [found for found in find_objects(text) if "violation" in found]
    said = {_truth(found["violation"]) for found in replies}
    if said == {False}:
        return _SAFE
    if said != {True}:
        return _ERROR
    category = str(replies[0].get("category", "")).strip().lower()
    return GuardReply(ScreenVerdict.unsafe, category if category in _POLICY_CATEGORIES else OTHER_CATEGORY)


def _truth(value: object) -> bool | None:
    if isinstance(value, bool):
        return value
    return {"1": True, "yes": True, "true": True, "0": False, "no": False, "false": False}.get(
        str(value).strip().lower()
    )
