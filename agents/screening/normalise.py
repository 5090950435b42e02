"""Text as the rules read it: one spelling for what looks alike, and what is hidden in it decoded.

Everything here is linear in the length of the text and bounded in what it yields.
"""

import base64
import binascii
import codecs
import html
import re
import unicodedata
from collections.abc import Iterator
from urllib.parse import unquote

DEPTH_MAX = 2
"""Encodings inside encodings that are followed."""
PAYLOADS_MAX = 32
"""Payloads decoded per text."""
DECODED_CHARS_MAX = 200_000
"""Decoded characters kept per text."""
WHOLE_CHARS_MAX = 20_000
"""Longest text that is also read as rot13 and backwards."""

_LIGATURES = re.compile("[\ufdf0-\ufdfd]")
"""Whole phrases in one Arabic sign; NFKC makes up to 18 characters of each."""
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff"
    "\ufff9-\ufffb\U000e0000-\U000e0fff]+"
)
_MARKS = re.compile("[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]+")
_ALIKE = {
    # Cyrillic, both cases
    "a": "аА", "b": "вВьЬ", "c": "сС", "d": "ԁԀ", "e": "еЕєЄ", "h": "һҺНн", "i": "іІ", "j": "јЈ", "k": "кКқҚ", "l": "ӏӀ", "m": "мМ",
    "n": "пП", "o": "оО", "p": "рР", "q": "ԛԚ", "r": "гГ", "s": "ѕЅ", "t": "тТ", "u": "ц", "w": "ԝԜ", "x": "хХ", "y": "уУ",
}  # fmt: skip
_ALIKE_TOO = {
    # Greek, Latin letters that do not decompose, small capitals
    "a": "αΑɑᴀ", "b": "βΒʙ", "c": "ϲᴄ", "d": "đđᴅ", "e": "εΕᴇ", "f": "ꜰ", "g": "ɡɢ", "h": "ΗħĦʜ", "i": "ιΙıɪɩ", "j": "ᴊ",
    "k": "κΚᴋ", "l": "łŁʟ", "m": "Μᴍ", "n": "ηΝɴ", "o": "οΟøØᴏ", "p": "ρΡᴘ", "r": "ʀ", "s": "ꜱ", "t": "τΤŧŦᴛ", "u": "υᴜ",
    "v": "νᴠ", "w": "ωᴡ", "x": "χΧ", "y": "γΥʏ", "z": "ζΖᴢ",
}  # fmt: skip
_LOOKALIKE = {
    **{ord(alike): letter for table in (_ALIKE, _ALIKE_TOO) for letter, alikes in table.items() for alike in alikes},
    **{0x1F1E6 + number: chr(ord("a") + number) for number in range(26)},  # regional indicators
}

_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{20,}={0,2}")
_BASE64_BREAK = re.compile(r"(?<=[A-Za-z0-9+/]{40})\r?\n(?=[A-Za-z0-9+/])")
_HEX = re.compile(r"(?:(?:\\x|0x|%)?[0-9A-Fa-f]{2}[ :,]{0,2}){10,}")
_HEX_DIGITS = re.compile(r"(?:\\x|0x|%)?([0-9A-Fa-f]{2})")
_ESCAPED = re.compile(r"%[0-9A-Fa-f]{2}")
_UNICODE_ESCAPED = re.compile(r"\\u([0-9A-Fa-f]{4})")
_BINARY = re.compile(r"(?:[01]{8}[ ,]{0,2}){8,}")


def fold(text: str) -> str:
    """Return `text` in one spelling: NFKC, lower case, no invisible characters or accents, lookalikes in Latin."""
    if text.isascii():
        return text.casefold()
    text = _INVISIBLE.sub("", unicodedata.normalize("NFKC", _LIGATURES.sub(" ", text)))
    if not text.isascii():
        text = _MARKS.sub("", unicodedata.normalize("NFD", text)).translate(_LOOKALIKE)
    return text.casefold()


def readings(text: str) -> Iterator[str]:
    """Yield `text` itself and then what is hidden in it, not yet folded: decoded payloads, rot13, reversed."""
    left = DECODED_CHARS_MAX
    level = [text]
    for depth in range(DEPTH_MAX + 1):
        following: list[str] = []
        for reading in level:
            yield reading
            if depth == DEPTH_MAX:
                continue
            for payload in _payloads(reading):
                payload = payload[:left]
                left -= len(payload)
                following.append(payload)
                if left <= 0 or len(following) >= PAYLOADS_MAX:
                    break
        level = following
    if len(text) <= WHOLE_CHARS_MAX:
        yield codecs.encode(text, "rot13")
        yield text[::-1]


def _payloads(text: str) -> Iterator[str]:
    plain = text if text.isascii() else _INVISIBLE.sub("", unicodedata.normalize("NFKC", _LIGATURES.sub(" ", text)))
    for match in _first(_BASE64, _BASE64_BREAK.sub("", plain)):
        decoded = _from_base64(match)
        if decoded:
            yield decoded
    for match in _first(_HEX, plain):
        decoded = _readable(bytes.fromhex("".join(_HEX_DIGITS.findall(match))))
        if decoded:
            yield decoded
    for match in _first(_BINARY, plain):
        digits = re.findall("[01]{8}", match)
        decoded = _readable(bytes(int(octet, 2) for octet in digits))
        if decoded:
            yield decoded
    if len(_first(_ESCAPED, plain[:DECODED_CHARS_MAX], limit=3)) == 3:
        yield unquote(plain[:DECODED_CHARS_MAX].replace("+", " "), errors="replace")
    if "&#" in plain:
        yield html.unescape(plain[:DECODED_CHARS_MAX])
    if _UNICODE_ESCAPED.search(plain):
        yield _UNICODE_ESCAPED.sub(lambda match: chr(int(match.group(1), 16)), plain[:DECODED_CHARS_MAX])


def _first(pattern: re.Pattern[str], text: str, *, limit: int = PAYLOADS_MAX) -> list[str]:
    found: list[str] = []
    for match in pattern.finditer(text):
        found.append(match.group())
        if len(found) == limit:
            break
    return found


def _from_base64(text: str) -> str | None:
    text = text.rstrip("=").translate(str.maketrans("-_", "+/"))[:DECODED_CHARS_MAX]
    text = text[: len(text) - (len(text) % 4 == 1)]
    try:
        return _readable(base64.b64decode(text + "=" * (-len(text) % 4), validate=True))
    except (binascii.Error, ValueError):
        return None


def _readable(data: bytes) -> str | None:
    """Return `data` as text when it is text: UTF-8 (or UTF-16), nearly all printable."""
    for encoding in ("utf-8", "utf-16-le"):
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        printable = sum(character.isprintable() or character in "\r\n\t" for character in text)
        letters = sum(character.isascii() and (character.isalpha() or character == " ") for character in text)
        if text and printable >= 0.95 * len(text) and letters >= 0.6 * len(text):
            return text
    return None
