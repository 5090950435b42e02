"""Templates to pages, with headers that forbid whatever the page does not need."""

import base64
import hashlib
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ... import __version__
from ...schemas.withheld import WITHHELD
from .naming import DOORS, step_title
from .text import shortened, visible

HERE = Path(__file__).parent
CONTENT_TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "font-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""Nothing from elsewhere, nothing inline."""
SECURITY_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3_600, 86_400


def page(
    template: str, values: Mapping[str, Any], *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a page. It is never cached: it shows what was true a moment ago."""
    text = environment().get_template(template).render(values)
    given = {**SECURITY_HEADERS, "Cache-Control": "no-store", "Vary": "HX-Request", **(headers or {})}
    return HTMLResponse(text.encode("utf-8", "replace"), status, given)


def export_page(values: Mapping[str, Any], *, filename: str) -> Response:
    """Return a run's page as a file of its own: the styles are in it, and nothing else can be."""
    style = (HERE / "static" / "app.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    # The style sheet is our own file, so it may stand there as it is.
    inlined = {"style": Markup(style), "csp": policy}  # noqa: S704
    return page(
        "export.html",
        {**values, **inlined},
        headers={
            "Content-Security-Policy": f"{policy}; frame-ancestors 'none'",
            "Content-Disposition": f'attachment; filename="{filename}"',
        },
    )


@cache
def assets() -> dict[str, tuple[bytes, str, str]]:
    """Return content, type and digest of all static files by name: nothing else can be asked for."""
    found: dict[str, tuple[bytes, str, str]] = {}
    for path in sorted((HERE / "static").iterdir()):
        if path.suffix in CONTENT_TYPES:
            content = path.read_bytes()
            found[path.name] = (content, CONTENT_TYPES[path.suffix], hashlib.sha256(content).hexdigest())
    return found


@cache
def environment() -> Environment:
    """Return the templates: every value is escaped, and shown without anything invisible in it."""
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_plain,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shared: dict[str, Any] = {
        "asset": _asset,
        "version": __version__,
        "doors": DOORS,
        "exported": False,
        "withheld_text": WITHHELD,
    }
    filters: dict[str, Callable[..., Any]] = {
        "seconds": seconds,
        "count": _count,
        "clock": _clock,
        "iso": _iso,
        "ago": _ago,
        "rate": _rate,
        "block": _block,
        "short_id": _short_id,
        "step_title": step_title,
    }
    made.globals |= shared
    made.filters |= filters
    return made


def seconds(value: float | None) -> str:
    """Return a duration in seconds in the unit that reads best; a dash for None."""
    if value is None:
        return "–"
    value = max(0.0, value)
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 10:
        return f"{value:.2f} s"
    if value < _MINUTE_S:
        return f"{value:.1f} s"
    if value < _HOUR_S:
        return f"{int(value // _MINUTE_S)} min {int(value % _MINUTE_S)} s"
    return f"{int(value // _HOUR_S)} h {int(value % _HOUR_S // _MINUTE_S)} min"


def _plain(value: Any) -> Any:
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _asset(name: str) -> str:
    return f"/ui/static/{name}?v={assets()[name][2][:16]}"


def _block(value: str | None) -> str:
    return "" if value is None else shortened(value)


def _count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def _rate(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _clock(at: float | None) -> str:
    return "–" if at is None else time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at))


def _iso(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at)) + f".{int(at % 1 * 1000):03d}Z"


def _ago(at: float, now: float) -> str:
    passed = max(0.0, now - at)
    for size, unit in ((_DAY_S, "d"), (_HOUR_S, "h"), (_MINUTE_S, "min")):
        if passed >= size:
            return f"{int(passed // size)} {unit} ago"
    return f"{int(passed)} s ago"


def _short_id(job_id: str) -> str:
    return f"{job_id[:8]}…{job_id[-6:]}"
