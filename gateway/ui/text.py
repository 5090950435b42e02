"""Text of models and callers on a page: characters that are not seen, or that turn what is seen, are made visible.

Markup is none of this module's business: the templates escape everything.
"""

TEXT_CHARS_MAX = 100_000
"""Of each text, this much is shown; the trace as JSON has the whole."""

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_INVISIBLE = (
    *range(0x80, 0xA0),  # C1: some terminals take them for escapes
    0xAD,  # soft hyphen
    0x061C,
    0x180E,
    0x200B,
    *range(0x200E, 0x2010),  # marks of direction
    *range(0x2028, 0x202F),  # separators; embeddings and overrides of direction
    *range(0x2060, 0x2070),  # word joiner, isolates
    0xFEFF,
    *range(0xFFF9, 0xFFFC),
    *range(0xE0000, 0xE0080),  # tags: text that nobody sees
)
"""Joiners (U+200C, U+200D) are left alone: scripts and emoji need them."""


def _table() -> dict[int, str]:
    table = {code: chr(0x2400 + code) for code in range(0x20) if code not in (0x09, 0x0A)}
    table[0x7F] = "\N{SYMBOL FOR DELETE}"
    table |= {code: f"‹U+{code:04X}›" for code in _INVISIBLE}
    table |= dict.fromkeys(range(0xD800, 0xE000), _REPLACEMENT)
    return table


_TABLE = _table()


def visible(text: str) -> str:
    """Return the text with control characters, marks of direction and invisible characters shown as symbols."""
    return text.replace("\r\n", "\n").translate(_TABLE)


def shortened(text: str, chars: int = TEXT_CHARS_MAX) -> str:
    """Return the text, or its beginning and a note of what was left out."""
    if len(text) <= chars:
        return text
    return f"{text[:chars]}\n… ({len(text) - chars:,} more characters: the trace as JSON has them all)"
