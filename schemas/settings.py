"""Settings from the environment (`K2THINK_…`, nested with `__`) and an optional `.env` file. The only place that reads it.

`.env.example` documents every variable; a test holds the two together.
"""

import ipaddress
import re
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from .backend_settings import BUNDLED_MODEL, BackendKind, BackendName, BackendSettings, RoleSettings
from .backends_file import BackendsFile
from .errors import ConfigurationError
from .messages import AgentKind
from .pool_rules import check_pool, check_stand_ins
from .redis_place import is_redis_url, parse_redis_url
from .sandbox_settings import SandboxSettings
from .webhooks import check_webhook_url, secret_bytes


class GatewaySettings(BaseModel):
    """The HTTP doors."""

    model_config = ConfigDict(
        extra="forbid", use_attribute_docstrings=True, frozen=True, allow_inf_nan=False, hide_input_in_errors=True
    )

    host: str = "127.0.0.1"
    """Address to listen on. One that other machines can reach needs an API key to exist (`k2think keys create`)."""
    port: int = Field(default=8400, ge=0, le=65_535)
    """Port to listen on; 0 = any free one, told in the log."""
    trusted_proxies: str = "127.0.0.1"
    """Addresses or networks of proxies whose X-Forwarded-Proto is believed, separated by commas; * = whoever calls."""
    files_dir: Path | None = None
    """Folder of uploaded and produced files, shared by all gateways; None = `files` in the data folder."""
    body_bytes_max: int = Field(default=4_000_000, ge=1_000)
    """Bytes of a request's body at most (uploads have their own limit)."""
    file_bytes_max: int = Field(default=200_000_000, ge=1)
    """Bytes of an uploaded file at most."""
    batch_lines_max: int = Field(default=50_000, ge=1)
    """Lines of a batch's input at most."""
    line_bytes_max: int = Field(default=1_000_000, ge=100)
    """Bytes of one line of a batch's input at most."""
    batch_window: int = Field(default=500, ge=1)
    """Unfinished jobs that one batch has in the queues at once; the rest waits in the database."""
    keepalive_s: float = Field(default=10.0, gt=0)
    """Seconds of silence after which a stream sends a comment, so that nothing on the way closes it."""
    webhook_url: str | None = Field(default=None, pattern=r"^https?://\S+$")
    """Where notices of finished jobs and batches go, for tenants without a target of their own. None = nowhere."""
    webhook_secret: SecretStr | None = None
    """Secret that signs them, as whsec_ and base64 (`openai` verifies them with the same one)."""
    webhook_attempts_max: int = Field(default=10, ge=1, le=100)
    """Tries of one notice before it is given up; the back-off doubles from 2 s to an hour."""

    @field_validator("trusted_proxies")
    @classmethod
    def _addresses(cls, value: str) -> str:
        for part in value.split(",") if value != "*" else ():
            ipaddress.ip_network(part.strip())
        return value

    @field_validator("webhook_url")
    @classmethod
    def _postable(cls, value: str | None) -> str | None:
        return None if value is None else check_webhook_url(value)

    @field_validator("webhook_secret")
    @classmethod
    def _signs(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            secret_bytes(value.get_secret_value())
        return value


class LogFormat(StrEnum):
    """Form of the log lines."""

    console = "console"
    json = "json"


def _data_dir() -> Path:
    return Path.home() / ".local" / "share" / "k2think"


class Settings(BaseSettings):
    """All settings. With none set, everything runs embedded on this machine."""

    model_config = SettingsConfigDict(
        env_prefix="K2THINK_",
        env_nested_delimiter="__",
        env_file=".env",
        # Compose files hand down what is not set as an empty text.
        env_ignore_empty=True,
        extra="ignore",
        use_attribute_docstrings=True,
        frozen=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
    )

    data_dir: Path = Field(default_factory=_data_dir)
    """Folder of the embedded database, Redis and logs."""
    database_url: SecretStr | None = None
    """SQLAlchemy URL: sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME. None = SQLite in the data folder."""
    database_connections: int = Field(default=4, ge=1, le=100)
    """PostgreSQL: connections of one process, besides one for heartbeats. More processes need a greater max_connections."""
    database_pooled: bool = False
    """Whether a pooler that gives each transaction another session, such as PgBouncer in transaction mode, is before it."""
    broker_url: SecretStr | None = None
    """Redis: redis://HOST:PORT/DB, rediss://…, redis+socket://PATH, redis+sentinel://HOST,HOST/NAME. None = an embedded one."""
    result_backend_url: SecretStr | None = None
    """Celery result backend of the callers of the Celery door. None = the broker's Redis."""

    planner: RoleSettings | None = None
    """Backend of the planner; None = the generator's."""
    generator: RoleSettings = RoleSettings()
    """Backend of the generators."""
    verifier: RoleSettings | None = None
    """Backend of the verifier; None = the generator's."""
    safety: RoleSettings | None = None
    """Guard model of the safety agent; None = rules only."""
    backends: dict[BackendName, BackendSettings] = {}
    """Named backends, as JSON: {"fast": {"backend": "cerebras", "model": "…"}, …}. It goes before the file, field by field."""
    backends_file: Path | None = None
    """TOML file of named backends, a table for each: [fast] backend = "cerebras" …"""

    safety_fail_open: bool = False
    """Let text pass when a screening fails. Off = such text is withheld."""

    sandbox: SandboxSettings = SandboxSettings()
    """Where code answers run. Without a sandbox that works they are not run at all."""

    gateway: GatewaySettings = GatewaySettings()
    """The HTTP doors."""

    lease_s: float = Field(default=10.0, gt=0)
    """Seconds that a claim lasts without a heartbeat: how soon the work of a dead worker is taken up again."""
    heartbeat_s: float = Field(default=2.0, gt=0)
    """Seconds between heartbeats; well below lease_s."""
    alive_file: Path | None = None
    """File that a process touches with each heartbeat, for whoever restarts those that hang. None = none."""
    sweep_s: float = Field(default=0.25, gt=0)
    """Seconds between two rounds of the sweeper."""
    attempts_max: int = Field(default=3, ge=1, le=20)
    """Starts of one step after which it goes to the dead letters."""
    retry_base_s: float = Field(default=1.0, gt=0)
    """Back-off after a step's first failure, doubled each time, with jitter."""
    shutdown_s: float = Field(default=5.0, ge=0)
    """Seconds that a worker told to stop lets running steps finish before it hands them back."""
    queue_max: int = Field(default=100_000, ge=1)
    """Unfinished jobs above which no new ones are accepted."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Lowest level that is logged."""
    log_format: LogFormat = LogFormat.console
    """Form of the log lines on standard error."""

    otlp_endpoint: str | None = Field(default=None, pattern=r"^https?://\S+$")
    """OpenTelemetry collector that takes spans over HTTP, such as http://127.0.0.1:4318. None = no spans are made."""

    cerebras_api_key: SecretStr | None = Field(default=None, validation_alias="CEREBRAS_API_KEY")
    """The variable that Cerebras' own SDK reads."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the file of backends last: what the environment says goes before it."""
        return init_settings, env_settings, dotenv_settings, file_secret_settings, BackendsFile(settings_cls)

    @field_validator("data_dir")
    @classmethod
    def _home(cls, value: Path) -> Path:
        return value.expanduser()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.heartbeat_s * 2 > self.lease_s:
            raise ValueError(
                "K2THINK_HEARTBEAT_S must be at most half of K2THINK_LEASE_S, or leases run out while work goes on"
            )
        url = self.database_url.get_secret_value() if self.database_url else ""
        if url and not url.startswith(("sqlite:///", "postgresql://", "postgresql+psycopg://")):
            raise ValueError("K2THINK_DATABASE_URL must begin with sqlite:/// or postgresql://")
        if self.broker_url is not None:
            _check_redis_url("K2THINK_BROKER_URL", self.broker_url.get_secret_value())
        results = self.result_backend_url.get_secret_value() if self.result_backend_url else ""
        if is_redis_url(results):
            _check_redis_url("K2THINK_RESULT_BACKEND_URL", results)
        check_pool(self.backends)
        for role in ("planner", "generator", "verifier", "safety"):
            chosen: RoleSettings | None = getattr(self, role)
            if (
                chosen is not None
                and chosen.backend not in BackendKind.__members__
                and chosen.backend not in self.backends
            ):
                known = ", ".join([*BackendKind.__members__, *sorted(self.backends)])
                raise ValueError(
                    f"K2THINK_{role.upper()}__BACKEND: unknown backend {chosen.backend!r}; choose one of {known}"
                )
            if chosen is not None and chosen.backend in BackendKind.__members__:
                check_stand_ins(f"K2THINK_{role.upper()}", chosen, self.backends)
        return self

    def role(self, agent: AgentKind) -> RoleSettings | None:
        """Return the settings of an agent's backend; None = the agent needs no model (safety without a guard)."""
        if agent is AgentKind.safety:
            return self.safety
        own = {AgentKind.planner: self.planner, AgentKind.verifier: self.verifier}.get(agent)
        return own or self.generator

    def backend(self, name: str) -> BackendSettings:
        """Return a named backend, or the role settings of a kind; raise ConfigurationError for an unknown name."""
        if name in self.backends:
            return self._placed(self.backends[name])
        known = ", ".join(sorted(self.backends)) or "none"
        raise ConfigurationError(f"unknown backend {name!r}: K2THINK_BACKENDS has {known}")

    @property
    def generator_names(self) -> list[str]:
        """What a request may ask for as its backend: the named backends, then their classes."""
        classes = {word for backend in self.backends.values() for word in backend.classes}
        return [*sorted(self.backends), *sorted(classes)]

    def names_of(self, name: str) -> tuple[str, ...]:
        """Return what a request may call a named backend: its name and its classes. Raises ConfigurationError."""
        return (name, *self.backend(name).classes)

    def serving(self, name: str) -> list[str]:
        """Return the named backends that serve this name: the one of that name, or those of the class. Empty = none does."""
        return [name] if name in self.backends else sorted(n for n, one in self.backends.items() if name in one.classes)

    def resolve(self, role: RoleSettings) -> BackendSettings:
        """Follow a role's reference into K2THINK_BACKENDS; a role that names a kind is its own backend."""
        if role.backend in BackendKind.__members__:
            return self._placed(role)
        return self.backend(str(role.backend))

    def _placed(self, backend: BackendSettings) -> BackendSettings:
        """Turn the name of a model in the data folder into its folder; it goes before a folder where the process happens to run."""
        name = backend.model
        if backend.backend != BackendKind.openvino or name in (None, BUNDLED_MODEL) or name.startswith((".", "/", "~")):
            return backend
        folder = self.models_dir / name
        return backend.model_copy(update={"model": str(folder)}) if folder.is_dir() else backend

    @property
    def models_dir(self) -> Path:
        """Folder of the embedded engine's downloaded and converted models."""
        return self.data_dir / "models"

    @property
    def files_dir(self) -> Path:
        """Folder of uploaded and produced files."""
        return (self.gateway.files_dir or self.data_dir / "files").expanduser()

    @property
    def sqlalchemy_url(self) -> str:
        """The database as SQLAlchemy wants it."""
        if self.database_url is None:
            return f"sqlite:///{self.data_dir / 'k2think.db'}"
        url = self.database_url.get_secret_value()
        return url.replace("postgresql://", "postgresql+psycopg://", 1)


@cache
def load_settings() -> Settings:
    """Read the settings once; raise ConfigurationError that names each wrong variable."""
    return read_settings()


def read_settings(**fields: Any) -> Settings:
    """Read the settings afresh; raise ConfigurationError that names each wrong variable.

    `fields`: values that go before the environment's, field by field, inside of roles and backends, too.
    """
    try:
        return Settings(**fields)
    except ValidationError as exc:
        raise ConfigurationError(_explain(exc)) from exc
    except SettingsError as exc:
        # The field's name is in the message only.
        field = re.search(r'field "(\w+)"', str(exc))
        variable = _variable((field[1],)) if field else "a variable"
        raise ConfigurationError(f"{variable}: not valid JSON ({exc.__cause__ or exc})") from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigurationError(f"the file .env cannot be read: {exc}") from exc


def _check_redis_url(variable: str, url: str) -> None:
    try:
        parse_redis_url(url)
    except ValueError as exc:
        reason = str(exc)
    else:
        return
    # Outside the handler, so that no traceback carries the text with its password.
    raise ValueError(f"{variable}: {reason}")


def _explain(exc: ValidationError) -> str:
    lines: list[str] = []
    for error in exc.errors(include_url=False, include_input=False, include_context=False):
        text = error["msg"].removeprefix("Value error, ")
        lines.append(f"{_variable(error['loc'])}: {text}" if error["loc"] else text)
    return "\n".join(lines)


def _variable(place: tuple[str | int, ...]) -> str:
    """Name the variable that sets the field at this place; inside K2THINK_BACKENDS also the place in its JSON."""
    first, *rest = (str(part) for part in place)
    if first == "backends" and rest:
        return f"K2THINK_BACKENDS: {'.'.join(part for part in rest if part != '[key]')}"
    return "K2THINK_" + "__".join((first, *rest)).upper()
