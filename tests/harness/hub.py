"""A Hugging Face hub on this machine, as far as downloading a model or a data set speaks with one."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_let_me_in"


@dataclass
class Hub:
    """What the hub has and does."""

    models: dict[str, Path]
    """OWNER/NAME → folder with its files; asked for as a data set, they are one."""
    gated: set[str] = field(default_factory=set[str])
    """Models that only TOKEN opens."""
    breaks_after: dict[str, int] = field(default_factory=dict[str, int])
    """File → bytes after which its next download loses the connection."""
    lost: set[str] = field(default_factory=set[str])
    """Files whose download is answered by 500."""
    status: int | None = None
    """Status of every answer; None = as it should be."""
    claimed_bytes: int | None = None
    """Size that is told of the weights; None = the true one."""
    url: str = ""
    ranges: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """File and Range header of every download."""


@contextmanager
def serving_hub(hub: Hub) -> Iterator[Hub]:
    """Serve while the block runs."""

    class Handler(_Handler):
        shared = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    shared: Hub

    def do_GET(self) -> None:
        hub, path = self.shared, unquote(urlsplit(self.path).path)
        for kind_of_repository in ("/api/models/", "/api/datasets/", "/datasets/"):
            path = path.removeprefix(kind_of_repository)
        asked = path.strip("/")
        name, more = "/".join(asked.split("/")[:2]), "/".join(asked.split("/")[2:])
        kind, _, below = more.partition("/")
        folder = hub.models.get(name)
        if hub.status is not None:
            self._say(hub.status, {"error": "as told"})
        elif folder is None:
            self._say(401, {"error": "Repository not found"}, code="RepoNotFound")
        elif name in hub.gated and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._say(401, {"error": "Access is restricted"}, code="GatedRepo")
        elif kind == "resolve":
            self._file(folder, below.partition("/")[2])
        elif (below.partition("/")[0] or "main") not in ("main", COMMIT):
            self._say(404, {"error": "Invalid rev id"}, code="RevisionNotFound")
        else:
            self._say(200, self._tree(folder) if kind == "tree" else self._about(name, folder))

    do_HEAD = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _tree(self, folder: Path) -> list[dict[str, Any]]:
        files = [(file.relative_to(folder).as_posix(), file) for file in sorted(folder.rglob("*")) if file.is_file()]
        return [
            {"type": "file", "path": name, "size": self._told_size(file), "oid": _digest(file)} for name, file in files
        ]

    def _about(self, name: str, folder: Path) -> dict[str, Any]:
        tree = self._tree(folder)
        siblings = [{"rfilename": row["path"], "size": row["size"], "blobId": row["oid"]} for row in tree]
        return {"id": name, "modelId": name, "sha": COMMIT, "siblings": siblings, "private": False, "tags": []}

    def _told_size(self, file: Path) -> int:
        claimed = self.shared.claimed_bytes
        weights = file.suffix in (".safetensors", ".bin")
        return claimed if claimed is not None and weights else file.stat().st_size

    def _file(self, folder: Path, name: str) -> None:
        file = folder / name
        if not file.is_file():
            self._say(404, {"error": "Entry not found"}, code="EntryNotFound")
            return
        content = file.read_bytes()
        head = {"ETag": f'"{_digest(file)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        wanted = self.headers.get("Range")
        if self.command == "GET":
            if name in self.shared.lost:
                self._say(500, {"error": "lost"})
                return
            self.shared.ranges.append((name, wanted or ""))
        start = int(wanted.removeprefix("bytes=").split("-")[0]) if wanted else 0
        if wanted:
            head["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        body = content[start:]
        self.send_response(206 if wanted else 200)
        for key, value in (head | {"Content-Length": str(len(body))}).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        limit = self.shared.breaks_after.pop(name, None)
        self.wfile.write(body if limit is None else body[:limit])
        if limit is not None:
            self.wfile.flush()
            self.close_connection = True

    def _say(self, status: int, value: object, *, code: str = "") -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if code:
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", code)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


def _digest(file: Path) -> str:
    return hashlib.sha1(file.read_bytes(), usedforsecurity=False).hexdigest()
