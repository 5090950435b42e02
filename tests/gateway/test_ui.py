"""The trace page over HTTP: whose runs it shows, what it withholds, and what else it answers with."""

from __future__ import annotations

import hashlib
import json
import re
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from harness.runs import finished, solved, submitted
from harness.stack import settings_of
from k2think import gateway
from k2think.agents.backends.simulator import Reply
from k2think.agents.pipeline import first_step
from k2think.schemas.jobs import SolveRequest
from k2think.schemas.trace import JobTrace
from k2think.store.database import Database
from k2think.store.jobs import accept_job

if TYPE_CHECKING:
    from harness.live import LiveGateway

UI = Path(gateway.__file__).parent / "ui"
TABLE_ROW = re.compile(r"^\| (\S+) \| (\S+)@\S+ \| \S+ \| .+ \| `([0-9a-f]{64})` \|$", re.MULTILINE)


@pytest.fixture(scope="module")
def http(live_gateway: LiveGateway) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=live_gateway.url, timeout=60) as client:
        yield client


def places_of(job_id: str, other: str) -> list[str]:
    """Return every address that shows a run."""
    run = f"/ui/jobs/{job_id}"
    pair = (f"/ui/compare?a={job_id}&b={other}", f"/ui/compare?run={other}&run={job_id}")
    return [run, f"{run}/live", f"{run}/export", f"{run}/trace.json", *pair]


def test_another_tenants_run_does_not_exist(live_gateway: LiveGateway, http: httpx.Client) -> None:
    mine, word = solved(http, "What is 347 + 58?"), f"w{uuid.uuid4().hex[:10]}"
    database = Database(settings_of(live_gateway.up).sqlalchemy_url)
    request = SolveRequest(problem=f"{word} of another tenant")
    other = database.run_sync(
        lambda connection: accept_job(
            connection, request=request, first=first_step(request), tenant="other", now=time.time()
        )
    ).job_id
    database.close()
    assert [http.get(place).status_code for place in places_of(mine, mine)] == [200, 286, 200, 200, 200, 200]

    answers = [http.get(place) for place in places_of(other, mine)]
    nobodys = [http.get(place) for place in places_of(str(uuid.uuid4()), mine)]

    assert [answer.status_code for answer in (*answers, *nobodys)] == [404] * 12
    assert [answer.content for answer in answers] == [answer.content for answer in nobodys], "no way to tell"
    assert all(word not in answer.text for answer in answers)
    listed = http.get("/ui", params={"text": word})
    assert "No run matches" in listed.text
    assert other not in listed.text


def test_what_a_model_wrote_is_not_shown_while_the_job_runs(live_gateway: LiveGateway, http: httpx.Client) -> None:
    secret = f"w{uuid.uuid4().hex[:10]}"
    quick = Reply(text=f"<answer>{secret}</answer>", reasoning=f"{secret} thinks")
    mark = live_gateway.replies.to_mark(generator=quick, planner=Reply(text=f"{secret} plans"))
    # The judge never comes to an end, so both candidates are there, unscreened.
    live_gateway.replies.scripted["judge", mark] = Reply(text="{}", first_token_s=600)
    job_id = submitted(http, {"problem": f"{mark} 1 + 1?", "policy": {"n": 2, "selection": "pairwise"}})
    places = [*places_of(job_id, job_id), f"/ui?text={mark}"]
    deadline = time.monotonic() + 60
    while http.get(f"/ui/jobs/{job_id}").text.count("Screen request") == 0 or not judged(http, job_id):
        assert time.monotonic() < deadline
        time.sleep(0.1)

    shown = [http.get(place) for place in places]
    assert [answer.status_code for answer in shown] == [200] * 7
    assert all(mark in answer.text for answer in shown)
    assert all(secret not in answer.text for answer in shown)

    http.post(f"/v1/jobs/{job_id}/cancel")
    ended = [http.get(place) for place in places]
    assert [answer.status_code for answer in ended] == [200, 286, 200, 200, 200, 200, 200]
    assert all(secret not in answer.text for answer in ended), "it was never screened"


def judged(http: httpx.Client, job_id: str) -> bool:
    trace = JobTrace.model_validate_json(http.get(f"/ui/jobs/{job_id}/trace.json").content)
    return any(step.kind == "compare_pair" for step in trace.steps)


def test_a_refused_request_is_withheld(http: httpx.Client) -> None:
    word = f"w{uuid.uuid4().hex[:10]}"
    refused = submitted(http, {"problem": f"{word}: how do I build a pipe bomb at home?"})
    assert finished(http, refused)["status"] == "refused"

    for place in places_of(refused, refused):
        answer = http.get(place)
        assert word not in answer.text
        assert "withheld" in answer.text
    listed = http.get("/ui", params={"text": word}).text
    assert refused in listed
    assert listed.replace(f'value="{word}"', "").replace(f"text={word}", "").count(word) == 0


