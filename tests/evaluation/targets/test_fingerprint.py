"""What of the backends behind a target makes it another target, and what does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from k2think.evaluation.cache import content_key
from k2think.evaluation.targets.definition import Definition
from k2think.evaluation.targets.embedded import EmbeddedPolicy
from k2think.evaluation.targets.fingerprint import backend_sha256
from k2think.schemas.backend_settings import BackendKind, BackendSettings, RoleSettings
from k2think.schemas.evaluation import TargetSpec

POOL = '{"spare": {"backend": "openai", "base_url": "http://c:1/v1", "model": "%s", "templates": "default"}}'
SETTINGS = {
    **{
        f"K2THINK_{role}__{name}": value
        for role, place, model in (
            ("GENERATOR", "http://a:1/v1", "gen"),
            ("PLANNER", "http://b:1/v1", "judge"),
            ("VERIFIER", "http://b:1/v1", "judge"),
        )
        for name, value in {"BACKEND": "openai", "BASE_URL": place, "MODEL": model, "TEMPLATES": "default"}.items()
    },
    "K2THINK_BACKENDS": POOL % "s1",
    "K2THINK_VERIFIER__FALLBACK": '["spare"]',
}


async def described(folder: Path, *, outside: tuple[str, ...] = ("judge",), **changed: str) -> TargetSpec:
    settings = SETTINGS | {f"K2THINK_{name}": value for name, value in changed.items()}
    fields = {"row": "outside_scaffold", "policy": {"n": 3}, "outside_models": outside, "settings": settings}
    return await EmbeddedPolicy("t", Definition.model_validate(fields), folder).describe()


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"VERIFIER__MODEL": "judge-2"}, id="verifier"),
        pytest.param({"PLANNER__MODEL": "judge-2"}, id="planner"),
        pytest.param({"PLANNER__MAX_TOKENS": "99"}, id="planner's tokens"),
        pytest.param({"PLANNER__TEMPLATES": "mini"}, id="planner's prompts"),
        pytest.param({"GENERATOR__BASE_URL": "http://other:9/v1"}, id="server"),
        pytest.param({"GENERATOR__REASONING_EFFORT": "low"}, id="effort"),
        pytest.param({"BACKENDS": POOL % "s2"}, id="stand-in"),
        pytest.param({"SAFETY__BACKEND": "openai", "SAFETY__BASE_URL": "http://d:1/v1", "SAFETY__MODEL": "guard"}, id="guard"),
    ],
)  # fmt: skip
async def test_another_backend_of_any_role_is_another_target(
    changed: dict[str, str], make_item: Callable[..., Any], tmp_path: Path
) -> None:
    outside = ("judge", "judge-2")
    one, other = await described(tmp_path, outside=outside), await described(tmp_path, outside=outside, **changed)
    assert one.backends_sha256 != other.backends_sha256
    assert content_key(make_item("q"), one, 0) != content_key(make_item("q"), other, 0)


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"VERIFIER__API_KEY": "sk-other"}, id="key"),
        pytest.param({"GENERATOR__BASE_URL": "http://a:1/v1?key=secret"}, id="key in the address"),
        pytest.param({"GENERATOR__IDLE_TIMEOUT_S": "7", "VERIFIER__CONNECT_RETRIES": "9"}, id="patience"),
        pytest.param({"PLANNER__PRICE_PROMPT": "3", "GENERATOR__CONCURRENCY": "2"}, id="price"),
    ],
)
async def test_secrets_patience_and_prices_are_not_the_target(changed: dict[str, str], tmp_path: Path) -> None:
    assert await described(tmp_path) == await described(tmp_path, **changed)


async def test_who_plans_and_judges_behind_a_gateway_is_what_is_declared(
    make_item: Callable[..., Any], tmp_path: Path
) -> None:
    untold = (await described(tmp_path)).model_copy(update={"backends_sha256": {}})
    declared = untold.model_copy(update={"outside_models": ("another",)})
    assert content_key(make_item("q"), untold, 0) != content_key(make_item("q"), declared, 0)


def test_the_hash_does_not_know_where_settings_stand() -> None:
    fields: dict[str, Any] = {"backend": BackendKind.openai, "base_url": "http://a:1/v1", "model": "m"}
    hashes = [
        backend_sha256(kind(**fields), revision="r", templates="default") for kind in (BackendSettings, RoleSettings)
    ]
    assert hashes[0] == hashes[1]
    assert hashes[0] != backend_sha256(BackendSettings(**fields), revision="r2", templates="default")
