"""Settings: from the environment and `.env`, with errors that name the variable and never show a secret."""

from __future__ import annotations

import json
import os
import traceback
from pathlib import Path

import pytest
from k2think.schemas.backend_settings import BackendKind, RoleSettings
from k2think.schemas.errors import ConfigurationError
from k2think.schemas.messages import AgentKind
from k2think.schemas.settings import LogFormat, Settings, load_settings, read_settings
from pydantic import SecretStr, ValidationError

SECRET = "swordfish-4711"
FAST = json.dumps({"fast": {"backend": "cerebras", "model": "big", "api_key": SECRET}})


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.upper().startswith(("K2THINK_", "CEREBRAS_")):
            monkeypatch.delenv(name)
    # No .env of the folder in which the tests were started.
    monkeypatch.chdir(tmp_path)


def read(**variables: str) -> Settings:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        return read_settings()


def refusal(**variables: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        read(**variables)
    # What a log shows of it, causes included, holds no secret either.
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    return str(caught.value)


def test_with_nothing_set_all_is_embedded() -> None:
    settings = read()
    assert settings.generator == RoleSettings()
    assert settings.generator.backend is BackendKind.openvino
    assert (settings.database_url, settings.broker_url, settings.backends) == (None, None, {})
    assert settings.sqlalchemy_url == f"sqlite:///{settings.data_dir / 'k2think.db'}"
    assert settings.data_dir == Path.home() / ".local" / "share" / "k2think"
    assert settings.heartbeat_s * 2 <= settings.lease_s
    assert settings.safety_fail_open is False
    assert not settings.model_fields_set


def test_nested_variables_set_a_role() -> None:
    settings = read(
        K2THINK_GENERATOR__BACKEND="openai",
        K2THINK_GENERATOR__BASE_URL="http://127.0.0.1:8000/v1",
        K2THINK_GENERATOR__API_KEY=SECRET,
        K2THINK_GENERATOR__MAX_TOKENS="77",
        K2THINK_GENERATOR__CONCURRENCY="12",
    )
    role = settings.generator
    assert (role.backend, role.base_url) == (BackendKind.openai, "http://127.0.0.1:8000/v1")
    assert role.api_key == SecretStr(SECRET)
    assert (role.max_tokens, role.concurrency, role.idle_timeout_s) == (77, 12, RoleSettings().idle_timeout_s)


def test_flat_variables_are_parsed() -> None:
    settings = read(
        K2THINK_DATA_DIR="/srv/k2", K2THINK_LEASE_S="30", K2THINK_LOG_FORMAT="json", K2THINK_SAFETY_FAIL_OPEN="true"
    )
    assert (settings.data_dir, settings.lease_s) == (Path("/srv/k2"), 30.0)
    assert (settings.log_format, settings.safety_fail_open) == (LogFormat.json, True)


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("K2THINK_QUEUE_MAX=5\nK2THINK_ATTEMPTS_MAX=7\nPOSTGRES_PASSWORD=x\n")
    settings = read(K2THINK_QUEUE_MAX="6")
    assert (settings.queue_max, settings.attempts_max) == (6, 7)


# ---- Empty is unset


@pytest.mark.parametrize(
    "name",
    [
        "K2THINK_BROKER_URL",
        "K2THINK_DATABASE_URL",
        "K2THINK_LEASE_S",
        "K2THINK_BACKENDS",
        "K2THINK_GENERATOR",
        "K2THINK_GENERATOR__BACKEND",
        "K2THINK_GENERATOR__API_KEY",
        "K2THINK_PLANNER__MODEL",
        "K2THINK_SAFETY__MODEL",
        "K2THINK_LOG_LEVEL",
        "CEREBRAS_API_KEY",
    ],
)
def test_an_empty_variable_counts_as_unset(name: str, tmp_path: Path) -> None:
    plain = read()
    assert read(**{name: ""}) == plain
    (tmp_path / ".env").write_text(f"{name}=\n")
    assert read() == plain


# ---- Roles and named backends


def test_planner_and_verifier_follow_the_generator_and_safety_needs_no_model() -> None:
    settings = read(K2THINK_GENERATOR__MODEL="mine")
    assert (settings.planner, settings.verifier, settings.safety) == (None, None, None)
    for agent in (AgentKind.planner, AgentKind.generator, AgentKind.verifier):
        assert settings.role(agent) is settings.generator
    assert settings.role(AgentKind.safety) is None


@pytest.mark.parametrize("agent", [AgentKind.planner, AgentKind.verifier, AgentKind.safety])
def test_a_role_of_its_own_inherits_nothing(agent: AgentKind) -> None:
    settings = read(**{"K2THINK_GENERATOR__MODEL": "mine", f"K2THINK_{agent.name.upper()}__MAX_TOKENS": "9"})
    assert settings.role(agent) == RoleSettings(max_tokens=9)
    others = set(AgentKind) - {agent, AgentKind.safety}
    assert all(settings.role(other) is settings.generator for other in others)


def test_a_role_may_name_one_of_the_backends() -> None:
    settings = read(K2THINK_BACKENDS=FAST, K2THINK_PLANNER__BACKEND="fast")
    planner = settings.role(AgentKind.planner)
    assert planner is not None
    assert settings.resolve(planner) is settings.backends["fast"] is settings.backend("fast")
    assert settings.backend("fast").model == "big"
    assert settings.resolve(settings.generator) is settings.generator


def test_an_unknown_name_is_refused_with_those_that_exist() -> None:
    with pytest.raises(ConfigurationError, match="unknown backend 'slow': K2THINK_BACKENDS has fast"):
        read(K2THINK_BACKENDS=FAST).backend("slow")
    with pytest.raises(ConfigurationError, match=r"unknown backend 'slow': K2THINK_BACKENDS has none$"):
        read().backend("slow")
    message = refusal(K2THINK_BACKENDS=FAST, K2THINK_VERIFIER__BACKEND="slow")
    assert message == (
        "K2THINK_VERIFIER__BACKEND: unknown backend 'slow'; choose one of openvino, openai, cerebras, vllm, vllm_engine, fast"
    )


# ---- What is refused


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("K2THINK_GENERATOR__BASE_URL", "localhost:8000", "String should match pattern"),
        ("K2THINK_GENERATOR__BASE_URL", "http://a b", "String should match pattern"),
        ("K2THINK_PLANNER__BASE_URL", "ftp://host", "String should match pattern"),
        ("K2THINK_GENERATOR__BASEURL", "http://127.0.0.1", "Extra inputs are not permitted"),
        ("K2THINK_VERIFIER__MAX_TOKENS", "0", "Input should be greater than or equal to 1"),
        ("K2THINK_SAFETY__IDLE_TIMEOUT_S", "inf", "Input should be a finite number"),
        ("K2THINK_GENERATOR__CONCURRENCY", "-1", "Input should be greater than or equal to 0"),
        ("K2THINK_GENERATOR__TEMPLATES", "../x", "String should match pattern"),
        (
            "K2THINK_GENERATOR__BACKEND",
            "torch",
            "unknown backend 'torch'; choose one of openvino, openai, cerebras, vllm",
        ),
        (
            "K2THINK_GATEWAY__TRUSTED_PROXIES",
            "10.0.0.0/8,proxy",
            "'proxy' does not appear to be an IPv4 or IPv6 network",
        ),
        ("K2THINK_LEASE_S", "soon", "Input should be a valid number"),
        ("K2THINK_LEASE_S", "nan", "Input should be a finite number"),
        ("K2THINK_SWEEP_S", "0", "Input should be greater than 0"),
        ("K2THINK_ATTEMPTS_MAX", "21", "Input should be less than or equal to 20"),
        ("K2THINK_QUEUE_MAX", "1.5", "Input should be a valid integer"),
        ("K2THINK_LOG_LEVEL", "loud", "Input should be 'debug', 'info', 'warning' or 'error'"),
        ("K2THINK_SAFETY_FAIL_OPEN", "perhaps", "Input should be a valid boolean"),
        ("K2THINK_BACKENDS", "{bad " + SECRET, "not valid JSON (Expecting property name"),
        ("K2THINK_BACKENDS", '{"a": {"api_key": "' + SECRET, "not valid JSON (Unterminated string"),
        ("K2THINK_BACKENDS", "fast", "not valid JSON (Expecting value"),
        ("K2THINK_BACKENDS", "[]", "Input should be a valid dictionary"),
        ("K2THINK_BACKENDS", '{"fast": {"backend": "torch"}}', "fast.backend: Input should be 'openvino', 'openai', "),
        ("K2THINK_BACKENDS", FAST.replace("model", "modle"), "fast.modle: Extra inputs are not permitted"),
        ("K2THINK_BACKENDS", '{"a b": {}}', "a b: String should match pattern"),
        ("K2THINK_BACKENDS", '{"vllm": {}}', "'vllm' is a kind of backend; give it another name"),
        ("K2THINK_GENERATOR", "openai", "not valid JSON (Expecting value"),
    ],
)
def test_a_wrong_value_is_refused_with_the_name_of_its_variable(name: str, value: str, message: str) -> None:
    assert refusal(**{name: value}).startswith(f"{name}: {message}")


