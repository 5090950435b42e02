"""Sixty hostile texts, as problem and as output of every model, on every page in headless Chromium: they stay text."""

from __future__ import annotations

import contextlib
import html
import os
import pty
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from harness.browser import Watched, chromium, watched
from harness.cli import Cli
from harness.hostile import HOSTILE, case_of
from harness.runs import finished, submitted
from k2think.cli.app import app
from typer.testing import CliRunner

if TYPE_CHECKING:
    from harness.live import LiveGateway
    from playwright.sync_api import Browser

__all__ = ["chromium"]
pytestmark = pytest.mark.timeout(600)  # a guard against hanging, for machines that are busy with other things

NARROW = {"width": 360, "height": 740}
UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
"""What acts without being seen, or turns what is seen. All of it must have become visible."""
TERMINAL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""What a terminal acts upon, and what turns the direction of writing."""
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_MADE = """() => {
  const inside = document.querySelector("main");
  const alien = "script, img, image, iframe, object, embed, link, style, base, meta, video, math, foreignObject, animate, template";
  const found = [...inside.querySelectorAll(alien)].map((node) => node.outerHTML);
  for (const node of document.querySelectorAll("*"))
    for (const { name, value } of node.attributes) {
      if (name.startsWith("on") || name === "style" && !node.closest("#plot")) found.push(`${name}=${value}`);
      if (["href", "src", "action", "formaction", "hx-get"].includes(name) && !/^(\\/ui|#)/.test(value))
        found.push(`${name}=${value}`);
    }
  return found;
}"""
"""What only our templates may make, found where they make none."""


@pytest.fixture(scope="module")
def http(live_gateway: LiveGateway) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=live_gateway.url, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def runs(live_gateway: LiveGateway, http: httpx.Client) -> list[str]:
    """The ids of one finished run per text, in order."""
    made = [submitted(http, case_of(live_gateway, text)) for text in HOSTILE]
    ended = [finished(http, job_id) for job_id in made]
    assert {job["status"] for job in ended} == {"succeeded"}
    return made


def checked(seen: Watched) -> str:
    """Check the page that is shown; return its text."""
    seen.check()
    assert seen.page.evaluate(_MADE) == []
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]
    text: str = seen.page.evaluate("document.documentElement.textContent")
    assert UNSEEN.search(text) is None
    return text


def shown(text: str) -> str:
    """The longest part of a hostile text that every page shows as it is."""
    return max(re.split(UNSEEN, text.replace("\r", "\x00")), key=len)


def test_there_are_sixty() -> None:
    assert len(set(HOSTILE)) == 60
    assert sum("ran=1" in text for text in HOSTILE) >= 25, "a script that runs leaves a mark"


def test_no_control_character_reaches_the_terminal(live_gateway: LiveGateway, runs: list[str]) -> None:
    command, environment = CliRunner(), live_gateway.up.environment
    steering = [job_id for job_id, text in zip(runs, HOSTILE, strict=True) if TERMINAL.search(text)]
    asked = [("list", "--limit", "100"), *(("trace", job_id) for job_id in runs)]
    asked += [(name, job_id) for job_id in steering for name in ("show", "why")]
    printed: list[str] = []
    for words in asked:
        done = command.invoke(app, ["jobs", *words], env=environment)
        assert done.exit_code == 0, done.output
        printed.append(done.output)
    assert [text for text in printed if TERMINAL.search(text)] == []
    assert sum("problem: " in text for text in printed) >= 60, "they were printed"


@pytest.mark.parametrize("name", ["show", "why", "trace"])
def test_a_real_terminal_gets_colours_and_nothing_else(live_gateway: LiveGateway, runs: list[str], name: str) -> None:
    terminal = next(job_id for job_id, text in zip(runs, HOSTILE, strict=True) if "]52;c" in text)
    # Whatever the far end of a terminal would be sent.
    mine, theirs = pty.openpty()
    cli = Cli(live_gateway.up.folder, live_gateway.up.environment)
    child = subprocess.Popen(
        cli.command("jobs", name, terminal),
        env={**cli.environment, "TERM": "xterm-256color"},
        stdout=theirs,
        stdin=theirs,
    )
    os.close(theirs)
    sent = b""
    # Reading fails when the other side is closed.
    with contextlib.suppress(OSError):
        while some := os.read(mine, 65_536):
            sent += some
    os.close(mine)
    assert child.wait(60) == 0
    text = COLOUR.sub("", sent.decode().replace("\r\n", "\n"))
    assert "clipboard" in text
    assert TERMINAL.search(text) is None


def test_a_run_shows_them_as_text(live_gateway: LiveGateway, chromium: Browser, runs: list[str]) -> None:
    with watched(chromium, live_gateway.url, viewport=NARROW) as seen:
        for job_id, text in zip(runs, HOSTILE, strict=True):
            seen.page.goto(f"{live_gateway.url}/ui/jobs/{job_id}")
            seen.page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
            found = checked(seen)
            for place in ("problem", "plan", "reasoning", "content", "answer", "judged"):
                assert re.search(f"{place}: {re.escape(text[:1]) if text[0].isprintable() else ''}", found), place
            assert found.count(shown(text)) >= 8, "problem, plan, two candidates with three texts each, verdicts"


def test_the_list_shows_them_as_text(live_gateway: LiveGateway, chromium: Browser, runs: list[str]) -> None:
    with watched(chromium, live_gateway.url, viewport=NARROW) as seen:
        seen.page.goto(f"{live_gateway.url}/ui?text=problem:")
        met: list[str] = []
        while True:
            checked(seen)
            addresses = seen.page.locator("a.problem").evaluate_all("all => all.map((one) => one.pathname)")
            met += [address.rpartition("/")[2] for address in addresses]
            older = seen.page.get_by_role("link", name="Older")
            if not older.count():
                break
            older.click()
            seen.page.wait_for_url("**before=**" + met[-1])
        assert set(runs) <= set(met)


def test_a_comparison_shows_them_as_text(live_gateway: LiveGateway, chromium: Browser, runs: list[str]) -> None:
    with watched(chromium, live_gateway.url, viewport=NARROW) as seen:
        for place in range(0, len(runs), 2):
            seen.page.goto(f"{live_gateway.url}/ui/compare?a={runs[place]}&b={runs[place + 1]}")
            found = checked(seen)
            assert shown(HOSTILE[place])[:60] in found
            assert shown(HOSTILE[place + 1])[:60] in found


def test_an_export_shows_them_as_text_offline(
    http: httpx.Client, chromium: Browser, runs: list[str], tmp_path: Path
) -> None:
    with watched(chromium, f"file://{tmp_path}", viewport=NARROW, offline=True) as seen:
        for number, (job_id, text) in enumerate(zip(runs, HOSTILE, strict=True)):
            answer = http.get(f"/ui/jobs/{job_id}/export")
            assert answer.headers["content-disposition"] == f'attachment; filename="k2think-{job_id}.html"'
            file = tmp_path / f"{number}.html"
            file.write_bytes(answer.content)
            assert "<script" not in answer.text

            seen.page.goto(f"file://{file}")

            assert shown(text) in checked(seen)
        assert [address for address in seen.asked if not address.endswith(".html")] == []


def test_markup_leaves_the_server_escaped(http: httpx.Client, runs: list[str]) -> None:
    """The same without a browser: what a parser more lenient than Chromium's would be given."""
    for job_id, text in zip(runs, HOSTILE, strict=True):
        page = http.get(f"/ui/jobs/{job_id}")
        if "<" in text:
            assert text not in page.text
            assert html.escape(shown(text)).replace("&#x27;", "&#39;").replace("&quot;", "&#34;") in page.text
        assert page.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'; ")
        assert "unsafe" not in page.headers["content-security-policy"]
        assert page.headers["x-content-type-options"] == "nosniff"
        assert page.headers["cache-control"] == "no-store"
