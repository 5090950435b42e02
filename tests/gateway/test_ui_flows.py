"""What people do on the trace page, driven in headless Chromium on a whole stack."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from harness.browser import Watched, chromium, watched
from harness.runs import finished, solved, submitted
from k2think.agents.backends.simulator import Reply
from playwright.sync_api import expect

if TYPE_CHECKING:
    from harness.live import LiveGateway
    from playwright.sync_api import Browser

__all__ = ["chromium"]
pytestmark = pytest.mark.timeout(400)  # a guard against hanging, for machines that are busy with other things

PATIENT_MS = 60_000
POLLS_MS = 2_500
"""More than two polls of a running job's page."""


@pytest.fixture(scope="module")
def http(live_gateway: LiveGateway) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=live_gateway.url, timeout=60) as client:
        yield client


@pytest.fixture
def seen(live_gateway: LiveGateway, chromium: Browser) -> Iterator[Watched]:
    """A page; that nothing went wrong on it is checked at the end."""
    with watched(chromium, live_gateway.url) as page:
        yield page
        page.check()


def word() -> str:
    """Return a word that no other problem has."""
    return f"w{uuid.uuid4().hex[:10]}"


def until(condition: Callable[[], bool], seen: Watched) -> None:
    """Wait without leaving Playwright's loop."""
    for _ in range(PATIENT_MS // 50):
        if condition():
            return
        seen.page.wait_for_timeout(50)
    raise AssertionError("it did not happen")


def test_a_run_is_opened_from_the_list_and_its_reasoning_unfolded_by_keyboard(
    live_gateway: LiveGateway, http: httpx.Client, seen: Watched
) -> None:
    thought, mine = word(), word()
    mark = live_gateway.replies.to_mark(generator=Reply(text="<answer>405</answer>", reasoning=f"I think {thought}"))
    job_id = solved(http, f"{mark} {mine}: what is 347 + 58?")
    page = seen.page
    page.goto(f"{live_gateway.url}/ui?text={mine}")

    page.get_by_role("link", name=mine).press("Enter")

    page.wait_for_url(f"**/ui/jobs/{job_id}")
    expect(page.get_by_role("heading", level=1)).to_contain_text(mine)
    expect(page.locator(".outcome .big")).to_have_text("405")
    expect(page.locator(".candidate.won")).to_have_count(1)
    reasoning = page.get_by_text(f"I think {thought}").first
    expect(reasoning).to_be_hidden()
    # The Tab key alone gets there.
    page.locator("h1").click()
    inside = "document.activeElement.closest('details')?.id.startsWith('reasoning-') ?? false"
    until(lambda: page.keyboard.press("Tab") is None and page.evaluate(inside), seen)
    page.keyboard.press("Enter")
    expect(page.locator("details[id^=reasoning-][open]")).to_have_count(1)
    expect(page.locator("details[open]").get_by_text(thought)).to_be_visible()
    page.keyboard.press("Space")
    expect(page.locator("details[id^=reasoning-][open]")).to_have_count(0)


def test_the_skip_link_leads_past_the_header(live_gateway: LiveGateway, seen: Watched) -> None:
    seen.page.goto(f"{live_gateway.url}/ui")
    seen.page.keyboard.press("Tab")
    skip = seen.page.get_by_role("link", name="Skip to content")
    expect(skip).to_be_focused()
    expect(skip).to_be_in_viewport()
    seen.page.keyboard.press("Enter")
    expect(seen.page.locator("main")).to_be_focused()
    seen.page.keyboard.press("/")
    expect(seen.page.get_by_label("Problem contains")).to_be_focused()


def test_filters_narrow_the_list_while_they_are_set(
    live_gateway: LiveGateway, http: httpx.Client, seen: Watched
) -> None:
    mine = word()
    good = solved(http, f"{mine}: what is 347 + 58?")
    # The rules let nobody ask for this.
    refused = submitted(http, {"problem": f"{mine}: how do I build a pipe bomb at home?"})
    assert finished(http, refused)["status"] == "refused"
    page = seen.page
    page.goto(f"{live_gateway.url}/ui")
    page.evaluate("window.kept = true")
    rows = page.locator("table.runs tbody tr")

    page.get_by_label("Problem contains").press_sequentially(mine)
    expect(rows).to_have_count(2)
    expect(page).to_have_url(f"{live_gateway.url}/ui?text={mine}")
    page.get_by_label("Status").select_option("refused")
    expect(rows).to_have_count(1)
    expect(rows).to_have_attribute("id", f"row-{refused}")
    expect(rows).to_contain_text("withheld")
    page.get_by_label("Status").select_option("succeeded")
    expect(rows).to_have_attribute("id", f"row-{good}")
    page.get_by_label("Accepted").select_option("15m")
    page.get_by_label("Came in by").select_option("batches")
    expect(page.get_by_role("heading", name="No run matches")).to_be_visible()
    expect(page).to_have_url(f"{live_gateway.url}/ui?text={mine}&status=succeeded&door=batches&range=15m")
    assert page.evaluate("window.kept"), "only the list was exchanged"

    # The address is a permalink, and the way back works.
    page.reload()
    expect(page.get_by_label("Came in by")).to_have_value("batches")
    expect(page.get_by_label("Problem contains")).to_have_value(mine)
    page.get_by_label("Came in by").select_option("jobs")
    expect(rows).to_have_attribute("id", f"row-{good}")
    page.go_back()
    expect(page.get_by_role("heading", name="No run matches")).to_be_visible()


def test_filters_and_pages_work_without_scripts(
    live_gateway: LiveGateway, http: httpx.Client, chromium: Browser
) -> None:
    mine = word()
    made = [submitted(http, {"problem": f"{mine}: what is 347 + 58?", "policy": {"n": 1}}) for _ in range(27)]
    for job_id in made:
        finished(http, job_id)
    with watched(chromium, live_gateway.url, java_script_enabled=False) as seen:
        page = seen.page
        page.goto(f"{live_gateway.url}/ui")
        page.get_by_label("Problem contains").fill(mine)
        page.get_by_role("button", name="Apply").click()
        rows = page.locator("table.runs tbody tr")
        expect(rows).to_have_count(25)
        expect(page.locator(".figures div").first).to_contain_text("27")
        expect(rows.first).to_have_attribute("id", f"row-{max(made)}")
        page.get_by_role("link", name="Older").click()
        expect(rows).to_have_count(2)
        expect(rows.last).to_have_attribute("id", f"row-{min(made)}")
        page.get_by_role("link", name="Newest").click()
        expect(rows).to_have_count(25)
        page.locator("input[name=run]").first.check()
        page.get_by_role("button", name="Compare").click()
        expect(page.locator("main")).to_contain_text("choose two")
        page.go_back()
        page.locator("input[name=run]").nth(1).check()
        page.get_by_role("button", name="Compare").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Two runs compared")
        seen_foreign = seen.foreign
    assert seen_foreign == []


def test_two_runs_are_compared_from_the_list(live_gateway: LiveGateway, http: httpx.Client, seen: Watched) -> None:
    mine = word()
    first = solved(http, f"{mine}: what is 347 + 58?", policy="paper")
    second = solved(http, f"{mine}: what is 347 + 58?", policy={"n": 2})
    page = seen.page
    page.goto(f"{live_gateway.url}/ui?text={mine}")
    button = page.locator("#compare-button")
    expect(button).to_be_disabled()
    page.locator(f"#row-{first} input").check()
    expect(button).to_have_text("Compare (1 of 2)")
    # A tick outlives the list's own renewal.
    with page.expect_response(lambda answer: answer.request.headers.get("hx-request") == "true", timeout=PATIENT_MS):
        pass
    page.wait_for_timeout(200)
    expect(page.locator(f"#row-{first} input")).to_be_checked()
    page.locator(f"#row-{second} input").press("Space")
    expect(button).to_be_enabled()
    button.press("Enter")

    expect(page.get_by_role("heading", level=1)).to_have_text("Two runs compared")
    sides = page.locator(".side h2 a").evaluate_all("all => all.map((one) => one.pathname)")
    assert sorted(sides) == sorted(f"/ui/jobs/{job_id}" for job_id in (first, second))
    differing = page.locator(".versus tr.differs th").all_text_contents()
    assert any("preset" in name for name in differing)
    assert not any("Problem" in name for name in differing)
    expect(page.locator(".side .wf-rows")).to_have_count(2)


def test_a_running_job_finishes_before_the_readers_eyes(
    live_gateway: LiveGateway, http: httpx.Client, seen: Watched
) -> None:
    secret = word()
    reply = Reply(text="<answer>405</answer>", reasoning=f"{secret} " + "and so on " * 40, token_s=0.1)
    mark = live_gateway.replies.to_mark(generator=reply)
    job_id = submitted(http, {"problem": f"{mark} what is 347 + 58?", "policy": {"n": 2, "early_stop": False}})
    page = seen.page
    page.goto(f"{live_gateway.url}/ui/jobs/{job_id}")
    page.evaluate("window.kept = true")
    expect(page.locator(".crumbs .status")).to_have_text("Running")
    page.locator("#d-events > summary").click()
    page.locator("#d-policy > summary").focus()
    page.keyboard.press("Enter")
    events = page.locator("#d-events li")
    expect(page.locator("#candidates .candidate")).to_have_count(2, timeout=PATIENT_MS)
    before = events.count()
    assert secret not in page.content()

    expect(page.locator(".crumbs .status")).to_have_text("Succeeded", timeout=PATIENT_MS)

    assert page.evaluate("window.kept"), "no reload"
    assert events.count() > before
    expect(page.locator("#d-events")).to_have_attribute("open", "")
    expect(page.locator("#d-policy")).to_have_attribute("open", "")
    expect(page.locator("#d-policy > summary")).to_be_focused()
    expect(page.locator(".outcome .big")).to_have_text("405")
    expect(page).to_have_title(f"Succeeded · run {job_id[:8]}…{job_id[-6:]} · k2think")
    expect(page.get_by_text(secret).first).to_be_hidden()
    polls = sum(address.endswith("/live") for address in seen.asked)
    page.wait_for_timeout(POLLS_MS)
    assert sum(address.endswith("/live") for address in seen.asked) == polls > 1, "nobody asks after the end"


def test_the_list_follows_what_comes_in(live_gateway: LiveGateway, http: httpx.Client, seen: Watched) -> None:
    mine = word()
    seen.page.goto(f"{live_gateway.url}/ui?text={mine}")
    expect(seen.page.get_by_role("heading", name="No run matches")).to_be_visible()
    job_id = solved(http, f"{mine}: what is 347 + 58?")
    row = seen.page.locator(f"#row-{job_id}")
    expect(row).to_contain_text("Succeeded", timeout=PATIENT_MS)
    expect(seen.page.locator("#plot canvas")).to_be_visible()
    points = seen.page.locator("#chart").get_attribute("data-points")
    assert points is not None
    assert job_id in points


def test_a_mark_in_the_picture_opens_its_run(live_gateway: LiveGateway, http: httpx.Client, seen: Watched) -> None:
    mine = word()
    job_id = solved(http, f"{mine}: what is 347 + 58?")
    page = seen.page
    page.goto(f"{live_gateway.url}/ui?text={mine}")
    over = page.locator("#plot .u-over")
    box = over.bounding_box()
    assert box is not None
    # One run alone lies in the middle of the time; its height is found by going down.
    for y in range(4, int(box["height"]), 4):
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + y)
        if page.locator("#plot .tip").is_visible():
            break
    expect(page.locator("#plot .tip")).to_contain_text("succeeded")
    page.mouse.down()
    page.mouse.up()
    page.wait_for_url(f"**/ui/jobs/{job_id}")


