"""Pages with text of models are made in a thread: other requests go on meanwhile."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from harness.asgi import serving
from k2think.gateway.ui import pages

if TYPE_CHECKING:
    from harness.operations import Place


@pytest.mark.parametrize(
    ("made_by", "path"),
    [
        ("run_values", "/ui/jobs/{0}"),
        ("run_values", "/ui/jobs/{0}/live"),
        ("run_values", "/ui/jobs/{0}/export"),
        ("compare_values", "/ui/compare?a={0}&b={1}"),
    ],
)
async def test_no_page_holds_the_event_loop_up(
    place: Place, monkeypatch: pytest.MonkeyPatch, made_by: str, path: str
) -> None:
    threads: list[threading.Thread] = []
    make = getattr(pages, made_by)

    def noted(*words: Any, **more: Any) -> Any:
        threads.append(threading.current_thread())
        return make(*words, **more)

    monkeypatch.setattr(pages, made_by, noted)
    async with serving(place.settings) as http:
        ids = [(await http.post("/v1/jobs", json={"problem": "What is 1 + 1?"})).json()["id"] for _ in range(2)]
        answer = await http.get(path.format(*ids))
    assert answer.status_code == 200, answer.text
    assert threads
    assert threading.current_thread() not in threads
