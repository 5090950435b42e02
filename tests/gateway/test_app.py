"""The application as a whole: it starts inside `up`, and errors have one form."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from .conftest import LiveGateway


def test_an_unknown_path_is_an_openai_error_object(live_gateway: LiveGateway) -> None:
    answer = httpx.get(f"{live_gateway.url}/v1/nothing")

    assert answer.status_code == 404
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_the_bare_address_leads_to_the_trace_page(live_gateway: LiveGateway) -> None:
    answer = httpx.get(live_gateway.url, follow_redirects=True)

    assert answer.status_code == 200
    assert answer.url.path == "/ui"
    assert answer.headers["content-type"].startswith("text/html")
