"""The endpoints of the trace page. Nothing here changes anything.

A trace can be megabytes of text, so runs are rendered in a thread: other requests go on meanwhile.
"""

import time
from asyncio import to_thread
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import RedirectResponse, Response
from sqlalchemy import Connection

from ...schemas.doors import DoorNote
from ...schemas.errors import InvalidRequest, NotFound
from ...schemas.trace import JobTrace
from ...schemas.withheld import withhold
from ...store.overview import JobPoint, JobRow, browse_jobs, job_door, job_points
from ...store.trace import job_trace
from ..access import AnyCaller, Caller, TheServices
from ..services import Services
from .compare import compare_values
from .listing import ROWS_PER_PAGE, STRIP_JOBS, TEXT_CHARS_MAX, Chosen, DoorName, RangeName, StatusName, list_values
from .rendering import SECURITY_HEADERS, assets, export_page, page
from .routing import PageRoute, error_page
from .run_view import run_values

STOP_POLLING = 286
"""htmx asks no more after this status."""
_ASSET_AGE_S = 31_536_000

router = APIRouter(prefix="/ui", route_class=PageRoute, include_in_schema=False)

_Flag = Annotated[str | None, Header(max_length=16)]
"""A header that htmx sends: only whether it is there counts."""


@router.get("")
async def runs(
    caller: AnyCaller,
    services: TheServices,
    status: StatusName = "",
    text: Annotated[str, Query(max_length=TEXT_CHARS_MAX)] = "",
    door: DoorName = "",
    range: RangeName = "",
    before: Annotated[str, Query(max_length=36)] = "",
    hx_request: _Flag = None,
    hx_history_restore_request: _Flag = None,
) -> Response:
    """The list; to htmx, only the part that changes."""
    chosen = Chosen(status, text.replace("\0", ""), door, range, before)
    now, began = services.database.now(), time.monotonic()
    wanted = chosen.filter(caller.tenant, now=now)

    def look(conn: Connection) -> tuple[list[JobRow], Sequence[JobPoint]]:
        rows = browse_jobs(conn, wanted, limit=ROWS_PER_PAGE + 1, before=chosen.cursor)
        all_of_them = chosen.cursor is None and len(rows) <= ROWS_PER_PAGE
        return rows, rows if all_of_them else job_points(conn, wanted, limit=STRIP_JOBS)

    rows, points = await services.database.read(look)
    took_s = time.monotonic() - began
    part = hx_request is not None and hx_history_restore_request is None
    values = {**list_values(rows, points, chosen, now=now, took_s=took_s), "caller": caller}
    return page("_runs.html" if part else "list.html", values)


@router.get("/")
async def runs_with_slash() -> Response:
    """The same place."""
    return RedirectResponse("/ui", 308, SECURITY_HEADERS)


@router.get("/jobs/{job_id}")
async def run(job_id: str, caller: AnyCaller, services: TheServices) -> Response:
    """One run. The address stays good for as long as the job is kept."""
    trace, door = await _look(services, caller, job_id)
    now = services.database.now()
    return await to_thread(lambda: page("run.html", {**run_values(trace, door, now=now), "caller": caller}))


@router.get("/jobs/{job_id}/live")
async def live(job_id: str, caller: AnyCaller, services: TheServices) -> Response:
    """The part of a run's page that changes; tells htmx when it will change no more."""
    trace, door = await _look(services, caller, job_id)
    now = services.database.now()
    status = STOP_POLLING if trace.status.final else 200
    return await to_thread(lambda: page("_run.html", {**run_values(trace, door, now=now), "part": True}, status=status))


@router.get("/jobs/{job_id}/export")
async def export(job_id: str, caller: AnyCaller, services: TheServices) -> Response:
    """One run as a file that needs nothing else."""
    trace, door = await _look(services, caller, job_id)
    now, name = services.database.now(), f"k2think-{trace.job_id}.html"
    return await to_thread(lambda: export_page({**run_values(trace, door, now=now), "exported": True}, filename=name))


@router.get("/jobs/{job_id}/trace.json")
async def trace_file(job_id: str, caller: AnyCaller, services: TheServices) -> Response:
    """The trace as JSON, for a browser that has no key to show to /v1/jobs."""
    trace, _ = await _look(services, caller, job_id)
    headers = {
        **SECURITY_HEADERS,
        "Cache-Control": "no-store",
        "Content-Disposition": f'attachment; filename="k2think-{trace.job_id}.json"',
    }
    content = await to_thread(lambda: trace.model_dump_json(indent=2))
    return Response(content, media_type="application/json", headers=headers)


@router.get("/compare")
async def compare_runs(
    caller: AnyCaller,
    services: TheServices,
    a: str = "",
    b: str = "",
    run: Annotated[list[str] | None, Query(max_length=100)] = None,
) -> Response:
    """Two runs side by side; `run` twice is how the list's form asks for it."""
    if run:
        if len(run) != 2:
            raise InvalidRequest(
                f"two runs can be compared, and {len(run)} were chosen: choose two in the list", param="run"
            )
        a, b = run
    if not a or not b:
        raise InvalidRequest("two runs are compared: choose two in the list", param="a")
    left, _ = await _look(services, caller, a)
    right, _ = await _look(services, caller, b)
    now = services.database.now()
    return await to_thread(lambda: page("compare.html", {**compare_values(left, right, now=now), "caller": caller}))


@router.get("/static/{name}")
async def static(name: str, request: Request) -> Response:
    """Styles, scripts and the icon; their addresses carry their digest."""
    found = assets().get(name)
    if found is None:
        raise NotFound(f"no file {name!r}")
    content, kind, digest = found
    headers = {**SECURITY_HEADERS, "ETag": f'"{digest}"', "Cache-Control": f"public, max-age={_ASSET_AGE_S}, immutable"}
    if request.headers.get("If-None-Match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=kind, headers=headers)


@router.get("/{path:path}")
async def nowhere(path: str) -> Response:
    """Whatever else is asked for."""
    return error_page(404, "There is no such page.")


async def _look(services: Services, caller: Caller, job_id: str) -> tuple[JobTrace, DoorNote | None]:
    """Return what the caller may see of a job, and what its door noted. Raises NotFound for another tenant's, too."""

    def look(conn: Connection) -> tuple[JobTrace, DoorNote | None]:
        owned, door = job_door(conn, job_id, tenant=caller.tenant)
        return withhold(job_trace(conn, owned)), door

    return await services.database.read(look)