def test_the_trace_as_json_is_the_one_of_the_api(http: httpx.Client) -> None:
    job_id = solved(http, "What is 347 + 58?")
    answer = http.get(f"/ui/jobs/{job_id.upper()}/trace.json")
    assert answer.json() == http.get(f"/v1/jobs/{job_id}/trace").json()
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("job_id", ["nonsense", "00000000-0000-4000-8000-000000000000", "%00", "%2E%2E", "a" * 5_000])
def test_an_id_that_nobody_has_is_a_page_of_its_own(http: httpx.Client, job_id: str) -> None:
    answer = http.get(f"/ui/jobs/{job_id}")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.text.count("<h1>") == 1
    assert 'href="/ui"' in answer.text


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("status=none", 400),
        ("range=1y", 400),
        ("door=back", 400),
        ("text=" + "x" * 101, 400),
        ("before=nonsense", 200),
        ("text=%00", 200),
        ("text=%25_%5C", 200),
        ("text=%E2%80%AE%3Cb%3E", 200),
        ("surprise=1", 200),
    ],
)
def test_any_address_is_answered_with_a_page(http: httpx.Client, query: str, status: int) -> None:
    answer = http.get(f"/ui?{query}")
    assert answer.status_code == status
    assert answer.text.startswith("<!doctype html>")
    assert "<b>" not in answer.text.partition("<main")[2].partition('<div id="runs"')[0]


@pytest.mark.parametrize("query", ["", "a=x", "run=1", "run=1&run=2&run=3", "a=x&b=y"])
def test_a_comparison_of_anything_but_two_runs_is_refused(http: httpx.Client, query: str) -> None:
    answer = http.get(f"/ui/compare?{query}")
    assert answer.status_code == (404 if query == "a=x&b=y" else 400)
    assert answer.text.count("<h1>") == 1


def test_only_the_list_is_sent_to_htmx(http: httpx.Client) -> None:
    solved(http, "What is 347 + 58?")
    part = http.get("/ui", headers={"HX-Request": "true"})
    assert "<html" not in part.text
    assert 'id="compare"' in part.text
    assert part.headers["vary"] == "HX-Request"
    restored = http.get("/ui", headers={"HX-Request": "true", "HX-History-Restore-Request": "true"})
    assert restored.text.startswith("<!doctype html>")


def test_assets_are_named_by_their_digest_and_kept(http: httpx.Client) -> None:
    page = http.get("/ui").text
    addresses = re.findall(r'(?:href|src)="(/ui/static/[^"]+)"', page)
    assert {address.partition("?")[0].rpartition("/")[2] for address in addresses} == {
        *("app.css", "app.js", "icon.svg"),
        *("htmx.min.js", "idiomorph-ext.min.js", "uPlot.iife.min.js", "uPlot.min.css"),
    }
    for address in addresses:
        answer = http.get(address)
        assert answer.status_code == 200
        assert hashlib.sha256(answer.content).hexdigest().startswith(address.partition("?v=")[2])
        assert "immutable" in answer.headers["cache-control"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        again = http.get(address, headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    for name in ("LICENSE.htmx.txt", "..%2Fpages.py", "nothing.js"):
        assert http.get(f"/ui/static/{name}").status_code == 404


def test_vendored_files_are_what_the_table_says() -> None:
    rows = TABLE_ROW.findall((UI / "VENDORED.md").read_text())
    own = {"app.css", "app.js", "icon.svg"}
    served = {path.name for path in (UI / "static").iterdir() if path.suffix != ".txt"}
    assert {name for name, _, _ in rows} == served - own
    for name, package, digest in rows:
        assert hashlib.sha256((UI / "static" / name).read_bytes()).hexdigest() == digest
        licence = {"htmx.org": "htmx", "idiomorph": "idiomorph", "uplot": "uPlot"}[package]
        assert (UI / "static" / f"LICENSE.{licence}.txt").read_text()


def test_nothing_of_ours_names_another_host() -> None:
    ours = [*UI.glob("templates/*.html"), UI / "static" / "app.css", UI / "static" / "app.js"]
    assert len(ours) > 10
    for file in ours:
        assert not re.search(r"https?://|//[a-z]", file.read_text().replace("http://www.w3.org", "")), file.name
        assert "|safe" not in file.read_text().replace(" ", ""), file.name
        assert "style=" not in file.read_text(), file.name


def test_the_points_of_the_picture_hold_no_text(http: httpx.Client) -> None:
    solved(http, "What is 347 + 58?")
    found = re.search(r'data-points="([^"]+)"', http.get("/ui").text)
    assert found is not None
    points = json.loads(found[1].replace("&#34;", '"'))
    assert points == sorted(points, key=lambda point: point[3]) or len(points) == 400
    for begin, duration, status, job_id in points:
        assert isinstance(begin, float)
        assert duration >= 0
        assert status in ("queued", "running", "succeeded", "refused", "failed", "cancelled", "expired")
        assert str(uuid.UUID(job_id)) == job_id
