"""`k2think keys`: made and shown once, listed without the secret, revoked; a gateway lets in what it printed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from harness.cli import Cli
from harness.gateway import RunningGateway
from k2think.gateway.keys import digest_of, id_of
from k2think.store.database import Database
from k2think.store.keys import find_key

KEY = re.compile(r"k2_[a-z2-7]{10}_[a-z2-7]{52}\n")


def kept(cli: Cli, key_id: str) -> Any:
    database = Database(f"sqlite:///{cli.folder / 'data' / 'k2think.db'}")
    try:
        return database.read_sync(lambda conn: find_key(conn, key_id))
    finally:
        database.close()


def test_a_key_is_shown_once_listed_by_its_public_part_and_revoked(cli: Cli) -> None:
    assert "k2think keys create" in cli.run("keys", "list").stdout

    made = cli.run("keys", "create", "--tenant", "lab", "--name", "laptop", "--expires-in-days", "30")

    assert made.returncode == 0, made.stderr
    # Nothing but the key, so that it can go into a variable.
    assert KEY.fullmatch(made.stdout)
    key = made.stdout.strip()
    key_id = id_of(key) or ""
    assert key not in made.stderr
    assert f"keys revoke {key_id}" in made.stderr
    found = kept(cli, key_id)
    assert (found.tenant, found.name, found.digest) == ("lab", "laptop", digest_of(key))
    secret = key.rpartition("_")[2]
    assert not [path for path in (cli.folder / "data").iterdir() if secret.encode() in path.read_bytes()]

    (listed,) = cli.json("keys", "list", "--tenant", "lab")
    assert listed["state"] == "valid"
    assert 29 * 86_400 < listed["expires_at"] - listed["created_at"] <= 30 * 86_400
    assert secret not in str(listed)
    assert found.digest not in str(listed)
    assert cli.json("keys", "list", "--tenant", "other") == []
    table = cli.run("keys", "list", COLUMNS="200").stdout
    assert key_id in table
    assert "laptop" in table

    # Who pastes the whole key means its public part.
    revoked = cli.run("keys", "revoke", key)
    assert (revoked.returncode, secret in revoked.stdout) == (0, False)
    assert "already" in cli.run("keys", "revoke", key_id).stdout
    assert cli.json("keys", "list")[0]["state"] == "revoked"


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("create", "--tenant", "Lab"), "a-z"),
        (("create", "--tenant", "../x"), "a-z"),
        (("create", "--name", "\x1b[31m"), "printable"),
        (("create", "--expires-in-days", "0"), "expires-in-days"),
        (("create", "--scope", "all"), "scope"),
        (("revoke", "nonsense"), "keys list"),
    ],
)
def test_what_is_wrong_is_said(cli: Cli, arguments: tuple[str, ...], word: str) -> None:
    done = cli.run("keys", *arguments)

    assert done.returncode == 2
    assert word in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_running_gateway_asks_for_the_key_that_was_made_and_takes_it(tmp_path: Path, redis_server: Any) -> None:
    with RunningGateway(tmp_path, redis_server.url) as gateway, gateway.client() as http:
        cli = Cli(tmp_path, gateway.environment)
        assert http.get("/v1/jobs").status_code == 200
        key = cli.run("keys", "create").stdout.strip()

        with gateway.client(key) as opened:
            assert opened.get("/v1/jobs").status_code == 200


def test_a_key_that_cannot_be_shown_is_taken_back(cli: Cli) -> None:
    done = cli.run_into_full_disk("keys", "create")

    assert done.returncode == 1
    (said,) = done.stderr.splitlines()
    assert said.startswith("Error: the key could not be written (No space left on device), so it was taken back")
    assert cli.json("keys", "list") == []
