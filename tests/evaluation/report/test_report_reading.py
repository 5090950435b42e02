"""The page in headless Chromium: readable for everyone, light and dark, on a desk and a phone; hostile texts do nothing."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from harness.browser import chromium, watched
from harness.evaluations import sample, three_rows
from harness.hostile import HOSTILE
from k2think.evaluation.published import read_published
from k2think.evaluation.records import read_run
from k2think.evaluation.report.build import build_report
from k2think.evaluation.report.html import to_html
from k2think.schemas.evaluation import Status

if TYPE_CHECKING:
    from playwright.sync_api import Browser

__all__ = ["chromium"]
pytestmark = pytest.mark.timeout(400)  # a guard against hanging, for machines that are busy with other things

RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}


@pytest.fixture(scope="module")
def page_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A report with everything in it, some of it hostile."""
    folder, generator = tmp_path_factory.mktemp("report"), random.Random(1)
    run = three_rows({"arithmetic": 20, "logic": 15, "words": 80})
    texts = [text.encode("utf-8", "replace").decode() for text in HOSTILE]
    for place, one in enumerate(run.outcomes):
        if place % 9 == 0:
            text = generator.choice(texts)
            status = generator.choice([*Status])
            run.outcomes[place] = one.model_copy(update={"final": sample(text, text=text, reason=text, status=status)})
    del run.outcomes[::50]
    run.manifest = {"suite": "aime_2024"}
    page = folder / "report.html"
    page.write_text(to_html(build_report([read_run(run.write(folder / "run"))], published=read_published())))
    return page.as_uri()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_everyone_can_read_it(chromium: Browser, page_url: str, width: int, scheme: str) -> None:
    with watched(chromium, page_url, viewport={"width": width, "height": 800}, color_scheme=scheme) as seen:
        seen.page.goto(page_url)
        seen.page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        wide = seen.page.evaluate("document.documentElement.scrollWidth")
        found: list[dict[str, Any]] = Axe().run(seen.page, options=RULES).response["violations"]
        seen.check()
    assert wide == width, "the page is wider than the screen"
    assert [f"{rule['id']}: {node['html'][:200]} {node['any'][:1]}" for rule in found for node in rule["nodes"]] == []


def test_plots_keep_within_their_frames(chromium: Browser, page_url: str) -> None:
    outside = """() => [...document.querySelectorAll('figure > svg')].flatMap((plot) => {
      const frame = plot.getBoundingClientRect();
      return [...plot.querySelectorAll('text, circle, line, rect, path')].filter((one) => {
        const box = one.getBoundingClientRect();
        return box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 1 || box.bottom > frame.bottom + 1;
      }).map((one) => one.outerHTML.slice(0, 120));
    })"""
    for width in (1280, 360):
        with watched(chromium, page_url, viewport={"width": width, "height": 800}) as seen:
            seen.page.goto(page_url)
            assert seen.page.evaluate("document.querySelectorAll('figure > svg').length") == 5
            assert seen.page.evaluate(outside) == []
