"""Uploads: their limits, their form, what becomes of broken ones; the files folder and its housekeeping."""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from harness.gateway import RunningGateway
from k2think.gateway.files.endpoints import content_disposition
from k2think.gateway.files.storage import ORPHAN_AGE_S, NewContent, content_path, remove_content, remove_orphans
from k2think.gateway.files.upload import clean_filename
from k2think.store.door_tables import files
from k2think.store.files import new_file_id
from sqlalchemy import update

if TYPE_CHECKING:
    from .conftest import StartGateway

FILE_BYTES_MAX = 30_000_000
MEMORY_GROWTH_MAX = 20_000_000
"""Bytes by which the gateway's memory may grow while a larger file goes through it."""
UPLOAD: dict[str, Any] = {"data": {"purpose": "batch"}}


@pytest.fixture(scope="module")
def gateway(start_gateway: StartGateway) -> RunningGateway:
    """A gateway that takes smaller files."""
    return start_gateway(K2THINK_GATEWAY__FILE_BYTES_MAX=str(FILE_BYTES_MAX))


@pytest.fixture
def http(gateway: RunningGateway, tenant: str) -> Iterator[httpx.Client]:
    with gateway.client(gateway.key(tenant)) as client:
        yield client


@pytest.fixture
def folder(gateway: RunningGateway) -> Path:
    return gateway.folder / "files"


def upload(http: httpx.Client, content: bytes, **headers: str) -> httpx.Response:
    return http.post("/v1/files", files={"file": ("input.jsonl", content)}, headers=headers, **UPLOAD)


