"""`k2think doctor`: finds what is wrong, says how to mend it, shows no secrets."""

import importlib.util
import json
import socket
import time
from pathlib import Path
from typing import Any

import pytest
import redis
from harness.cli import Cli
from k2think.cli.checkup import TOLD, check_data_dir, check_extras, check_variables, known_variables, working_settings
from k2think.cli.checkup_run import public_url, shown_settings
from k2think.schemas.settings import read_settings
from k2think.store.database import Database
from k2think.store.migrate import upgrade
from k2think.store.workers import WorkerRow, sign_of_life

pytestmark = pytest.mark.timeout(400)  # a guard against hanging, for machines that are busy with other things


def by_name(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in report["checks"]}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_with_nothing_configured_all_is_well_and_nothing_is_made(cli: Cli) -> None:
    done = cli.run("doctor")
    assert done.returncode == 0, done.stdout
    assert "k2think-mini" in done.stdout
    assert "✗" not in done.stdout
    assert not (cli.folder / "data").exists()


def test_a_served_model_is_found_once_for_all_roles(simulated_cli: Cli) -> None:
    checks = by_name(simulated_cli.json("doctor"))
    check = checks["planner, generator, verifier"]
    assert check["state"] == "ok"
    assert "simulated" in check["detail"]


def test_what_is_wrong_is_told_with_its_mending_and_secrets_are_hidden(cli: Cli) -> None:
    port = free_port()
    key, password = "sk-very-secret-key-123456", "hunter2-password"
    report = cli.json(
        "doctor",
        K2THINK_GENERATOR__BACKEND="openai",
        K2THINK_GENERATOR__BASE_URL=f"http://127.0.0.1:{port}/v1",
        K2THINK_GENERATOR__MODEL="some-model",
        K2THINK_GENERATOR__API_KEY=key,
        K2THINK_GENERATOR__CONNECT_RETRIES="0",
        K2THINK_VERIFIER__BACKEND="openvino",
        K2THINK_VERIFIER__MODEL="/no/such/model",
        K2THINK_BROKER_URL=f"redis://user:{password}@127.0.0.1:{port}/0",
        K2THINK_GENERATR__MODEL="typo",
        CEREBRAS_API_KEY="csk-also-secret-abcdef",
    )
    checks = by_name(report)
    assert report["healthy"] is False
    assert checks["planner, generator"]["state"] == "bad"
    assert str(port) in checks["planner, generator"]["detail"]
    assert checks["planner, generator"]["fix"]
    assert "/no/such/model" in checks["verifier"]["detail"]
    assert checks["redis"]["state"] == "bad"
    assert "K2THINK_GENERATOR__MODEL" in checks["variable K2THINK_GENERATR__MODEL"]["fix"]
    assert report["settings"]["K2THINK_GENERATOR__API_KEY"] == "***"
    for secret in (key, password, "csk-also-secret"):
        assert secret not in json.dumps(report)


def test_settings_that_cannot_be_read_are_told_and_the_rest_is_checked(cli: Cli) -> None:
    done = cli.run("doctor", "--json", K2THINK_LEASE_S="soon", K2THINK_GENERATOR__BACKEND="gpt")
    assert done.returncode == 1
    checks = by_name(json.loads(done.stdout))
    assert "K2THINK_LEASE_S" in checks["settings"]["detail"]
    assert checks["versions"]["state"] == "ok"


def test_a_redis_that_evicts_is_refused(cli: Cli, redis_server: Any) -> None:
    client = redis.Redis(unix_socket_path=str(redis_server.socket))
    for policy, state in (("noeviction", "ok"), ("allkeys-lru", "bad")):
        client.config_set("maxmemory-policy", policy)
        check = by_name(cli.json("doctor", K2THINK_BROKER_URL=redis_server.url))["redis"]
        assert check["state"] == state
        assert policy in check["detail"]
    client.close()


def test_a_data_folder_that_cannot_be_and_one_without_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("K2THINK_DATA_DIR", str(tmp_path / "file" / "data"))
    assert check_data_dir(read_settings(), space_min_bytes=0).state == "bad"
    monkeypatch.setenv("K2THINK_DATA_DIR", str(tmp_path))
    assert check_data_dir(read_settings(), space_min_bytes=2**62).state == "bad"
    assert check_data_dir(read_settings(), space_min_bytes=0).state == "ok"


