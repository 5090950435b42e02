"""The targets file: a TOML table for each target, with the label of its row in the report, its prices, and no secrets."""

from __future__ import annotations

import re
import tomllib
from enum import StrEnum
from pathlib import Path
from typing import Any, Self, cast

from pydantic import Field, ValidationError, model_validator

from ...schemas.base import Frozen
from ...schemas.errors import ConfigurationError, InvalidRequest, explain
from ...schemas.evaluation import Row
from ...schemas.policy import Plan, Policy, Sampling

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"


class Kind(StrEnum):
    """The kinds of target."""

    endpoint = "endpoint"
    """A model behind one of our backends, called once for each item, with nothing around it."""
    policy = "policy"
    """Our own system by a policy: behind a running gateway, or on a stack that the run starts for itself."""


class Price(Frozen):
    """What tokens cost, in any one currency."""

    prompt: float = Field(ge=0, allow_inf_nan=False)
    """Of a million prompt tokens."""
    completion: float = Field(ge=0, allow_inf_nan=False)
    """Of a million completion tokens."""


class Definition(Frozen):
    """One target, as its table in the targets file says."""

    row: Row
    """Row of the report that it is: `single`, `self_scaffold` or `outside_scaffold`. There is no default: nothing is compared unlabelled."""
    kind: Kind = Kind.endpoint
    """`endpoint` or `policy`; a table with a policy is one of kind `policy`."""
    model: str | None = None
    """Model that writes the answers. Needed but with `backend`, and on a stack of our own, where the settings name it."""
    revision: str | None = None
    """Commit, digest or date of the model; None = unknown, or found out where the model is a folder on this machine."""
    base_url: str | None = Field(default=None, pattern=r"^https?://\S+$")
    """Of an endpoint with /v1, or of a running gateway without; None = the backend's, or a stack of our own."""
    backend: str | None = None
    """Named backend, role or kind of the settings, which may hold a key (endpoints); None = an OpenAI-compatible server at `base_url`."""
    key_file: Path | None = None
    """File that holds the key for `base_url` alone; None = none is sent."""
    policy: Policy | None = None
    """How our own system goes about it; None = a plain endpoint."""
    templates: str | None = Field(default=None, pattern=r"^[a-z0-9_-]{1,40}$")
    """Template set around the problem (endpoints); None = the backend's own, or `default`, so that all rows are asked alike."""
    sampling: Sampling = Sampling()
    """Decoding parameters (endpoints; a policy has its own). The seed is the base from which each item's is made."""
    seeded: bool = True
    """Whether seeds are sent at all; some servers refuse them."""
    outside_models: tuple[str, ...] = ()
    """Planner and judge models that are not the model itself."""
    training_data: str | None = None
    """What is declared about the model's training data; None reads `unknown`."""
    price: Price | None = None
    """Of the model; None = the backend's in the settings, or not known."""
    role_prices: dict[str, Price] = {}
    """Of `planner`, `verifier` or `safety`, where another model does their work."""
    settings: dict[str, str] = {}
    """Further K2THINK_ variables of a stack of our own, such as K2THINK_VERIFIER__MODEL."""
    concurrency: int | None = Field(default=None, ge=1, le=10_000)
    """Items asked at once; None = what the command says."""
    first_token_timeout_s: float = Field(default=600.0, gt=0)
    """Seconds from a request to its first token (endpoints)."""
    idle_timeout_s: float = Field(default=120.0, gt=0)
    """Seconds between two pieces of a stream (endpoints)."""

    @model_validator(mode="before")
    @classmethod
    def _kind_by_policy(cls, value: Any) -> Any:
        if isinstance(value, dict) and "policy" in value and "kind" not in value:
            return {**cast(dict[str, Any], value), "kind": Kind.policy.value}
        return value

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.kind is Kind.policy:
            self._check_policy()
        else:
            self._check_endpoint()
        if self.row is Row.outside_scaffold and not self.outside_models:
            raise ValueError("outside_models must name the models that plan or judge: the row says that there are some")
        if self.row is not Row.outside_scaffold and self.outside_models:
            raise ValueError(f"outside_models are named, so the row is outside_scaffold, not {self.row}")
        return self

    def _check_policy(self) -> None:
        policy = self.policy
        if policy is None:
            raise ValueError('a target of kind policy needs one, such as policy = "paper" or policy = { n = 3 }')
        given = {"backend", "templates", "sampling"} & self.model_fields_set
        if given:
            raise ValueError(f"{', '.join(sorted(given))}: a policy has its own, inside `policy`")
        alone = policy.n == 1 and policy.plan is Plan.off
        if self.row is Row.single and not alone:
            raise ValueError(
                "a row `single` is one sample with nothing around it: the policy must have n = 1 and plan = off"
            )
        if self.base_url is not None and self.model is None:
            raise ValueError("model must say which model the gateway's workers run")
        if self.base_url is not None and self.settings:
            raise ValueError("settings are those of a stack of our own; a gateway's workers have theirs")
        if wrong := sorted(name for name in self.settings if not name.startswith("K2THINK_")):
            raise ValueError(f"settings: {', '.join(wrong)}: their names begin with K2THINK_")

    def _check_endpoint(self) -> None:
        if self.row is not Row.single:
            raise ValueError(f"a plain endpoint is a row `single`, not {self.row}: nothing plans or judges there")
        if (self.base_url is None) == (self.backend is None):
            raise ValueError("give either base_url with model, or backend (a name from the settings)")
        if self.base_url is not None and self.model is None:
            raise ValueError("model must say which model is asked at base_url")
        if self.backend is not None and self.key_file is not None:
            raise ValueError("key_file belongs to base_url; a backend of the settings has its own key")
        if self.settings:
            raise ValueError("settings are those of a stack of our own (kind policy)")


def read_targets(path: Path) -> dict[str, Definition]:
    """Read a targets file. Raises ConfigurationError, InvalidRequest, which name the table that is wrong."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as exc:
        raise ConfigurationError(f"{path} is not valid TOML: {exc}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigurationError(f"{path} is no text in UTF-8") from exc
    except OSError as exc:
        raise ConfigurationError(f"the targets file {path} cannot be read: {exc.strerror}") from exc
    return {name: _definition(path, name, table) for name, table in tables.items()}


def chosen_targets(path: Path, names: list[str]) -> dict[str, Definition]:
    """Return the named targets of a file, in that order. Raises ConfigurationError, InvalidRequest."""
    known = read_targets(path)
    if missing := [name for name in names if name not in known]:
        listed = ", ".join(known) or "none"
        raise InvalidRequest(f"{path} has no target {', '.join(map(repr, missing))}; it has: {listed}")
    return {name: known[name] for name in dict.fromkeys(names)}


def _definition(path: Path, name: str, table: Any) -> Definition:
    if not isinstance(table, dict):
        raise ConfigurationError(
            f"{path}: {name!r} stands outside of any target; begin each with its name, such as [{name}]"
        )
    if not re.match(NAME_PATTERN, name):
        raise ConfigurationError(f"{path}: {name!r} is no name of a target: letters, digits, dots, dashes, at most 100")
    try:
        return Definition.model_validate(table)
    except ValidationError as exc:
        raise ConfigurationError(f"{path}, target {name!r}: {explain(exc)}") from exc
