"""What every process does before it begins: see that database and Redis keep what they are given.

A service that is away is waited for, as later. One whose settings would lose work is refused in one line.
"""

import os
import signal
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import redis
import structlog
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError
from redis.retry import Retry

from ..schemas.errors import BrokerUnavailable, ConfigurationError, StoreFull, StoreUnavailable
from ..schemas.settings import Settings
from ..store.durability import Fault, Weight, database_faults
from ..store.migrate import require_current
from .outage import DATABASE, REDIS, WAIT_MAX_S, outage_of
from .queues import broker_url
from .redis_clients import redis_client

REDIS_VERSION_MIN = (6, 2)
"""Oldest Redis that the tests run on."""
REDIS_TIMEOUT_S = 5.0
log = structlog.stdlib.get_logger(__name__)


def wait_for_database(settings: Settings) -> None:
    """Wait until the database can be written, then see that it is of this version and keeps its commits.

    Raises SchemaMismatch, ConfigurationError.
    """
    outage = outage_of(DATABASE)
    while True:
        try:
            require_current(settings.sqlalchemy_url)
            require_durable_database(settings)
        except (StoreUnavailable, StoreFull) as exc:
            outage.lost(exc)
            time.sleep(WAIT_MAX_S)
        else:
            outage.back()
            return


def require_durable_database(settings: Settings) -> None:
    """Raise ConfigurationError for a database that may lose commits, StoreUnavailable for one that takes none."""
    faults = database_faults(settings.sqlalchemy_url, pooled=settings.database_pooled)
    _refuse(faults)
    for fault in faults:
        if fault.weight is Weight.awaited:
            raise StoreUnavailable(str(fault))
    _warn(faults)


def require_durable_broker(settings: Settings) -> None:
    """Raise ConfigurationError for a Redis that may lose messages, BrokerUnavailable for one that takes none.

    Raises RedisError or OSError where it cannot be reached.
    """
    faults = _ask_redis(broker_url(settings))
    _refuse(faults)
    for fault in faults:
        if fault.weight is Weight.awaited:
            raise BrokerUnavailable(str(fault))
    _warn(faults)


def redis_faults(info: Mapping[str, Any], *, variable: str = "K2THINK_BROKER_URL") -> list[Fault]:
    """Judge what INFO says, which managed services allow where they forbid CONFIG."""
    faults: list[Fault] = []
    if int(info.get("cluster_enabled", 0)):
        what = "Celery cannot use a Redis Cluster"
        faults.append(Fault(Weight.refused, what, f"set {variable} to a single Redis, not in cluster mode"))
    policy = info.get("maxmemory_policy")
    if policy is None:
        fix = "make sure that its maxmemory-policy is noeviction"
        faults.append(Fault(Weight.risk, "Redis does not say whether it evicts messages", fix))
    elif policy != "noeviction":
        what = f"Redis evicts messages when its memory is full (maxmemory-policy {policy})"
        fix = "set it to noeviction (CONFIG SET, redis.conf, or the parameters of a managed Redis)"
        faults.append(Fault(Weight.refused, what, fix))
    if info.get("role") == "slave":
        what = "this Redis is a replica and takes no writes"
        faults.append(Fault(Weight.awaited, what, f"point {variable} at the primary"))
    version = str(info.get("redis_version", "0"))
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < REDIS_VERSION_MIN:
        wanted = ".".join(map(str, REDIS_VERSION_MIN))
        faults.append(Fault(Weight.risk, f"Redis {version} is older than {wanted}", "use a newer one"))
    return faults


class BrokerCheck:
    """A context manager: sees once that Redis keeps what it is sent; where it is away, as soon as it is back.

    Nobody waits for that, since a gateway accepts jobs without Redis and a sweeper ends them. A Redis that comes back and
    turns out to lose messages ends this process as SIGTERM would, and leaving raises ConfigurationError.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._outage = outage_of(REDIS)
        self._left = threading.Event()
        self._refused: ConfigurationError | None = None

    def __enter__(self) -> None:
        if not self._passed():
            threading.Thread(target=self._wait, name="k2think-broker-check", daemon=True).start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left.set()
        if self._refused is not None:
            raise self._refused

    def _passed(self) -> bool:
        """Whether it was seen; False = it is away, or cannot be written."""
        try:
            require_durable_broker(self._settings)
        except (BrokerUnavailable, redis.RedisError, OSError) as exc:
            self._outage.lost(exc)
            return False
        self._outage.back()
        return True

    def _wait(self) -> None:
        try:
            while not self._left.wait(WAIT_MAX_S):
                if self._passed():
                    return
        except ConfigurationError as exc:
            self._refused = exc
            log.error("cannot_run", reason=str(exc))
            os.kill(os.getpid(), signal.SIGTERM)


def _ask_redis(url: str) -> list[Fault]:
    """Raises RedisError, OSError where it cannot be reached."""
    with redis_client(
        url,
        socket_timeout=REDIS_TIMEOUT_S,
        socket_connect_timeout=REDIS_TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
        decode_responses=True,
    ) as client:
        try:
            return redis_faults(client.info())
        except NoPermissionError:
            what = "Redis does not let us see its settings (INFO)"
            return [Fault(Weight.risk, what, "make sure that its maxmemory-policy is noeviction")]


def _refuse(faults: list[Fault]) -> None:
    refused = [str(fault) for fault in faults if fault.weight is Weight.refused]
    if refused:
        raise ConfigurationError("; ".join(refused))


def _warn(faults: list[Fault]) -> None:
    for fault in faults:
        if fault.weight is Weight.risk:
            log.warning("durability_at_risk", reason=fault.what, hint=fault.fix)
