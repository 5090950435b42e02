"""`k2think tenants`: limits set, shown with what is used, taken away; a webhook target with a secret that is shown once."""

from __future__ import annotations

from typing import Any

import pytest
from harness.cli import Cli
from k2think.schemas.webhooks import secret_bytes


def shown(cli: Cli, name: str) -> dict[str, Any]:
    return cli.json("tenants", "show", name)


def test_limits_are_set_shown_and_taken_away(cli: Cli) -> None:
    assert cli.json("tenants", "list") == []
    nobody = shown(cli, "lab")
    assert nobody["created_at"] is nobody["jobs_in_flight"] is None
    assert nobody["used"] == {"jobs_in_flight": 0, "tokens_per_day": 0, "stored_bytes": 0}

    done = cli.run(
        *("tenants", "set", "lab", "--requests-per-minute", "60", "--jobs-in-flight", "20"),
        *("--tokens-per-day", "2000000", "--stored-bytes", "1000000000"),
    )
    assert done.returncode == 0, done.stderr
    assert cli.run("tenants", "set", "lab", "--jobs-in-flight", "none").returncode == 0

    after = shown(cli, "lab")
    limits = ("requests_per_minute", "jobs_in_flight", "tokens_per_day", "stored_bytes")
    assert [after[name] for name in limits] == [60, None, 2_000_000, 1_000_000_000]
    assert "no limit" in cli.run("tenants", "list", COLUMNS="200").stdout
    assert "stored bytes: 1000000000, 0 used" in cli.run("tenants", "show", "lab").stdout


def test_a_target_gets_a_secret_that_is_shown_once(cli: Cli) -> None:
    made = cli.run("tenants", "set", "lab", "--webhook-url", "https://lab.example/hook")
    assert made.returncode == 0, made.stderr
    secret = made.stdout.strip()
    assert len(secret_bytes(secret)) == 32
    assert secret not in made.stderr

    # Another target keeps it; nothing shows it again.
    again = cli.run("tenants", "set", "lab", "--webhook-url", "https://lab.example/other")
    assert (again.returncode, again.stdout) == (0, "")
    after = shown(cli, "lab")
    assert (after["webhook_url"], after["webhook_secret_set"]) == ("https://lab.example/other", True)
    assert secret not in str(after)

    own = "whsec_" + "QUJD" * 8
    given = cli.run("tenants", "set", "lab", "--webhook-secret-stdin", text=f"{own}\n")
    assert (given.returncode, given.stdout) == (0, "")

    assert cli.run("tenants", "set", "lab", "--webhook-url", "none").returncode == 0
    after = shown(cli, "lab")
    assert (after["webhook_url"], after["webhook_secret_set"]) == (None, False)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("set", "lab"), "nothing to set"),
        (("set", "Lab", "--jobs-in-flight", "1"), "a-z"),
        (("set", "lab", "--jobs-in-flight", "-1"), "jobs-in-flight"),
        (("set", "lab", "--jobs-in-flight", "many"), "jobs-in-flight"),
        (("set", "lab", "--tokens-per-day", "9" * 30), "tokens-per-day"),
        (("set", "lab", "--webhook-url", "ftp://x/"), "http"),
        (("set", "lab", "--webhook-url", "https://user:secret-of-mine@[/"), "http"),
        (("set", "lab", "--webhook-secret-generated"), "target"),
        (("set", "lab", "--webhook-secret-stdin"), "whsec_"),
        (("show", "A B"), "a-z"),
    ],
)
def test_what_is_wrong_is_said_and_changes_nothing(cli: Cli, arguments: tuple[str, ...], word: str) -> None:
    done = cli.run("tenants", *arguments)

    assert done.returncode == 2
    assert word in done.stderr
    assert "secret-of-mine" not in done.stderr
    assert "Traceback" not in done.stderr