def test_all_wrong_variables_are_named_at_once() -> None:
    message = refusal(K2THINK_SWEEP_S="0", K2THINK_GENERATOR__MAX_TOKENS="x", K2THINK_LOG_FORMAT="xml")
    names = [line.partition(":")[0] for line in message.splitlines()]
    assert sorted(names) == ["K2THINK_GENERATOR__MAX_TOKENS", "K2THINK_LOG_FORMAT", "K2THINK_SWEEP_S"]


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"K2THINK_BROKER_URL=\xff\n")
    assert refusal().startswith("the file .env cannot be read: ")


def test_malformed_json_in_the_file_is_refused_too(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("K2THINK_BACKENDS={bad\n")
    assert refusal().startswith("K2THINK_BACKENDS: not valid JSON")


def test_a_lease_outlasts_two_heartbeats() -> None:
    assert read(K2THINK_LEASE_S="4", K2THINK_HEARTBEAT_S="2").lease_s == 4
    message = refusal(K2THINK_LEASE_S="4", K2THINK_HEARTBEAT_S="2.1", CEREBRAS_API_KEY=SECRET)
    assert message.startswith("K2THINK_HEARTBEAT_S must be at most half of K2THINK_LEASE_S")


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("sqlite:////srv/k2.db", "sqlite:////srv/k2.db"),
        ("postgresql://u:p@host/k2", "postgresql+psycopg://u:p@host/k2"),
        ("postgresql+psycopg://u:p@host/k2", "postgresql+psycopg://u:p@host/k2"),
    ],
)
def test_databases_that_we_speak_to(given: str, used: str) -> None:
    assert read(K2THINK_DATABASE_URL=given).sqlalchemy_url == used