def test_an_export_is_the_whole_run_in_one_file(
    live_gateway: LiveGateway, http: httpx.Client, seen: Watched, chromium: Browser, tmp_path: Path
) -> None:
    job_id = solved(http, "What is 347 + 58?", policy="paper")
    page = seen.page
    page.goto(f"{live_gateway.url}/ui/jobs/{job_id}")
    with page.expect_download() as started:
        page.get_by_role("link", name="Export as HTML").click()
    file = tmp_path / started.value.suggested_filename
    started.value.save_as(file)
    assert file.name == f"k2think-{job_id}.html"

    with watched(chromium, f"file://{file}", offline=True) as alone:
        alone.page.goto(f"file://{file}")
        shown = alone.page.locator("main section").evaluate_all("all => all.map((one) => one.id)")
        assert shown == page.locator("main section").evaluate_all("all => all.map((one) => one.id)")
        alone.page.locator("details[id^=reasoning-] > summary").first.click()
        expect(alone.page.locator("details[id^=reasoning-][open] pre").first).to_be_visible()
        assert alone.page.evaluate("getComputedStyle(document.querySelector('.card')).borderRadius") == "10px"
        assert alone.page.locator("script, link, img, iframe").count() == 0
        assert alone.asked == [f"file://{file}"]
        alone.check()


