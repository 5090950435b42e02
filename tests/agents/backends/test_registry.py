"""From settings to backends, and what is said about settings that cannot work."""

import subprocess
import sys
from pathlib import Path

import pytest
from k2think.agents.backends.registry import create_backend
from k2think.schemas.backend_settings import BackendKind, BackendSettings, RoleSettings
from k2think.schemas.errors import ConfigurationError
from pydantic import SecretStr


def settings(**fields: object) -> BackendSettings:
    return BackendSettings.model_validate(fields)


def test_each_kind_has_its_default_address() -> None:
    openai = create_backend(settings(backend="openai", model="m"), name="openai")
    vllm = create_backend(settings(backend="vllm", model="m"), name="vllm")
    cerebras = create_backend(settings(backend="cerebras", model="m", api_key="k"), name="cerebras")
    addresses = [backend.origin.address for backend in (openai, vllm, cerebras)]  # type: ignore[attr-defined]
    assert addresses == ["https://api.openai.com/v1", "http://127.0.0.1:8000/v1", "https://api.cerebras.ai"]


def test_cerebras_takes_the_key_of_its_own_sdk_when_it_has_none() -> None:
    own, sdk = settings(backend="cerebras", model="m", api_key="own"), settings(backend="cerebras", model="m")
    for given, expected in ((own, "own"), (sdk, "theirs")):
        backend = create_backend(given, name="c", cerebras_api_key=SecretStr("theirs"))
        assert backend.origin.secret.get_secret_value() == expected  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"backend": "cerebras", "model": "m"}, "CEREBRAS_API_KEY"),
        ({"backend": "cerebras", "model": "m", "api_key": " "}, "CEREBRAS_API_KEY"),
        ({"backend": "cerebras", "api_key": "k"}, "MODEL"),
        ({"backend": "openai", "base_url": "http://user:hunter2@h/v1"}, "api_key"),
        ({"backend": "openai", "api_key": "hunter2\nX-Evil: 1"}, "api_key"),
        ({"backend": "cerebras", "model": "m", "api_key": "hünter2"}, "api_key"),
        ({"backend": "openvino", "model": "/nowhere/at/all"}, "no model folder"),
        ({"backend": "openvino", "reasoning_effort": "low"}, "reasoning_effort is for .*openai"),
        ({"backend": "vllm", "model": "m", "service_tier": "flex"}, "service_tier is for .*unset it"),
        ({"backend": "openai", "model": "m", "reasoning_format": "raw"}, "reasoning_format is for cerebras"),
    ],
)
def test_settings_that_cannot_work_are_refused_without_showing_secrets(fields: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as caught:
        create_backend(settings(**fields), name="fast")
    assert "fast" in str(caught.value)
    assert "nter2" not in str(caught.value)


def test_an_unresolved_name_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="K2THINK_BACKENDS"):
        create_backend(RoleSettings(backend="fast"), name="fast")


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"openvino_model\.xml.*k2think models pull"):
        create_backend(settings(backend="openvino", model=str(tmp_path)), name="openvino")


@pytest.mark.parametrize(
    ("package", "fields", "extra"),
    [
        ("cerebras.cloud.sdk", {"backend": "cerebras", "model": "m", "api_key": "k"}, r"k2think\[cerebras\]"),
        ("openvino_genai", {"backend": "openvino"}, r"k2think\[embedded\]"),
    ],
)
def test_a_missing_package_is_named(
    monkeypatch: pytest.MonkeyPatch, package: str, fields: dict[str, str], extra: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigurationError, match=f"pip install '{extra}'"):
        create_backend(settings(**fields), name="x")


def test_no_kind_loads_what_another_needs() -> None:
    code = (
        "import sys; from k2think.agents.backends.registry import create_backend;"
        "from k2think.schemas.settings import BackendSettings as S;"
        "create_backend(S(backend='openai', model='m'), name='openai');"
        "print(sorted({'cerebras', 'httpx', 'openvino', 'openvino_genai', 'celery', 'sqlalchemy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_kind_is_known() -> None:
    assert {kind.value for kind in BackendKind} == {"openai", "vllm", "vllm_engine", "cerebras", "openvino"}
