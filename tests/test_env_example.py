"""`.env.example` and the class that reads it say the same, in both directions."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from k2think.schemas.backend_settings import RoleSettings
from k2think.schemas.sandbox_settings import SandboxSettings
from k2think.schemas.settings import GatewaySettings, Settings
from pydantic import BaseModel
from pydantic.fields import FieldInfo

EXAMPLE = Path(__file__).parents[1] / ".env.example"
NESTED: tuple[type[BaseModel], ...] = (RoleSettings, GatewaySettings, SandboxSettings)
LESSER_ROLES = ("PLANNER", "VERIFIER", "SAFETY")
"""Agents whose variables are listed without repeating the generator's words."""

_VARIABLE = re.compile(r"^#([A-Z][A-Z0-9_]*)=(.*)$")


@dataclass(frozen=True)
class Entry:
    """One documented variable."""

    name: str
    value: str
    words: str
    """The comment above it (above its run of lines), as one line."""

    @property
    def is_example(self) -> bool:
        """The value is an example of a setting that is unset by default."""
        return self.words.endswith("Example:")

    @property
    def role(self) -> str:
        """PLANNER for K2THINK_PLANNER__MODEL; empty where the variable is not nested."""
        before, nested, _ = self.name.partition("__")
        return before.removeprefix("K2THINK_") if nested else ""


def read_example() -> list[Entry]:
    """Parse the file: comment lines, then the variables that they speak of, up to an empty line."""
    entries: list[Entry] = []
    words: list[str] = []
    for line in EXAMPLE.read_text(encoding="utf-8").splitlines():
        variable = _VARIABLE.match(line)
        if variable:
            entries.append(Entry(variable[1], variable[2], " ".join(words)))
        elif line.startswith("# "):
            words.append(line.removeprefix("# "))
        else:
            assert line in ("", "#"), f"neither a comment nor a commented-out variable: {line!r}"
            words = []
    return entries


def variables() -> dict[str, FieldInfo]:
    """Walk the class: the name of each variable, and the field that it sets."""
    found: dict[str, FieldInfo] = {}
    for name, field in Settings.model_fields.items():
        if isinstance(field.validation_alias, str):
            found[field.validation_alias] = field
        elif nested := next((kind for kind in NESTED if kind.__name__ in str(field.annotation)), None):
            for inner, inner_field in nested.model_fields.items():
                found[f"K2THINK_{name}__{inner}".upper()] = inner_field
        else:
            found[f"K2THINK_{name}".upper()] = field
    return found


def explanation(field: FieldInfo) -> str:
    """Say what the field's docstring says, to a reader who knows no Python."""
    return (field.description or "").replace("; None = ", "; unset = ").replace("None = ", "Unset = ")


@pytest.fixture
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """No variables of ours, and in the working folder the file of backends that the example names."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "backends.toml").write_text('[fast]\nbackend = "vllm"\n')
    for name in list(os.environ):
        if name.startswith(("K2THINK_", "CEREBRAS_")):
            monkeypatch.delenv(name)
    return monkeypatch


def load(folder: Path, entries: list[Entry]) -> dict[str, Any]:
    """Read the settings from a file in which these variables are not commented out."""
    file = folder / "env"
    file.write_text("\n".join(f"{e.name}={e.value}" for e in entries), encoding="utf-8")
    return Settings(_env_file=file).model_dump()  # type: ignore[call-arg]


def test_every_variable_is_documented_once_and_every_documented_one_exists() -> None:
    documented = [entry.name for entry in read_example()]
    assert sorted(documented) == sorted(set(documented))
    missing = [
        f"# {explanation(field)}\n#{name}={field.get_default()}"
        for name, field in variables().items()
        if name not in documented
    ]
    assert not missing, "to be added to .env.example:\n" + "\n\n".join(missing)
    assert not set(documented) - set(variables())


def test_each_variable_is_explained_in_the_words_of_the_class() -> None:
    fields = variables()
    for entry in read_example():
        field = Settings.model_fields[entry.role.lower()] if entry.role in LESSER_ROLES else fields[entry.name]
        words = explanation(field)
        assert words, f"{entry.name} has no docstring"
        assert entry.words.startswith(words), f"{entry.name}: the class says {words!r}"


def test_a_value_is_an_example_just_where_the_default_is_none() -> None:
    fields = variables()
    for entry in read_example():
        if entry.role not in LESSER_ROLES:
            default = fields[entry.name].get_default(call_default_factory=True, validated_data={})
            assert entry.is_example == (default is None), f"{entry.name}: the default is {default!r}"


def test_the_lesser_roles_repeat_the_generators_values() -> None:
    entries = read_example()
    generator = {e.name.partition("__")[2]: e.value for e in entries if e.role == "GENERATOR"}
    for role in LESSER_ROLES:
        assert {e.name.partition("__")[2]: e.value for e in entries if e.role == role} == generator


@pytest.mark.usefixtures("bare_environment")
def test_setting_what_is_shown_as_default_changes_nothing(tmp_path: Path) -> None:
    shown = [e for e in read_example() if not e.is_example and e.role not in LESSER_ROLES]
    assert load(tmp_path, shown) == load(tmp_path, [])
    for entry in shown:
        assert load(tmp_path, [entry]) == load(tmp_path, []), entry.name


@pytest.mark.usefixtures("bare_environment")
def test_every_example_is_accepted_and_takes_effect(tmp_path: Path) -> None:
    plain = load(tmp_path, [])
    for entry in read_example():
        if entry.is_example:
            assert load(tmp_path, [entry]) != plain, entry.name
    load(tmp_path, read_example())


@pytest.mark.usefixtures("bare_environment")
def test_a_lesser_role_does_not_take_over_the_generators_values(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        [Entry("K2THINK_GENERATOR__MAX_TOKENS", "7", ""), Entry("K2THINK_PLANNER__MODEL", "k2think-mini", "")],
    )
    assert settings["generator"]["max_tokens"] == 7
    assert settings["planner"]["max_tokens"] == RoleSettings().max_tokens
