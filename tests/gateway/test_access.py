"""Who is let in: keys, scopes, expiry, the trace page's sign-in, and a keyless gateway that web pages cannot use."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx
import pytest
from harness.gateway import NOTICED_S, RunningGateway
from k2think.gateway.access import SESSION_COOKIE, is_loopback
from k2think.gateway.keys import digest_of, id_of, matches, new_key, session_matches, session_of
from k2think.schemas.doors import KeyScope
from k2think.store.keys import revoke_key

if TYPE_CHECKING:
    from conftest import RedisServer

    from .conftest import StartGateway

PROBLEM: dict[str, Any] = {"problem": "What is 347 + 58?"}
NOTICE_MARGIN_S = 3.0
"""On top of NOTICED_S, for a machine that is busy."""


@pytest.fixture(scope="module")
def locked(start_gateway: StartGateway) -> RunningGateway:
    """A gateway whose database has keys; each test makes its own."""
    return start_gateway()


@pytest.fixture(scope="module")
def keyless(start_gateway: StartGateway) -> RunningGateway:
    """A gateway on loopback whose database has never had a key."""
    return start_gateway(keyless=True)


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + NOTICED_S + NOTICE_MARGIN_S
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


# ---- Keys


def test_a_key_tells_neither_its_digest_nor_its_session_and_back() -> None:
    made, other = new_key(), new_key()
    session = session_of(made.text)

    assert id_of(made.text) == made.id
    assert made.digest == digest_of(made.text)
    assert matches(made.text, made.digest)
    assert session_matches(session, made.digest)
    assert not matches(other.text, made.digest)
    assert not session_matches(session_of(other.text), made.digest)
    # What the database keeps opens nothing, and a session is no key.
    assert not matches(made.digest, made.digest)
    assert not session_matches(made.digest, made.digest)
    assert not matches(session, made.digest)
    assert made.text not in repr(made)


def test_without_a_key_nothing_below_v1_is_answered(locked: RunningGateway) -> None:
    with locked.client() as http:
        answers = [http.get("/v1/jobs"), http.post("/v1/jobs", json=PROBLEM), http.get("/v1/there-is-no-such-thing")]

    for answer in answers:
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.json()["error"] == {
            "message": "send an API key as `Authorization: Bearer k2_…`: `k2think keys create` makes one",
            "type": "authentication_error",
            "param": None,
            "code": "invalid_api_key",
        }


def test_a_key_is_looked_at_before_the_body_is_read(locked: RunningGateway) -> None:
    head = "POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", locked.port), timeout=30) as wire:
        wire.sendall(head.encode())

        assert wire.recv(12) == b"HTTP/1.1 401"


@pytest.mark.parametrize(
    "authorization",
    [
        "Bearer",
        "Bearer nonsense",
        "Bearer k2_aaaaaaaaaa_" + "a" * 52,
        "Basic azI6azI=",
        "Bearer " + "k" * 10_000,
        "Bearer k2_\N{SNOWMAN}",
    ],
)
def test_a_wrong_key_opens_nothing(locked: RunningGateway, authorization: str) -> None:
    answer = httpx.get(f"{locked.url}/v1/jobs", headers={"Authorization": authorization.encode()})

    assert answer.status_code == 401
    assert "nonsense" not in answer.text


def test_the_public_part_of_a_key_with_another_secret_opens_nothing(locked: RunningGateway) -> None:
    key = locked.key()
    wrong = key[:-1] + ("a" if key[-1] != "a" else "b")

    with locked.client(key) as http:
        assert http.get("/v1/jobs").status_code == 200
    with locked.client(wrong) as http:
        assert http.get("/v1/jobs").status_code == 401


def test_an_expired_key_and_a_revoked_one_open_nothing(locked: RunningGateway) -> None:
    expired, revoked = locked.key(expires_at=time.time() - 1), locked.key()
    with locked.client(expired) as http:
        assert http.get("/v1/jobs").status_code == 401
    with locked.client(revoked) as http:
        assert http.get("/v1/jobs").status_code == 200
        locked.database.run_sync(lambda conn: revoke_key(conn, id_of(revoked) or "", now=time.time()))
        assert eventually(lambda: http.get("/v1/jobs").status_code == 401)


def test_a_key_for_metrics_opens_only_them_and_an_api_key_does_not(locked: RunningGateway) -> None:
    with locked.client(locked.key(scope=KeyScope.metrics)) as http:
        refused = http.get("/v1/jobs")
        assert (refused.status_code, refused.json()["error"]["type"]) == (403, "permission_error")
        assert http.get("/ui").status_code == 403
        assert http.get("/metrics").status_code == 200
    with locked.client(locked.key()) as http:
        assert http.get("/metrics").status_code == 403
    with locked.client() as http:
        assert http.get("/metrics").status_code == 401


def test_each_tenant_sees_its_own(locked: RunningGateway) -> None:
    with locked.client(locked.key("ours")) as ours, locked.client(locked.key("theirs")) as theirs:
        job = ours.post("/v1/jobs", json=PROBLEM).json()["id"]

        assert [found["id"] for found in ours.get("/v1/jobs").json()["data"]] == [job]
        assert theirs.get("/v1/jobs").json()["data"] == []
        assert ours.get(f"/v1/jobs/{job}").status_code == 200
        foreign, missing = theirs.get(f"/v1/jobs/{job}"), theirs.get(f"/v1/jobs/{job[:-1]}0")
        assert foreign.status_code == 404
        assert foreign.text.replace(job, "ID") == missing.text.replace(f"{job[:-1]}0", "ID")


# ---- Without keys


def test_on_loopback_no_key_is_needed_until_one_is_made(tmp_path: Path, redis_server: RedisServer) -> None:
    with RunningGateway(tmp_path, redis_server.url) as gateway, gateway.client() as http:
        assert http.post("/v1/jobs", json=PROBLEM).status_code == 202
        assert http.get("/v1/jobs", headers={"Authorization": "Bearer whatever"}).status_code == 200

        key = gateway.key()

        assert eventually(lambda: http.get("/v1/jobs").status_code == 401)
        with gateway.client(key) as opened:
            assert len(opened.get("/v1/jobs").json()["data"]) == 1
            gateway.database.run_sync(lambda conn: revoke_key(conn, id_of(key) or "", now=time.time()))
            assert eventually(lambda: opened.get("/v1/jobs").status_code == 401)
        # The last key is gone: that opens nothing.
        time.sleep(NOTICED_S)
        assert http.get("/v1/jobs").status_code == 401


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.", "", "["])
def test_a_name_that_was_bent_to_this_machine_is_refused(keyless: RunningGateway, host: str) -> None:
    answer = httpx.get(f"{keyless.url}/v1/jobs", headers={"Host": host})

    assert answer.status_code == 403 if host else answer.status_code in (400, 403)
    assert httpx.get(f"{keyless.url}/ui", headers={"Host": host}).status_code in (400, 403)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8400", "127.0.0.1", "127.0.0.2:1", "[::1]:8400"])
def test_this_machines_own_names_are_good(keyless: RunningGateway, host: str) -> None:
    assert httpx.get(f"{keyless.url}/v1/jobs", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1", "http://[", "file://"])
def test_the_page_of_another_site_cannot_submit_a_job(keyless: RunningGateway, origin: str) -> None:
    with keyless.client() as http:
        refused = http.post("/v1/jobs", json=PROBLEM, headers={"Origin": origin})
        assert refused.status_code == 403
        assert "access-control-allow-origin" not in refused.headers
        assert http.post("/v1/jobs", json=PROBLEM, headers={"Origin": keyless.url}).status_code == 202


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.0.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("localhost", True),
        ("0.0.0.0", False),  # noqa: S104
        ("::", False),
        ("10.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("gateway.internal", False),
        ("", False),
    ],
)
def test_what_is_a_loopback_address(host: str, *, loopback: bool) -> None:
    assert is_loopback(host) is loopback


# ---- The trace page


@contextmanager
def signed_in(gateway: RunningGateway, key: str) -> Iterator[httpx.Client]:
    with gateway.client() as http:
        answer = http.post("/ui/login", data={"key": f" {key}\n", "next": "/ui?status=failed"})
        assert answer.status_code == 303, answer.text
        assert answer.headers["location"] == "/ui?status=failed"
        yield http


def test_the_trace_page_asks_for_a_key_and_remembers_it(locked: RunningGateway) -> None:
    key = locked.key("browser")
    with locked.client() as http:
        asked = http.get("/ui/jobs/x?y=1&z=ä")
        assert asked.status_code == 303
        assert asked.headers["location"] == "/ui/login?next=" + quote("/ui/jobs/x?y=1&z=%C3%A4", safe="")
        form = http.get(asked.headers["location"])
        assert form.status_code == 200
        assert 'name="key"' in form.text
        assert http.post("/ui/login", data={"key": "k2_wrong"}).status_code == 401

    with signed_in(locked, key) as http:
        cookie = http.cookies[SESSION_COOKIE]
        assert key not in cookie
        assert key.rpartition("_")[2] not in cookie
        assert http.get("/ui").status_code == 200
        # The cookie is for the page alone: no other site's form can make use of it.
        api = httpx.get(f"{locked.url}/v1/jobs", headers={"Cookie": f"{SESSION_COOKIE}={cookie}"})
        assert api.status_code == 401
        bearer = httpx.get(f"{locked.url}/v1/jobs", headers={"Authorization": f"Bearer {cookie.partition('.')[2]}"})
        assert bearer.status_code == 401

        out = http.post("/ui/logout")
        assert (out.status_code, out.headers["location"]) == (303, "/ui/login")
        assert SESSION_COOKIE not in http.cookies
        assert http.get("/ui").status_code == 303


def test_the_cookie_is_kept_from_scripts_and_other_sites(locked: RunningGateway) -> None:
    form = {"key": locked.key()}
    plain = httpx.post(f"{locked.url}/ui/login", data=form).headers["set-cookie"]
    behind_tls = httpx.post(f"{locked.url}/ui/login", data=form, headers={"X-Forwarded-Proto": "https"})

    for text in ("HttpOnly", "SameSite=strict", "Path=/ui"):
        assert text in plain
    assert "Secure" not in plain
    assert "Secure" in behind_tls.headers["set-cookie"]


@pytest.mark.parametrize(("trusted", "secure"), [("10.0.0.0/8", False), ("10.0.0.1, 127.0.0.0/8", True), ("*", True)])
def test_the_proxies_that_are_believed_can_be_set(start_gateway: StartGateway, trusted: str, *, secure: bool) -> None:
    gateway = start_gateway(K2THINK_GATEWAY__TRUSTED_PROXIES=trusted)

    answer = httpx.post(f"{gateway.url}/ui/login", data={"key": gateway.key()}, headers={"X-Forwarded-Proto": "https"})

    assert ("Secure" in answer.headers["set-cookie"]) is secure


def test_a_revoked_key_ends_its_sessions(locked: RunningGateway) -> None:
    key = locked.key()
    with signed_in(locked, key) as http:
        assert http.get("/ui").status_code == 200
        locked.database.run_sync(lambda conn: revoke_key(conn, id_of(key) or "", now=time.time()))
        assert eventually(lambda: http.get("/ui").status_code == 303)


@pytest.mark.parametrize(
    "cookie", ["", "x", ".", "a.b", "k2_.", "{id}.", "{id}.{digest}", '"', "{id}.\N{SNOWMAN}", "x" * 5_000]
)
def test_a_made_up_cookie_opens_nothing(locked: RunningGateway, cookie: str) -> None:
    key = locked.key()
    value = cookie.replace("{id}", id_of(key) or "").replace("{digest}", digest_of(key))

    answer = httpx.get(f"{locked.url}/ui", headers={"Cookie": f"{SESSION_COOKIE}={value}".encode()})

    assert answer.status_code == 303


@pytest.mark.parametrize(
    "next",
    [
        "https://evil.example/ui",
        "//evil.example/ui",
        "/\\evil.example",
        "/ui//evil.example",
        "/uix",
        "/v1/jobs",
        "javascript:alert(1)",
        "/ui\r\nX: y",
        "http:/ui",
        "/ui/login",
        "/ui/logout",
        "http://[",
        "",
    ],
)
def test_signing_in_leads_nowhere_else(locked: RunningGateway, next: str) -> None:
    answer = httpx.post(f"{locked.url}/ui/login", data={"key": locked.key(), "next": next})

    assert (answer.status_code, answer.headers["location"]) == (303, "/ui")
    assert "x" not in answer.headers


def test_another_sites_form_can_sign_nobody_in_or_out(locked: RunningGateway) -> None:
    key = locked.key()
    with signed_in(locked, key) as http:
        for path in ("/ui/login", "/ui/logout"):
            refused = http.post(path, data={"key": key}, headers={"Origin": "https://evil.example"})
            assert refused.status_code == 403
            assert "set-cookie" not in refused.headers
        assert http.get("/ui").status_code == 200


def test_a_keyless_gateway_asks_nobody_to_sign_in(keyless: RunningGateway) -> None:
    with keyless.client() as http:
        assert http.get("/ui").status_code == 200
        sent_on = http.get("/ui/login?next=/ui/jobs/x")
        assert (sent_on.status_code, sent_on.headers["location"]) == (303, "/ui/jobs/x")
