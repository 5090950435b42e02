"""Every public field says what it is, and every time in which unit."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
from pathlib import Path
from typing import Any

import k2think.schemas
import pytest
from k2think.schemas.backend_settings import BackendSettings, RoleSettings
from k2think.schemas.settings import Settings
from k2think.schemas.trace import CallTrace
from pydantic import BaseModel

MODULES = [
    importlib.import_module(module.name)
    for module in pkgutil.iter_modules(k2think.schemas.__path__, "k2think.schemas.")
]
MODELS: list[type[BaseModel]] = [
    cls
    for module in MODULES
    for cls in vars(module).values()
    if inspect.isclass(cls) and issubclass(cls, BaseModel) and cls.__module__ == module.__name__
]
WITHOUT_UNIT = {
    *("temperature", "top_p", "draft_acceptance", "accepted_length", "price_prompt", "price_completion"),
    *("weight", "hedge_share_max"),
    *("value", "coverage", "ngram8_coverage_min", "similarity", "cost"),
}
"""Floats that are pure numbers, or money."""


def test_the_walk_finds_the_models() -> None:
    assert len(MODELS) > 35
    assert {"Envelope", "Policy", "SolveResult", "JobTrace", "Settings", "CallTrace"} <= {m.__name__ for m in MODELS}


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_field_of_a_model_is_described(model: type[BaseModel]) -> None:
    assert model.__doc__
    short = {name: f.description for name, f in model.model_fields.items() if not (f.description or "").strip()}
    assert not short


def undescribed(source: str) -> list[str]:
    """Find annotated fields of classes that no docstring follows (dataclasses have no descriptions to ask for)."""
    found: list[str] = []
    for cls in ast.walk(ast.parse(source)):
        if isinstance(cls, ast.ClassDef):
            for here, below in zip(cls.body, [*cls.body[1:], None], strict=True):
                described = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
                if isinstance(here, ast.AnnAssign) and not described:
                    found.append(f"{cls.name}.{ast.unparse(here.target)}")
    return found


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__.rpartition(".")[2])
def test_a_docstring_follows_every_field_of_every_class(module: Any) -> None:
    assert not undescribed(Path(module.__file__).read_text(encoding="utf-8"))


def test_the_search_for_fields_without_docstring_finds_them() -> None:
    assert undescribed('class A:\n    """A."""\n    x: int\n    y: int\n    """Y."""\n    z: int = 1\n') == [
        "A.x",
        "A.z",
    ]


def is_time(name: str, annotation: object) -> bool:
    return "float" in str(annotation) and name not in WITHOUT_UNIT


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_a_time_names_its_unit(model: type[BaseModel]) -> None:
    for name, field in model.model_fields.items():
        if is_time(name, field.annotation):
            told = f"{field.description} {model.__doc__}"
            assert name.endswith("_s") or re.search(r"\bseconds\b", told), f"{model.__name__}.{name}"


def test_some_times_are_seen() -> None:
    seen = {name for model in MODELS for name, field in model.model_fields.items() if is_time(name, field.annotation)}
    assert {"deadline_s", "queued_at", "duration_s", "total", "lease_s", "at"} <= seen
    assert not seen & WITHOUT_UNIT


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_models_are_closed_and_frozen_and_keep_input_out_of_their_errors(model: type[BaseModel]) -> None:
    config = model.model_config
    if model.__name__ != "Mutable" and model is not CallTrace:
        assert config.get("frozen") is True
        assert config.get("hide_input_in_errors") is True
    # The environment and .env hold the variables of other programs too.
    assert config.get("extra") == ("ignore" if model is Settings else "forbid")


def test_settings_take_finite_numbers_only() -> None:
    assert all(model.model_config.get("allow_inf_nan") is False for model in (Settings, BackendSettings, RoleSettings))