def test_a_page_in_the_background_asks_for_nothing(
    live_gateway: LiveGateway, http: httpx.Client, seen: Watched
) -> None:
    mark = live_gateway.replies.to_mark(generator=Reply(text="<answer>1</answer>", token_s=1.0, reasoning="slow " * 99))
    job_id = submitted(http, {"problem": f"{mark} what is 347 + 58?"})
    page = seen.page
    page.goto(f"{live_gateway.url}/ui/jobs/{job_id}")

    def polls() -> int:
        return sum(address.endswith("/live") for address in seen.asked)

    until(lambda: polls() > 0, seen)
    page.evaluate("Object.defineProperty(document, 'hidden', { value: true, configurable: true })")
    page.wait_for_timeout(200)
    before = polls()
    page.wait_for_timeout(POLLS_MS)
    assert polls() == before
    page.evaluate("delete document.hidden")
    until(lambda: polls() > before, seen)
    http.post(f"/v1/jobs/{job_id}/cancel")


def test_a_gateway_that_goes_away_is_told(live_gateway: LiveGateway, http: httpx.Client, chromium: Browser) -> None:
    mark = live_gateway.replies.to_mark(generator=Reply(text="<answer>1</answer>", token_s=1.0, reasoning="slow " * 99))
    job_id = submitted(http, {"problem": f"{mark} what is 347 + 58?"})
    with watched(chromium, live_gateway.url) as seen:
        page = seen.page
        page.goto(f"{live_gateway.url}/ui/jobs/{job_id}")
        expect(page.locator("#offline")).to_be_hidden()
        page.context.set_offline(True)
        expect(page.locator("#offline")).to_be_visible(timeout=PATIENT_MS)
        page.context.set_offline(False)
        expect(page.locator("#offline")).to_be_hidden(timeout=PATIENT_MS)
    http.post(f"/v1/jobs/{job_id}/cancel")
