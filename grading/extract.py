"""The final answer out of a model's text.

What stands after the last ``</think>`` counts; a text whose thinking never ended has no answer. From strong to weak
evidence: the last non-empty ``<answer>``, the last balanced ``\\boxed{}``, the last fenced code block (when code is
asked for), a phrase such as "the answer is 42", a number that ends the text. Prose is not an answer: None when unsure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from ..schemas.checks import AnswerForm
from .normal import MAX_ANSWER_CHARS, matching, normalise
from .notation import choice_letter, parse_answer
from .number import parse_number
from .values import Words

MAX_TEXT_CHARS = 4_000_000
"""Of longer texts only the end is read."""
MAX_PHRASES = 20
"""Phrases that are looked at, the last ones of a text."""
MAX_PLAIN_CHARS = 200
"""Longest bare answer, without tag, box or phrase."""

Source = Literal["answer_tag", "boxed", "choice", "code", "number", "plain"]


@dataclass(frozen=True, slots=True)
class Extracted:
    """A final answer and the evidence for it."""

    answer: str
    """The answer's own text: tags, boxes, surrounding blanks and the final full stop of a phrase removed."""
    source: Source
    """What marked it as the answer."""


_THINK = re.compile(r"<\s*(/?)\s*think\s*>", re.IGNORECASE)
_OPEN_TAG = re.compile(r"<\s*answer\s*>", re.IGNORECASE)
_CLOSE_TAG = re.compile(r"<\s*/\s*answer\s*>", re.IGNORECASE)
_CUT_TAG = re.compile(r"<(?:/(?:a(?:n(?:s(?:w(?:e(?:r)?)?)?)?)?)?)?$", re.IGNORECASE)
_BOX = re.compile(r"\\f?box(?:ed)?\s*(?=\{)|\\boxed\s+(?=[^\s{])")
_FENCE = re.compile(r"^[ \t]*(```+|~~~+)[^\n`]*\n(.*?)^[ \t]*\1[ \t]*$", re.DOTALL | re.MULTILINE)
_PHRASE = re.compile(
    r"(?:\b(?:final\s+|correct\s+|best\s+)?(?:answer|choice|option|result)\s+(?:is|equals|would\s+be)\b|\b(?:final\s+)?answer\s*\**\s*[:=])"
    r"[ \t]*(?:therefore\b|thus\b|then\b|simply\b|just\b)?[ \t]*:?[ \t]*\**[ \t]*\n{0,2}[ \t]*(?P<rest>[^\n]{1,400})",
    re.IGNORECASE,
)
_STRONG = re.compile(r"answer|(?:correct|best)\s+(?:choice|option)", re.IGNORECASE)
"""Phrases that speak of the answer; `the other choice is …` and `this result is …` need not."""
_TAKES_BACK = re.compile(r"(?:not|neither|wrong|incorrect|unclear|unknown)\b", re.IGNORECASE)
_LETTER = re.compile(
    r"(?:option|choice)?\s*(?:\(\s*([A-Z])\s*\)|\*\*\(?([A-Z])\)?\*\*|([A-Z])(?=[\s.,;:)*]|$))", re.IGNORECASE
)
_ARTICLE = re.compile(r"[AI]\s+(?!because\b|since\b|as\b|for\b|which\b|and\b|or\b|is\b|with\b|due\b|given\b)[a-z]")
"""`A nucleus decays` names no choice; `A because …` does."""
_ANOTHER_LETTER = re.compile(r"\**\s*(?:,|/|;|&|\band\b|\bor\b)\s*\**\(?[A-H]\b")
"""`(A) or (B)` names no one choice."""
_LONE_LETTER = re.compile(r"\s*\**\s*(?:\(\s*([A-Za-z])\s*\)|([A-Z])\s*[.):]?)\s*\**\s*")
_ENDING = re.compile(r"(?:=|≈|\bis|\bare|\bequals)\s*\$?\s*(?P<value>[^=≈$\n]{1,60}?)\s*\$?\s*[.!]?\s*$")


