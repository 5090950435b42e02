"""A server that webhooks are sent to: it answers as told, and keeps what came."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

import openai


@dataclass(frozen=True)
class Received:
    """One webhook as it came."""

    path: str
    headers: dict[str, str]
    body: bytes
    at: float

    def event(self, secret: str) -> Any:
        """What the stock client makes of it; raises InvalidWebhookSignatureError."""
        return openai.OpenAI(api_key="none").webhooks.unwrap(self.body, self.headers, secret=secret)


class WebhookTarget:
    """A context manager. `statuses` are the answers to the first webhooks; after them it is always 200."""

    def __init__(self, *statuses: int) -> None:
        self._statuses = list(statuses)
        self.received: list[Received] = []
        self._lock = threading.Lock()
        target = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                with target._lock:
                    target.received.append(Received(self.path, headers, body, time.time()))
                    status = target._statuses.pop(0) if target._statuses else 200
                self.send_response(status)
                if 300 <= status < 400:
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/hook"

    def __enter__(self) -> "WebhookTarget":
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def wait_for(self, condition: Callable[[list[Received]], bool], *, timeout_s: float = 60.0) -> list[Received]:
        """Wait until what came fulfils the condition; return it."""
        deadline = time.monotonic() + timeout_s
        while not condition(self.received):
            if time.monotonic() > deadline:
                raise TimeoutError(f"only {[each.body for each in self.received]} came")
            time.sleep(0.05)
        return list(self.received)
