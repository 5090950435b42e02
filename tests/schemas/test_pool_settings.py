"""Named backends: what must hold among them, and the TOML file that they may come from."""

import json
from pathlib import Path

import pytest
from k2think.schemas.errors import ConfigurationError
from k2think.schemas.settings import read_settings

OPENAI = {"backend": "openai", "base_url": "http://127.0.0.1:1/v1"}


@pytest.fixture(autouse=True)
def _no_env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("backends", "said"),
    [
        ({"openai": OPENAI}, "'openai' is a kind of backend"),
        ({"a": {**OPENAI, "classes": ["b"]}, "b": OPENAI}, "a.classes: 'b' is the name of a backend"),
        ({"a": {**OPENAI, "classes": ["vllm"]}}, "a.classes: 'vllm' is the name of a backend or a kind"),
        ({"a": {**OPENAI, "classes": ["no way"]}}, "K2THINK_BACKENDS: a.classes.0"),
        ({"a": {**OPENAI, "fallback": ["a"]}}, "a: a backend cannot stand in for itself"),
        ({"a": {**OPENAI, "hedge": "a"}}, "a: a backend cannot stand in for itself"),
        (
            {"a": {**OPENAI, "fallback": ["c"]}, "b": OPENAI},
            "a: fallback: unknown backend 'c'; K2THINK_BACKENDS has a, b",
        ),
        ({"a": {**OPENAI, "hedge": "c"}}, "a: hedge: unknown backend 'c'"),
        ({"a": {**OPENAI, "fallback": ["m"]}, "m": {"backend": "openvino"}}, "'m' has the prompt template set 'mini'"),
        ({"a": {**OPENAI, "breaker_rest_s": 20}}, "breaker_rest_s must be at most breaker_rest_max_s"),
        ({"a": {**OPENAI, "weight": 0}}, "a.weight: Input should be greater than 0"),
        ({"a": {**OPENAI, "wieght": 2}}, "a.wieght: Extra inputs are not permitted"),
        ({"a": {"backend": "opnai"}}, "a.backend: Input should be"),
    ],
    ids=lambda value: None if isinstance(value, str) else "-".join(sorted(str(name) for name in value)),
)
def test_what_cannot_work_is_told_with_its_place(
    monkeypatch: pytest.MonkeyPatch, backends: dict[str, object], said: str
) -> None:
    monkeypatch.setenv("K2THINK_BACKENDS", json.dumps(backends))
    with pytest.raises(ConfigurationError) as told:
        read_settings()
    assert said in str(told.value)


def test_a_role_of_its_own_has_stand_ins_from_the_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K2THINK_GENERATOR__BACKEND", "openai")
    monkeypatch.setenv("K2THINK_GENERATOR__FALLBACK", '["b"]')
    with pytest.raises(ConfigurationError, match=r"K2THINK_GENERATOR: fallback: unknown backend 'b'"):
        read_settings()
    monkeypatch.setenv("K2THINK_BACKENDS", json.dumps({"b": OPENAI}))
    assert read_settings().generator.fallback == ("b",)


def test_a_file_names_backends_and_the_environment_goes_before_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "pool.toml"
    file.write_text(
        '[fast]\nbackend = "cerebras"\nmodel = "k2"\nclasses = ["quick"]\nrequests_per_minute = 300\nfallback = ["own"]\n'
        '[own]\nbackend = "vllm"\nmodel = "k2"\nbase_url = "http://127.0.0.1:8000/v1"\n'
    )
    monkeypatch.setenv("K2THINK_BACKENDS_FILE", str(file))
    monkeypatch.setenv("K2THINK_BACKENDS", json.dumps({"fast": {"requests_per_minute": 60}, "third": OPENAI}))
    settings = read_settings()
    assert sorted(settings.backends) == ["fast", "own", "third"]
    fast = settings.backends["fast"]
    assert (fast.backend.value, fast.requests_per_minute, fast.fallback) == ("cerebras", 60, ("own",))
    assert settings.generator_names == ["fast", "own", "third", "quick"]
    assert (settings.serving("quick"), settings.serving("own"), settings.serving("no")) == (["fast"], ["own"], [])
    assert settings.names_of("fast") == ("fast", "quick")


def test_the_env_file_may_name_the_file(tmp_path: Path) -> None:
    (tmp_path / "pool.toml").write_text('[own]\nbackend = "vllm"\n')
    (tmp_path / ".env").write_text("K2THINK_BACKENDS_FILE=pool.toml\n")
    assert list(read_settings().backends) == ["own"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[fast\n", "is not valid TOML"),
        ('model = "x"\n', "'model' in"),
        (b"\xff\xfe", "no text in UTF-8"),
        (None, "cannot be read: No such file"),
        ('[fast]\nbackend = "warp"\n', "fast.backend"),
    ],
    ids=["toml", "outside", "bytes", "missing", "kind"],
)
def test_a_file_that_cannot_work_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | bytes | None, said: str
) -> None:
    file = tmp_path / "pool.toml"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    monkeypatch.setenv("K2THINK_BACKENDS_FILE", str(file))
    with pytest.raises(ConfigurationError) as told:
        read_settings()
    assert said in str(told.value)
    assert "K2THINK_BACKENDS" in str(told.value)