def test_known_variables_are_those_of_the_settings() -> None:
    known = known_variables()
    assert {"K2THINK_DATA_DIR", "K2THINK_SAFETY__API_KEY", "K2THINK_BACKENDS", "CEREBRAS_API_KEY"} <= set(known)
    assert {"K2THINK_GATEWAY__PORT", "K2THINK_GENERATOR__PRICE_PROMPT", "K2THINK_OTLP_ENDPOINT"} <= set(known)
    assert "K2THINK_CEREBRAS_API_KEY" not in known
    assert not [name for name in known if name.startswith("K2THINK_BACKENDS__")]


def test_commands_that_work_warn_once_of_a_variable_that_nothing_reads(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(TOLD, "")
    monkeypatch.delenv(TOLD)
    monkeypatch.setenv("K2THINK_DATABSE_URL", "postgresql://user:secret@db/k2think")

    working_settings()
    working_settings()

    out, err = capsys.readouterr()
    assert out == ""
    assert err == "Warning: variable K2THINK_DATABSE_URL: nothing reads it; did you mean K2THINK_DATABASE_URL?\n"


def test_variables_that_kubernetes_sets_for_services_are_no_slips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K2THINK_GATEWAY_SERVICE_HOST", "10.0.0.7")
    monkeypatch.setenv("K2THINK_GATEWAY_SERVICE_PORT_HTTP", "8400")
    monkeypatch.setenv("K2THINK_GATEWAY_PORT_8400_TCP", "tcp://10.0.0.7:8400")
    assert check_variables() == []
    monkeypatch.delenv("K2THINK_GATEWAY_SERVICE_HOST")
    assert len(check_variables()) == 2


def test_an_upgrade_of_another_database_than_was_meant_is_told(cli: Cli) -> None:
    done = cli.run("db", "upgrade", K2THINK_DATABSE_URL="postgresql://db/k2think")
    assert "variable K2THINK_DATABSE_URL" in done.stderr
    assert "Warning" not in done.stdout


def test_spans_that_are_wanted_need_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    def spans() -> str:
        return by_name({"checks": [check.model_dump() for check in check_extras(read_settings())]})[
            "package opentelemetry-sdk"
        ]["state"]

    assert spans() == "ok"
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if "opentelemetry" in name else find(name, *more)
    )
    assert spans() == "ok", "nobody needs them"
    monkeypatch.setenv("K2THINK_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    assert spans() == "bad"


def test_who_is_alive_is_told_and_who_is_missing(cli: Cli) -> None:
    url = f"sqlite:///{cli.folder / 'data' / 'k2think.db'}"
    upgrade(url)
    database = Database(url)

    def processes() -> dict[str, Any]:
        return by_name(cli.json("doctor"))["processes"]

    def sign(role: str) -> None:
        now = time.time() + 60  # so that it lives as long as the test
        row = WorkerRow(role, role, "h", 1, "0", None, 1, 0, False, now, now, "{}")
        database.run_sync(lambda conn: sign_of_life(conn, row))

    assert processes()["state"] == "ok"
    for role in ("planner", "generator", "safety", "sweeper"):
        sign(role)
    found = processes()
    assert found["state"] == "warning"
    assert "generator 1" in found["detail"]
    assert found["fix"].endswith(": k2think worker verifier")
    assert cli.json("queues")["alive"] == {"planner": 1, "generator": 1, "verifier": 0, "safety": 1, "sweeper": 1}
    assert "verifier 0" in cli.run("queues").stdout

    sign("all")
    assert processes()["state"] == "ok"
    database.close()


def test_urls_are_shown_without_what_is_secret_in_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert public_url("redis://me:pw@host:1/0?password=x") == "redis://***@host:1/0"
    assert public_url("http://host:8000/v1") == "http://host:8000/v1"
    monkeypatch.setenv("K2THINK_BACKENDS", '{"fast": {"backend": "openai", "model": "m", "api_key": "sk-secret"}}')
    monkeypatch.setenv("K2THINK_DATABASE_URL", "postgresql://me:pw@host/name")
    shown = shown_settings(read_settings())
    assert "sk-secret" not in json.dumps(shown)
    assert "pw" not in shown["K2THINK_DATABASE_URL"]


def test_a_cerebras_backend_tells_the_accounts_models(simulated_cli: Cli) -> None:
    url = simulated_cli.environment["K2THINK_GENERATOR__BASE_URL"]
    fast = {"fast": {"backend": "cerebras", "base_url": url, "model": "simulated", "api_key": "csk-7"}}
    checks = simulated_cli.json("doctor", K2THINK_BACKENDS=json.dumps(fast))["checks"]
    found = next(check for check in checks if "fast" in check["name"])
    assert found["state"] == "ok"
    assert found["facts"]["models"] == "simulated"
    assert "models simulated" in found["detail"]
