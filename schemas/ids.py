"""Time-ordered identifiers: UUID version 7 (RFC 9562, section 5.7), which the standard library has only from Python 3.14."""

import os
import time
import uuid

_RANDOM_BITS = 74
_MILLISECONDS_MAX = (1 << 48) - 1


def uuid7(*, now_s: float | None = None) -> str:
    """Return a new UUIDv7 in its canonical text form; ids made later sort later (millisecond resolution).

    `now_s` is a Unix time in seconds; None means the system clock.
    """
    milliseconds = int((time.time() if now_s is None else now_s) * 1000) & _MILLISECONDS_MAX
    random = int.from_bytes(os.urandom(10), "big") & ((1 << _RANDOM_BITS) - 1)
    random_a, random_b = random >> 62, random & ((1 << 62) - 1)
    value = (milliseconds << 80) | (0x7 << 76) | (random_a << 64) | (0b10 << 62) | random_b
    return str(uuid.UUID(int=value))


def first_id(at: float) -> str:
    """Return what ids made from a Unix time in seconds on sort after, and earlier ones before."""
    milliseconds = f"{int(min(max(0.0, at * 1000), _MILLISECONDS_MAX)):012x}"
    return f"{milliseconds[:8]}-{milliseconds[8:]}"
