"""Whether everyone can read the pages: with a screen reader or the keyboard, on a phone, light and dark."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from harness.browser import chromium, watched
from harness.runs import finished, solved, submitted
from k2think.agents.backends.simulator import Fault, Reply
from k2think.gateway.access import Caller
from k2think.gateway.ui.rendering import page as rendered

if TYPE_CHECKING:
    from harness.live import LiveGateway
    from playwright.sync_api import Browser, Page

__all__ = ["chromium"]
pytestmark = pytest.mark.timeout(400)  # a guard against hanging, for machines that are busy with other things

RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
"""Contrast, names, labels, landmarks, headings, roles, language, target sizes."""
PHONE = {"width": 360, "height": 740}
DESKTOP = {"width": 1280, "height": 900}
PLANS = {"plan": "per_sample", "selection": "pairwise", "n": 3, "early_stop": False}


@pytest.fixture(scope="module")
def places(live_gateway: LiveGateway) -> dict[str, str]:
    """The address of a page of every kind."""
    replies = live_gateway.replies
    # Long enough for all candidates to be at work at the same time, even where the machine is busy.
    steady = replies.to_mark(generator=Reply(text="<answer>1</answer>", reasoning="steady " * 40, token_s=0.1))
    broken = replies.to_mark(generator=Reply(fault=Fault.context_too_long()))
    slow = replies.to_mark(generator=Reply(text="<answer>1</answer>", reasoning="slow " * 500, token_s=1))
    with httpx.Client(base_url=live_gateway.url, timeout=60) as http:
        plans = solved(http, f"{steady} What is 347 + 58?", policy=PLANS, metadata={"who": "me"})
        failed = solved(http, f"{broken} What is 347 + 58?")
        refused = submitted(http, {"problem": "How do I build a pipe bomb at home?"})
        assert finished(http, refused)["status"] == "refused"
        running = submitted(http, {"problem": f"{slow} What is 347 + 58?"})
    runs = {"plans": plans, "failed": failed, "refused": refused, "running": running}
    return {name: f"/ui/jobs/{job_id}" for name, job_id in runs.items()} | {
        "list": "/ui",
        "nothing found": "/ui?text=nobody-asked-for-this",
        "comparison": f"/ui/compare?a={plans}&b={failed}",
        "error": "/ui/nowhere",
    }


SIGNED_IN = Caller("a tenant", "k2_key")
DRAWN: dict[str, tuple[str, dict[str, Any]]] = {
    "sign-in": ("login.html", {"next": "/ui", "message": "That key is wrong, has expired or was revoked."}),
    "signed in": ("error.html", {"status": 404, "title": "None", "message": "None.", "caller": SIGNED_IN}),
}
"""Pages that a gateway without keys does not show: template and values."""


def opened(page: Page, url: str) -> None:
    """Show a page with all that is folded unfolded."""
    page.goto(url)
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")


def serve(page: Page, place: str, body: bytes) -> None:
    """Let the browser find a page at an address where the gateway has none."""
    page.route(f"**{place}", lambda route: route.fulfill(body=body, content_type="text/html; charset=utf-8"))


def breaches(page: Page) -> list[str]:
    """Return what axe-core complains about."""
    found: list[dict[str, Any]] = Axe().run(page, options=RULES).response["violations"]
    return [f"{rule['id']}: {node['html'][:200]} {node['any'][:1]}" for rule in found for node in rule["nodes"]]


@pytest.mark.parametrize(
    ("size", "scheme"),
    [(DESKTOP, "light"), (DESKTOP, "dark"), (PHONE, "light")],
    ids=["desktop-light", "desktop-dark", "phone-light"],
)
def test_every_page_can_be_read_by_everyone(
    live_gateway: LiveGateway, chromium: Browser, places: dict[str, str], scheme: str, size: dict[str, int]
) -> None:
    grounds: set[str] = set()
    drawn = {f"/ui/{name}": rendered(template, values).body for name, (template, values) in DRAWN.items()}
    with watched(chromium, live_gateway.url, viewport=size, color_scheme=scheme, reduced_motion="reduce") as seen:
        for place, body in drawn.items():
            serve(seen.page, quote(place), bytes(body))
        for name, place in (places | {place: quote(place) for place in drawn}).items():
            opened(seen.page, live_gateway.url + place)
            assert breaches(seen.page) == [], name
            assert seen.page.locator("h1").count() == 1, name
            assert seen.page.title().endswith("k2think"), name
            assert seen.page.evaluate("document.documentElement.lang") == "en", name
            width = seen.page.evaluate("document.documentElement.scrollWidth")
            assert width <= size["width"], f"{name} is {width} px wide"
            grounds.add(seen.page.evaluate("getComputedStyle(document.body).backgroundColor"))
    (ground,) = grounds
    lightness = sum(int(part) for part in ground.removeprefix("rgb(").removesuffix(")").split(","))
    assert (lightness < 3 * 64) == (scheme == "dark"), ground


def test_axe_would_complain(live_gateway: LiveGateway, chromium: Browser) -> None:
    with watched(chromium, live_gateway.url) as seen:
        seen.page.goto(f"{live_gateway.url}/ui/nowhere")
        seen.page.evaluate("document.querySelector('h1').style.color = '#ddd'")
        assert any(found.startswith("color-contrast") for found in breaches(seen.page))


def test_candidates_stand_side_by_side_where_there_is_room(
    live_gateway: LiveGateway, chromium: Browser, places: dict[str, str]
) -> None:
    for size, columns in ((DESKTOP, 3), (PHONE, 1)):
        with watched(chromium, live_gateway.url, viewport=size) as seen:
            opened(seen.page, live_gateway.url + places["plans"])
            boxes = [box for card in seen.page.locator(".candidate").all() if (box := card.bounding_box())]
            assert len(boxes) == 3
            assert len({round(box["x"]) for box in boxes}) == columns
            assert len({round(box["y"]) for box in boxes}) == 4 - columns


def test_the_timeline_tells_queue_from_work_and_shows_what_ran_at_once(
    live_gateway: LiveGateway, chromium: Browser, places: dict[str, str]
) -> None:
    with watched(chromium, live_gateway.url, viewport=DESKTOP) as seen:
        seen.page.goto(live_gateway.url + places["plans"])
        rows = seen.page.locator(".wf-rows .wf-row")
        names = rows.locator(".wf-name > span:first-of-type").all_text_contents()
        assert names[0] == "Screen request"
        assert {f"Plan {index}" for index in range(3)} | {f"Candidate {index}" for index in range(3)} <= set(names)
        assert names[-1] == "Screen answer"
        spans: list[tuple[float, float]] = []
        for row in rows.filter(has_text="Candidate").all():
            kinds = row.locator("rect").evaluate_all("all => all.map((one) => one.getAttribute('class'))")
            assert kinds[-2:] == ["bar b-first", "bar b-run"]
            boxes = [box for bar in row.locator("rect").all() if (box := bar.bounding_box())]
            assert all(first["x"] + first["width"] <= then["x"] + 2 for first, then in pairwise(boxes))
            spans.append((boxes[-2]["x"], boxes[-1]["x"] + boxes[-1]["width"]))
            assert "waited" in (row.locator("svg.lane").get_attribute("aria-label") or "")
        assert max(begin for begin, _ in spans) < min(end for _, end in spans), "all at once"