@pytest.mark.parametrize("url", ["mysql://u:{}@host/k2", "postgres://u:{}@host/k2", "sqlite://", "/srv/{}.db"])
def test_other_databases_are_refused_without_showing_the_url(url: str) -> None:
    message = refusal(K2THINK_DATABASE_URL=url.format(SECRET))
    assert message == "K2THINK_DATABASE_URL must begin with sqlite:/// or postgresql://"


@pytest.mark.parametrize(
    "url",
    [
        "redis://h:6379/0",
        "rediss://h/0?ssl_ca_certs=/etc/ca.pem",
        "redis+socket:///run/redis.sock?virtual_host=1",
        "redis+sentinel://u:p@a,b:26380/main?db=1",
    ],
)
def test_brokers_that_we_speak_to(url: str) -> None:
    broker = read(K2THINK_BROKER_URL=url).broker_url
    assert broker is not None
    assert broker.get_secret_value() == url


@pytest.mark.parametrize("url", ["amqp://u:{}@host", "host:6379", "unix:///run/{}.sock"])
def test_other_brokers_are_refused_without_showing_the_url(url: str) -> None:
    message = refusal(K2THINK_BROKER_URL=url.format(SECRET))
    assert message.startswith("K2THINK_BROKER_URL: must begin with redis://, rediss://, redis+socket://, ")
    assert SECRET not in message


# ---- Secrets


def test_the_key_of_cerebras_has_the_name_that_its_sdk_reads() -> None:
    assert read(CEREBRAS_API_KEY=SECRET).cerebras_api_key == SecretStr(SECRET)
    assert read(K2THINK_CEREBRAS_API_KEY=SECRET).cerebras_api_key is None


def test_secrets_are_never_shown() -> None:
    settings = read(
        K2THINK_DATABASE_URL=f"postgresql://u:{SECRET}@host/k2",
        K2THINK_BROKER_URL=f"redis://:{SECRET}@host/0",
        K2THINK_RESULT_BACKEND_URL=f"redis://:{SECRET}@host/1",
        K2THINK_GENERATOR__API_KEY=SECRET,
        K2THINK_PLANNER__API_KEY=SECRET,
        K2THINK_BACKENDS=FAST,
        CEREBRAS_API_KEY=SECRET,
    )
    shown = [repr(settings), str(settings), settings.model_dump_json(), str(settings.model_dump())]
    assert all("**********" in text for text in shown)
    assert not [text for text in shown if SECRET in text]
    assert SECRET in settings.sqlalchemy_url


def test_settings_do_not_change_once_read() -> None:
    settings = read()
    with pytest.raises(ValidationError, match="frozen"):
        settings.lease_s = 1.0  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        settings.generator.model = "x"  # type: ignore[misc]


def test_settings_are_loaded_once_and_read_afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    load_settings.cache_clear()
    try:
        first = load_settings()
        monkeypatch.setenv("K2THINK_QUEUE_MAX", "5")
        assert load_settings() is first
        assert read_settings().queue_max == 5
    finally:
        load_settings.cache_clear()


def test_the_home_folder_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K2THINK_DATA_DIR", "~/k2")
    assert read_settings().data_dir == Path.home() / "k2"
