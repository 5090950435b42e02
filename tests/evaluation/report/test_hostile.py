"""Names, prompts, answers, reasons and texts that try to be more than text: in the page and in Markdown they stay text."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from harness.evaluations import SPECS, MadeUp, outcome, sample
from harness.hostile import HOSTILE
from k2think.evaluation.records import read_run
from k2think.evaluation.report.build import build_report
from k2think.evaluation.report.html import to_html
from k2think.evaluation.report.markdown import escaped, to_markdown
from k2think.evaluation.report.model import Report
from k2think.schemas.evaluation import Item, Status
from k2think.schemas.scores import Domain, Task
from markdown_it import MarkdownIt

UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)


def with_texts(texts: tuple[str, ...], folder: Path) -> Report:
    """Whatever a model, a file of items or a targets file can say is one of these texts."""
    clean = [text.encode("utf-8", "replace").decode() for text in texts]
    found = [
        Item(
            task=Task(id=f"{number} {text}"[:200], domain=Domain.math, source="x", prompt=text, truth=text),
            subset=f"{number % 3} {clean[number % 3]}",
        )
        for number, text in enumerate(clean)
    ]
    names = [f"{number} {text}"[:100] for number, text in enumerate(clean[:2])]
    fields = {
        "model": clean[0],
        "revision": clean[1],
        "server": clean[2],
        "sampling": {"temperature": 1, "stop": list(clean)},
    }
    run = MadeUp(found, {name: SPECS["outside3"] | fields | {"outside_models": tuple(clean[:4])} for name in names})
    run.manifest = {"suite": clean[5], "training_data": {names[0]: clean[6]}, "suite_options": {"x": list(clean)}}
    for name in names:
        texts_by_id = {item.task.id: text for item, text in zip(found, clean, strict=True)}
        run.ask(
            name,
            lambda item, repeat, name=name, texts=texts_by_id: outcome(
                item,
                name,
                sample(texts[item.task.id], text=texts[item.task.id], reason=texts[item.task.id], status=_status(item)),
            ),
        )
    return build_report([read_run(run.write(folder))])


def _status(item: Item) -> Status:
    kinds = list(Status)
    return kinds[int(item.task.id.partition(" ")[0]) % len(kinds)]


class Structure(HTMLParser):
    """The tags of a page with the names of their attributes: what text must not change."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, ...]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, *sorted(name for name, _ in attrs)))


@pytest.fixture
def reports(tmp_path: Path) -> tuple[Report, Report]:
    plain = tuple(f"text {number}" for number in range(len(HOSTILE)))
    return with_texts(HOSTILE, tmp_path / "hostile"), with_texts(plain, tmp_path / "plain")


def test_the_page_has_the_same_structure_whatever_the_texts_say(reports: tuple[Report, Report]) -> None:
    hostile, plain = (to_html(report) for report in reports)
    # The order of examples hangs on the problems' ids, so that kinds of tags are counted.
    assert sorted(set(Structure(hostile).tags)) == sorted(set(Structure(plain).tags))
    assert len(Structure(hostile).tags) == pytest.approx(len(Structure(plain).tags), abs=40)
    assert not UNSEEN.search(hostile)
    assert "191 * 7" not in hostile
    assert "1337" not in hostile, "a template within a text was run"


def test_the_page_asks_for_nothing(reports: tuple[Report, Report]) -> None:
    page = to_html(reports[0])
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)
    assert policy is not None
    assert policy[1].startswith("default-src &#39;none&#39;; style-src &#39;sha256-")
    tags = {tag[0] for tag in Structure(page).tags}
    assert not tags & {"script", "link", "img", "iframe", "object", "embed", "form", "base", "use", "image", "a"}
    assert not {name for tag in Structure(page).tags for name in tag[1:] if name.startswith("on") or name == "style"}


def test_markdown_renders_to_the_same_structure_whatever_the_texts_say(reports: tuple[Report, Report]) -> None:
    renderer = MarkdownIt("commonmark", {"html": True}).enable("table")
    hostile, plain = (renderer.render(to_markdown(report)) for report in reports)
    assert sorted(set(Structure(hostile).tags)) == sorted(set(Structure(plain).tags))
    rows = [Structure(page).tags.count(("tr",)) for page in (hostile, plain)]
    assert rows[0] == pytest.approx(rows[1], abs=3), "a text has ended a row"
    assert not UNSEEN.search(to_markdown(reports[0]).replace("\n", ""))


def test_a_text_cannot_end_its_cell_or_line() -> None:
    assert escaped("a | b\n# c\r\n- d") == r"a \| b \# c - d"
    assert escaped("`x` *y* [z](u) $w$ a_b") == r"\`x\` \*y\* \[z\](u) \$w\$ a\_b"