def error(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    return answer.json()["error"]


def memory_of(pid: int) -> int:
    """Peak resident memory of a process so far, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


def left_behind(folder: Path, before: set[str]) -> set[str]:
    """What lies in the folder that did not before; uploads that were broken off get a moment to go."""
    deadline = time.monotonic() + 10
    while (left := set(os.listdir(folder)) - before) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def test_a_large_file_goes_through_in_bounded_memory(gateway: RunningGateway, http: httpx.Client) -> None:
    content = os.urandom(1_000_000) * (FILE_BYTES_MAX // 1_000_000)
    upload(http, b"warm")
    before = memory_of(gateway.pid)

    file = upload(http, content).json()
    with http.stream("GET", f"/v1/files/{file['id']}/content") as answer:
        received = b"".join(answer.iter_bytes())

    assert file["bytes"] == FILE_BYTES_MAX
    assert received == content
    assert memory_of(gateway.pid) - before < MEMORY_GROWTH_MAX


def test_a_file_that_is_too_large_is_refused_and_leaves_nothing(http: httpx.Client, folder: Path) -> None:
    upload(http, b"x")
    before = set(os.listdir(folder))

    def pieces() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
        for _ in range(FILE_BYTES_MAX // 1_000_000 + 2):
            yield b"x" * 1_000_000
        yield b"\r\n--b--\r\n"

    told = upload(http, b"x" * (FILE_BYTES_MAX + 100_000))
    untold = http.post("/v1/files", content=pieces(), headers={"Content-Type": "multipart/form-data; boundary=b"})

    for answer in (told, untold):
        assert "larger than 30,000,000 bytes" in error(answer, 413)["message"]
    assert not left_behind(folder, before)


def test_the_tenants_space_ends(gateway: RunningGateway, http: httpx.Client, tenant: str, folder: Path) -> None:
    gateway.limit(tenant, stored_bytes=2_500_000)
    key = {"Idempotency-Key": uuid.uuid4().hex}
    first = upload(http, b"x" * 2_000_000, **key)
    assert first.status_code == 200
    before = set(os.listdir(folder))

    full = upload(http, b"y" * 2_000_000)

    assert error(full, 429)["code"] == "rate_limit_exceeded"
    assert int(full.headers["retry-after"]) > 0
    assert not left_behind(folder, before)
    assert upload(http, b"x" * 2_000_000, **key).json() == first.json(), "what comes again takes no room"
    assert not left_behind(folder, before)

    assert http.delete(f"/v1/files/{first.json()['id']}").status_code == 200
    assert upload(http, b"y" * 2_000_000).status_code == 200


def test_an_upload_that_is_broken_off_leaves_nothing(
    gateway: RunningGateway, http: httpx.Client, tenant: str, folder: Path
) -> None:
    upload(http, b"x")
    before = set(os.listdir(folder))
    key = gateway.key(tenant)
    head = (
        f"POST /v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 9000000\r\n\r\n"
        '--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
    )
    with socket.create_connection(("127.0.0.1", gateway.port)) as link:
        link.sendall(head.encode() + b"x" * 3_000_000)
        deadline = time.monotonic() + 10
        while set(os.listdir(folder)) == before and time.monotonic() < deadline:
            time.sleep(0.02)
        assert set(os.listdir(folder)) != before, "it goes to the disk while it comes"

    assert not left_behind(folder, before)
    assert [file["bytes"] for file in http.get("/v1/files").json()["data"]] == [1]


@pytest.mark.parametrize(
    ("body", "kind", "word"),
    [
        (b"{}", "application/json", "multipart/form-data"),
        (b"", "multipart/form-data", "boundary"),
        (b"nonsense", "multipart/form-data; boundary=b", "well-formed"),
        (b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--b--\r\n', "b", "no file"),
        (b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\nx\r\n--b--\r\n', "b", "purpose"),
        (b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\nx', "b", "too early"),
        (b'--b\r\nContent-Disposition: form-data; name="surprise"\r\n\r\nx\r\n--b--\r\n', "b", "surprise"),
        (b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\n' + b"x" * 5000, "b", "longer than 4096"),
        (b"--b\r\n" + b"X: y\r\n" * 50 + b"\r\nx\r\n--b--\r\n", "b", "well-formed"),
    ],
)
def test_a_form_that_is_none_is_refused(http: httpx.Client, body: bytes, kind: str, word: str) -> None:
    kind = "multipart/form-data; boundary=b" if kind == "b" else kind
    answer = http.post("/v1/files", content=body, headers={"Content-Type": kind})
    assert word in error(answer, 400)["message"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"purpose": "fine-tune"}, "purpose"),
        ({"purpose": "batch", "expires_after[anchor]": "created_at"}, "expires_after"),
        ({"purpose": "batch", "expires_after[anchor]": "created_at", "expires_after[seconds]": "60"}, "expires_after"),
        ({"purpose": "batch", "expires_after[anchor]": "then", "expires_after[seconds]": "3600"}, "expires_after"),
    ],
)
def test_fields_that_cannot_be_served_are_refused(http: httpx.Client, fields: dict[str, str], param: str) -> None:
    answer = http.post("/v1/files", files={"file": ("x", b"x")}, data=fields)
    assert error(answer, 400)["param"] == param


def test_an_empty_file_and_a_form_in_any_order_are_taken(http: httpx.Client) -> None:
    body = (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="x.jsonl"\r\n\r\n\r\n'
        b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--b--\r\n'
    )
    answer = http.post("/v1/files", content=body, headers={"Content-Type": "multipart/form-data; boundary=b"})
    assert answer.status_code == 200, answer.text
    assert (answer.json()["bytes"], answer.json()["filename"], answer.json()["expires_at"]) == (0, "x.jsonl", None)
    assert http.get(f"/v1/files/{answer.json()['id']}/content").content == b""


def test_content_that_is_not_where_it_should_be_is_no_surprise(http: httpx.Client, folder: Path) -> None:
    file_id = upload(http, b"x").json()["id"]
    (folder / file_id).unlink()
    answer = http.get(f"/v1/files/{file_id}/content")
    assert error(answer, 503)["code"] == "store_unavailable"
    assert "retry-after" in answer.headers
    assert str(folder) not in answer.text
    assert http.delete(f"/v1/files/{file_id}").status_code == 200


def test_an_expired_file_is_taken_away(gateway: RunningGateway, http: httpx.Client, folder: Path) -> None:
    from k2think.gateway.files import housekeeping

    file_id = upload(http, b"x").json()["id"]
    gateway.database.run_sync(
        lambda conn: conn.execute(update(files).where(files.c.id == file_id).values(expires_at=1))
    )

    deadline = time.monotonic() + 2 * housekeeping.EXPIRED_EVERY_S
    while http.get(f"/v1/files/{file_id}").status_code == 200:
        assert time.monotonic() < deadline
        time.sleep(0.5)

    assert not (folder / file_id).exists()


def test_only_whole_content_has_a_name(tmp_path: Path) -> None:
    file_id = new_file_id()
    with NewContent(tmp_path) as content:
        content.write(b"ab")
        content.write(b"c")
        assert not content_path(tmp_path, file_id).exists()
        content.put(file_id)
    assert content_path(tmp_path, file_id).read_bytes() == b"abc"
    assert (content.size, content.sha256[:8]) == (3, "ba7816bf")
    assert oct(content_path(tmp_path, file_id).stat().st_mode)[-3:] == "600"

    with NewContent(tmp_path) as content:
        content.write(b"x")
    assert os.listdir(tmp_path) == [file_id]
    for name in ("../x", "file-1", f"{file_id}/..", f"{file_id}\n"):
        with pytest.raises(ValueError, match="not the id"):
            content_path(tmp_path, name)
    remove_content(tmp_path, [file_id, file_id])
    assert os.listdir(tmp_path) == []


def test_orphans_go_once_nobody_can_be_writing_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known, orphan, fresh = new_file_id(), new_file_id(), new_file_id()
    old = time.time() - ORPHAN_AGE_S - 10
    for name in (known, orphan, fresh, ".part-old", ".part-fresh", "not-ours"):
        (tmp_path / name).write_bytes(b"x")
        if name not in (fresh, ".part-fresh"):
            os.utime(tmp_path / name, (old, old))

    asked: list[str] = []

    def known_files(ids: list[str]) -> set[str]:
        asked.extend(ids)
        return {known}

    monkeypatch.setattr(time, "time", lambda: float("inf"))
    assert remove_orphans(tmp_path, known_files) == 2
    assert set(os.listdir(tmp_path)) == {known, fresh, ".part-fresh", "not-ours"}
    assert set(asked) == {known, orphan}
    assert remove_orphans(tmp_path / "nowhere", known_files) == 0


@pytest.mark.parametrize(
    ("name", "clean"),
    [
        ("a.jsonl", "a.jsonl"),
        ("../../etc/passwd", "passwd"),
        ("C:\\x\\y.jsonl", "y.jsonl"),
        ("a\r\nb\x00\x1b[31m\N{RIGHT-TO-LEFT OVERRIDE}c", "ab[31mc"),
        ("\udcff", "upload.jsonl"),
        ("", "upload.jsonl"),
        ("x" * 999, "x" * 255),
    ],
)
def test_a_filename_is_for_display_only(name: str, clean: str) -> None:
    assert clean_filename(name) == clean
    header = content_disposition(clean)
    assert header.isascii()
    assert header.isprintable()
    assert header.count('"') == 2