def extract_answer(text: str, *, form: AnswerForm | None = None) -> Extracted | None:
    """The final answer in `text`, or None when there is none or it is doubtful.

    `form` tells what is looked for: letters count as choices, and fenced blocks as code, only when asked for or said
    outright. Time is linear in the length of the text.
    """
    body = visible_text(text)
    if body is None:
        return None
    body = body[-MAX_TEXT_CHARS:]
    tagged = _from_tag(body, form)
    if tagged is not None:
        return tagged
    body = _CLOSE_TAG.sub("\n", _OPEN_TAG.sub("\n", body))
    if form is AnswerForm.code:
        code = _last_fence(body)
        return Extracted(code, "code") if code else None
    boxed = last_boxed(body)
    if boxed:
        return _as_choice(boxed, form, "boxed")
    return _from_phrase(body, form) or _from_ending(body, form)


def visible_text(text: str) -> str | None:
    """What follows the last ``</think>``; all of it when there is no thinking; None when the thinking was cut off."""
    tags = list(_THINK.finditer(text))
    if not tags:
        return text
    return text[tags[-1].end() :] if tags[-1][1] else None


def last_boxed(text: str) -> str:
    """Content of the last balanced, non-empty ``\\boxed{…}`` or ``\\fbox{…}`` (or ``\\boxed 5``); empty when there is none."""
    found = list(_BOX.finditer(text))
    for match in reversed(found[-50:]):
        if text[match.end()] != "{":
            return re.split(r"[\s$]", text[match.end() :], maxsplit=1)[0].rstrip(".,")
        window = text[match.end() : match.end() + 4 * MAX_ANSWER_CHARS]
        end = matching(_without_escapes(window), 0)
        if end > 0 and window[1:end].strip():
            inner = window[1:end].strip()
            return last_boxed(inner) or inner
    return ""


def _without_escapes(text: str) -> str:
    """Same length, with ``\\{`` and ``\\}`` blotted out: they do not group."""
    return re.sub(r"\\[{}\\]", "\0\0", text)


def _from_tag(body: str, form: AnswerForm | None) -> Extracted | None:
    opened = list(_OPEN_TAG.finditer(body))
    end = len(body)
    for match in reversed(opened):
        inside = body[match.end() : end]
        end = match.start()
        closing = _CLOSE_TAG.search(inside)
        inside = inside[: closing.start()] if closing else _CUT_TAG.sub("", inside)
        if inside.strip():
            return _tag_content(inside, form)
    return None


def _tag_content(inside: str, form: AnswerForm | None) -> Extracted | None:
    inside = inside.strip()
    if form is AnswerForm.code:
        return Extracted(_last_fence(inside + "\n") or inside, "code")
    if boxed := last_boxed(inside):
        return _as_choice(boxed, form, "answer_tag")
    if form is not AnswerForm.text:
        if len(inside) > MAX_ANSWER_CHARS:
            return None
        phrase = _from_phrase(inside, form)
        if phrase is not None:
            return Extracted(phrase.answer, "answer_tag")
    return _as_choice(inside, form, "answer_tag")


def _as_choice(answer: str, form: AnswerForm | None, source: Source) -> Extracted:
    if form is AnswerForm.choice:
        letter = choice_letter(normalise(answer))
        if letter:
            return Extracted(letter.upper(), source)
    return Extracted(answer, source)


def _last_fence(text: str) -> str:
    blocks = [m[2] for m in _FENCE.finditer(text) if m[2].strip()]
    return blocks[-1].rstrip() if blocks else ""


def _from_phrase(body: str, form: AnswerForm | None) -> Extracted | None:
    """What the last phrase names that names anything, first of those that speak of the answer.

    One that takes back, hedges or states something of another form is the last word: what stands before it is no answer.
    """
    phrases = list(_PHRASE.finditer(body))[-MAX_PHRASES:]
    for phrase in sorted(phrases, key=lambda match: (_is_strong(match), match.start()), reverse=True):
        rest = phrase["rest"].strip().lstrip("* ")
        found = _named(rest, form)
        if found is not None or _hedges(rest) or _TAKES_BACK.match(rest) or _states(rest):
            return found
    return None


def _is_strong(phrase: re.Match[str]) -> bool:
    return _STRONG.search(phrase[0][: phrase.start("rest") - phrase.start()]) is not None


def _states(rest: str) -> bool:
    """Whether it is some answer, if not of the form that is asked for, and no prose."""
    stated = _short_answer(rest, None)
    return stated is not None and not _reads_as_prose(stated.answer)


