"""Lists, objects and plain values that a model wrote as JSON or as Python, read without evaluating anything.

Depth and length are bounded, so nothing that stands in an answer can exhaust the interpreter: `ast.literal_eval` and
`json` both give way to deep nesting.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable
from typing import Any

from pydantic import JsonValue

from ...schemas.errors import GradingError

MAX_CHARS = 400_000
MAX_DEPTH = 60
MAX_INT_DIGITS = 4_000
MAX_STARTS = 40
"""Opening brackets that are tried in a text with words around its values."""

Literal = Any
"""None, bool, int, float, str, list, tuple, frozenset or dict of these."""

_TOKEN = re.compile(
    r"""\s*(?:(?P<mark>[\[\](){},:])
      | (?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
      | (?P<number>[+-]?(?:\d[\d_]*(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))
      | (?P<word>[+-]?[A-Za-z_][\w-]*))""",
    re.VERBOSE | re.DOTALL,
)
_BARE = re.compile(r"\s*([^\[\](){},:\"'\s][^\[\](){},:\"\n]*)")
_WORDS: dict[str, Literal] = {
    "true": True, "false": False, "null": None, "none": None, "nan": math.nan, "inf": math.inf, "infinity": math.inf,
    "-inf": -math.inf, "-infinity": -math.inf, "+inf": math.inf,
}  # fmt: skip
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|x([0-9a-fA-F]{2})|(\n)|(.))", re.DOTALL)
_PLAIN_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "0": "\0"}
_CLOSING = {"[": "]", "(": ")", "{": "}"}


class Unreadable(ValueError):
    """The text is no literal, or one beyond the bounds."""


def read_literal(text: str, *, bare_words: bool = False) -> Literal:
    """Return the value that all of `text` writes; raises Unreadable. `bare_words` reads unquoted words as strings."""
    reader = _Reader(text, bare_words)
    value = reader.value(0)
    reader.expect_end()
    return value


def read_truth(truth: JsonValue, problem: str) -> Any:
    """Return the value of a truth, which may be written as text; `problem` names the kind. Raises GradingError."""
    if not isinstance(truth, str):
        return truth
    try:
        return read_literal(truth)
    except Unreadable as exc:
        raise GradingError(f"the truth of {problem} cannot be read: {exc}") from exc


def find_literals(text: str, opening: str = "[{", *, bare_words: bool = False) -> list[Literal]:
    """Return the outermost bracketed values in `text` that can be read, in order. Never raises."""
    text = text[-MAX_CHARS:]
    found: list[Literal] = []
    place = 0
    for _ in range(MAX_STARTS):
        start = min((at for mark in opening if (at := text.find(mark, place)) >= 0), default=-1)
        if start < 0:
            break
        reader = _Reader(text, bare_words, start)
        try:
            found.append(reader.value(0))
            place = reader.place
        except Unreadable:
            place = start + 1
    return found


def same_literal(a: Literal, b: Literal, *, relative: float = 1e-9) -> bool:
    """Whether two values are equal: floats within `relative`, 1 equal to 1.0 but not to True, lists equal to tuples never."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, int) and isinstance(b, int):
        return a == b
    if isinstance(a, int | float) and isinstance(b, int | float):
        return _same_float(a, b, relative)
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same_literal(a[key], b[key], relative=relative) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same_literal(x, y, relative=relative) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def _same_float(a: float, b: float, relative: float) -> bool:
    try:
        x, y = float(a), float(b)
    except OverflowError:
        return False
    return (math.isnan(x) and math.isnan(y)) or math.isclose(x, y, rel_tol=relative, abs_tol=1e-12)


class _Reader:
    """Recursive descent over one value."""

    def __init__(self, text: str, bare_words: bool, place: int = 0) -> None:
        if len(text) > MAX_CHARS:
            raise Unreadable("too long")
        self._text = text
        self._bare = bare_words
        self.place = place

    def expect_end(self) -> None:
        if self._text[self.place :].strip():
            raise Unreadable("more follows")

    def value(self, depth: int) -> Literal:
        if depth > MAX_DEPTH:
            raise Unreadable("nested too deeply")
        token = self._next()
        if token.re is _BARE:
            return token[1].strip()
        mark = token["mark"]
        if mark in ("[", "("):
            items, comma = self._items(_CLOSING[mark], depth)
            if mark == "[":
                return items
            return tuple(items) if comma or len(items) != 1 else items[0]
        if mark == "{":
            return self._braces(depth)
        if mark:
            raise Unreadable(f"unexpected {mark}")
        return _plain(token)

    def _items(self, closing: str, depth: int) -> tuple[list[Literal], bool]:
        """Read up to `closing`; the flag says whether there was a comma."""
        items: list[Literal] = []
        comma = False
        while not self._take(closing):
            items.append(self.value(depth + 1))
            if self._take(","):
                comma = True
            elif not self._peek(closing):
                raise Unreadable(f"neither a comma nor {closing}")
        return items, comma

    def _braces(self, depth: int) -> Literal:
        """Read an object, or a set."""
        pairs: dict[Hashable, Literal] = {}
        members: list[Hashable] = []
        while not self._take("}"):
            key = _hashable(self.value(depth + 1))
            if self._take(":"):
                pairs[key] = self.value(depth + 1)
            else:
                members.append(key)
            if not self._take(",") and not self._peek("}"):
                raise Unreadable("neither a comma nor }")
        if members and pairs:
            raise Unreadable("half an object")
        return frozenset(members) if members else pairs

    def _next(self) -> re.Match[str]:
        match = _TOKEN.match(self._text, self.place)
        if self._bare and (match is None or match["number"] is not None or match["word"] is not None):
            match = _BARE.match(self._text, self.place)
        if match is None:
            raise Unreadable("no value here")
        self.place = match.end()
        return match

    def _peek(self, mark: str) -> bool:
        match = _TOKEN.match(self._text, self.place)
        return match is not None and match["mark"] == mark

    def _take(self, mark: str) -> bool:
        match = _TOKEN.match(self._text, self.place)
        if match is None or match["mark"] != mark:
            return False
        self.place = match.end()
        return True


def _hashable(value: Literal) -> Hashable:
    try:
        hash(value)
    except TypeError as exc:
        raise Unreadable("a list cannot be a key") from exc
    return value


def _plain(token: re.Match[str]) -> Literal:
    if token["string"] is not None:
        return _string(token["string"][1:-1])
    if token["word"] is not None:
        word = token["word"].casefold()
        if word not in _WORDS:
            raise Unreadable("a word without quotes")
        return _WORDS[word]
    digits = token["number"].replace("_", "")
    if len(digits) > MAX_INT_DIGITS:
        raise Unreadable("a number too long")
    return float(digits) if any(char in ".eE" for char in digits) else int(digits)


def _string(inside: str) -> str:
    text = _ESCAPE.sub(_unescaped, inside)
    try:  # two \\uXXXX escapes may be one character
        return text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        return text


def _unescaped(match: re.Match[str]) -> str:
    code = match[1] or match[2] or match[3]
    if code:
        number = int(code, 16)
        return chr(number) if number <= 0x10FFFF else match.group()
    if match[4]:
        return ""
    plain = match[5]
    if plain in _PLAIN_ESCAPES:
        return _PLAIN_ESCAPES[plain]
    return plain if plain in "\"'\\/" else match.group()
