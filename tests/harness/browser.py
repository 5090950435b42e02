"""A headless Chromium, and what must never happen in it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Request, sync_playwright

ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
TIMEOUT_MS = 30_000
_REPLACED = ("htmx:sendAbort", "htmx:afterRequest")
"""What htmx writes to the console when a request is given up for a newer one, as when somebody goes on typing."""


def chromium_path() -> str | None:
    """Return the Chromium to drive: CHROME, else the first in PATH; None = there is none."""
    names = (os.environ.get("CHROME"), "chromium", "chromium-browser", "google-chrome", "chrome")
    return next((found for name in names if name and (found := shutil.which(name))), None)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One browser for the tests of a module: Playwright's loop must not run while asynchronous tests do."""
    path = chromium_path()
    if path is None:
        words = "no Chromium: put one in PATH or name it in CHROME"
        if os.environ.get("CI"):
            pytest.fail(words)
        pytest.skip(words)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Watched:
    """A page, and what happened on it that must not."""

    page: Page
    inside: str
    """How the addresses begin that may be asked for."""
    foreign: list[str] = field(default_factory=list)
    """Addresses elsewhere that were asked for."""
    complaints: list[str] = field(default_factory=list)
    """Errors on the console (breaches of the Content-Security-Policy among them), exceptions, dialogs."""
    asked: list[str] = field(default_factory=list)
    """All addresses that were asked for."""

    def check(self) -> None:
        """Assert that nothing of the kind happened."""
        assert not self.foreign, self.foreign
        assert not self.complaints, self.complaints
        assert self.page.evaluate("window.ran") is None, "a script of another's ran"

    def _request(self, request: Request) -> None:
        self.asked.append(request.url)
        if not request.url.startswith(self.inside):
            self.foreign.append(request.url)


@contextmanager
def watched(browser: Browser, url: str, **options: Any) -> Iterator[Watched]:
    """A fresh page that may reach only what begins with `url`; `options` as for Browser.new_context."""
    context = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | options))
    context.set_default_timeout(TIMEOUT_MS)
    page = context.new_page()
    seen = Watched(page, url)
    page.on("request", seen._request)
    page.on("pageerror", lambda error: seen.complaints.append(f"exception: {error}"))

    def written(message: Any) -> None:
        if message.type == "error" and not message.text.startswith(_REPLACED):
            seen.complaints.append(message.text)

    page.on("console", written)

    def dialog(shown: Any) -> None:
        seen.complaints.append(f"dialog: {shown.message}")
        shown.dismiss()

    page.on("dialog", dialog)
    try:
        yield seen
    finally:
        context.close()