def _hedges(rest: str) -> bool:
    letter = _LETTER.match(rest)
    return letter is not None and _ANOTHER_LETTER.match(rest, letter.end()) is not None


def _named(rest: str, form: AnswerForm | None) -> Extracted | None:
    """What follows a phrase: a letter, or where others are asked for a short answer."""
    letter = _LETTER.match(rest)
    wanted = form is AnswerForm.choice and letter is not None and (letter[1] or (letter[2] or letter[3]).isupper())
    if _hedges(rest):
        return None
    wanted = wanted and not _ARTICLE.match(rest)
    if letter is not None and (wanted or _is_explicit_letter(letter, rest)):
        return Extracted(next(g for g in letter.groups() if g).upper(), "choice")
    if form is AnswerForm.choice:
        return None
    return _short_answer(rest, form)


def _is_explicit_letter(letter: re.Match[str], rest: str) -> bool:
    """`(B)` and a lone capital `B.` are choices; `a prime number` and `x` are not."""
    if letter[1]:
        return letter[1].isupper() or not rest[letter.end() :].strip(" .*")
    name = letter[2] or letter[3] or ""
    return name in "ABCDEFGH" and name != "" and not rest[letter.end() :].strip(" .*)")


def _short_answer(rest: str, form: AnswerForm | None) -> Extracted | None:
    """The mathematics or name at the start of what follows a phrase, up to the end of its sentence."""
    sentence = re.split(
        r"(?<=[^\d])\.(?:\s|$)|(?<=\d)\.(?:\s|$)|[!?](?:\s|$)|\s(?:because|since|which|as we)\s", rest, maxsplit=1
    )[0]
    answer = sentence.strip(" \t*_`").rstrip(".,;:").strip()
    if not answer or len(answer) > MAX_PLAIN_CHARS:
        return None
    if form is AnswerForm.text:
        return Extracted(answer, "plain")
    if parse_number(normalise(answer)) is not None:
        return Extracted(answer, "number")
    value = parse_answer(answer)
    if not isinstance(value, Words) or value.text in ("yes", "no"):
        return Extracted(answer, "plain")
    leading = re.match(r"\$?[+-]?\d[\d,]*(?:\.\d+)?(?:\s*/\s*\d+)?%?(?=\s)", answer)
    if leading is not None:  # "42 because …", "405 in total"
        return Extracted(leading.group(), "number")
    return Extracted(answer, "plain") if len(answer.split()) <= 3 else None


def _from_ending(body: str, form: AnswerForm | None) -> Extracted | None:
    stripped = body.strip()
    if not stripped or r"\boxed" in stripped:  # a box that is empty or cut off is no answer
        return None
    last_line = stripped.rsplit("\n", 1)[-1].strip()
    if len(last_line) > 10 * MAX_PLAIN_CHARS:
        return None
    if form is AnswerForm.choice:
        letter = _LONE_LETTER.fullmatch(last_line)
        return Extracted((letter[1] or letter[2]).upper(), "choice") if letter else None
    bare = last_line.strip("*`_ ")
    if len(bare) <= MAX_PLAIN_CHARS and parse_number(normalise(bare)) is not None:
        return Extracted(bare.rstrip(".") if bare.endswith(".") else bare, "number")
    ending = _ENDING.search(last_line)
    if ending is not None:
        value = ending["value"].strip(" *`_")
        if value and parse_number(normalise(value)) is not None:
            return Extracted(value, "number")
    one_line = "\n" not in stripped and len(stripped) <= MAX_PLAIN_CHARS
    if not one_line:
        return None
    if form is AnswerForm.text:
        return Extracted(stripped, "plain")
    value = parse_answer(stripped, form=form)
    if isinstance(value, Words):
        return Extracted(stripped, "plain") if value.text in ("yes", "no") else None
    return Extracted(stripped, "plain") if not _reads_as_prose(stripped) else None


def _reads_as_prose(text: str) -> bool:
    """Mathematics has few ordinary words; a sentence with a formula in it has several."""
    words = re.findall(r"(?<![\\A-Za-z])[A-Za-z]{3,}(?![A-Za-z])", text)
    return len(words) > 2
