"""Figures as text, the same in Markdown and HTML."""

from __future__ import annotations

import re
import time

from ..statistics import Estimate

NOTHING = "–"
"""Stands where a figure does not apply or is unknown; the table's note says which."""

_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\ud800-\udfff\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    """Return text without characters that are not seen, turn the direction of writing, or cannot be written to a file."""
    return _INVISIBLE.sub("\ufffd", text)


def percent(estimate: Estimate | None) -> str:
    """Return a share with its interval, in per cent."""
    if estimate is None:
        return NOTHING
    if estimate.low is None or estimate.high is None:
        return f"{share(estimate.value)} [no interval]"
    return f"{share(estimate.value)} [{share(estimate.low)}, {share(estimate.high)}]"


def points(estimate: Estimate | None) -> str:
    """Return a difference of shares with its interval, in points."""
    if estimate is None:
        return NOTHING
    if estimate.low is None or estimate.high is None:
        return f"{_signed(estimate.value)} [no interval]"
    return f"{_signed(estimate.value)} [{_signed(estimate.low)}, {_signed(estimate.high)}]"


def share(value: float | None) -> str:
    """Return a share in per cent, without an interval."""
    return NOTHING if value is None else f"{100 * value:.1f}".replace("-", "−")


def p_value(p: float | None) -> str:
    """Return a p-value."""
    if p is None:
        return NOTHING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def number(value: float) -> str:
    """Return a count."""
    return f"{value:,.0f}"


def seconds(value: float) -> str:
    """Return seconds with as many digits as they carry."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def money(value: float | None) -> str:
    """Return a cost in the currency of the price list."""
    return "unknown" if value is None else f"{value:,.4g}"


def times(value: float | None) -> str:
    """Return a ratio."""
    return NOTHING if value is None else f"{value:.2f}×"


def moment(at: float) -> str:
    """Return a Unix time as UTC."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at))


def short(digest: str | None) -> str:
    """Return the beginning of a hash."""
    return "unknown" if digest is None else digest[:12]


def _signed(value: float) -> str:
    text = f"{100 * value:+.1f}".replace("-", "−")
    return "0.0" if text in ("+0.0", "−0.0") else text
