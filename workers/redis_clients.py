"""Every connection to Redis is made here: to a server, a Unix socket, or the master that Sentinels name; in the clear or by TLS.

redis-py knows Sentinels by a class of its own, kombu and Celery by URLs and options of theirs; our callers know one URL.
"""

import os
import ssl
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import redis
import redis.asyncio
import redis.asyncio.retry
import redis.asyncio.sentinel
import redis.sentinel
from redis.backoff import NoBackoff
from redis.retry import Retry

from ..schemas.errors import ConfigurationError
from ..schemas.redis_place import RedisPlace, Tls, is_redis_url, parse_redis_url

SENTINEL_TIMEOUT_S = 2.0
"""For one Sentinel to answer; then the next one is asked."""


@dataclass(frozen=True, slots=True)
class CeleryPlace:
    """Where Redis is, as kombu and Celery take it."""

    url: str
    """Of the server or socket; of Sentinels one after the other."""
    ssl: dict[str, Any] | None
    """`ssl` of a kombu connection, `broker_use_ssl` and `redis_backend_use_ssl` of Celery; None = not encrypted."""
    options: dict[str, Any]
    """To be added to the transport's options."""


def redis_client(url: str, **options: Any) -> redis.Redis:
    """Return a client that has not connected yet; `options` are those of a connection. Raises ConfigurationError."""
    place = _place(url)
    options = _login_options(place) | options
    if place.master is not None:
        manager = redis.sentinel.Sentinel(
            place.hosts, sentinel_kwargs=_sentinel_options(place) | {"retry": Retry(NoBackoff(), 0)}
        )
        return manager.master_for(place.master, redis.Redis, **_master_tls(place), **options)
    if place.socket is not None:
        options |= {"connection_class": redis.UnixDomainSocketConnection, "path": place.socket}
    else:
        host, port = place.hosts[0]
        options |= {"host": host, "port": port}
    if place.tls is not None:
        options |= {"connection_class": redis.SSLConnection, **_tls_options(place.tls)}
    return redis.Redis.from_pool(redis.ConnectionPool(**options))


def async_redis_client(url: str, **options: Any) -> redis.asyncio.Redis:
    """As `redis_client`, for an event loop."""
    place = _place(url)
    options = _login_options(place) | options
    if place.master is not None:
        no_retry = redis.asyncio.retry.Retry(NoBackoff(), 0)
        manager = redis.asyncio.sentinel.Sentinel(
            list(place.hosts), sentinel_kwargs=_sentinel_options(place) | {"retry": no_retry}
        )
        options |= _master_tls(place)
        return manager.master_for(place.master, redis.asyncio.Redis, connection_pool_class=_SentinelPool, **options)
    if place.socket is not None:
        options |= {"connection_class": redis.asyncio.UnixDomainSocketConnection, "path": place.socket}
    else:
        host, port = place.hosts[0]
        options |= {"host": host, "port": port}
    if place.tls is not None:
        options |= {"connection_class": redis.asyncio.SSLConnection, **_tls_options(place.tls)}
    return redis.asyncio.Redis.from_pool(redis.asyncio.ConnectionPool(**options))


def celery_place(url: str) -> CeleryPlace:
    """Return a URL of Redis as kombu and Celery take it; one of another kind stays as it is. Raises ConfigurationError."""
    if not is_redis_url(url):
        return CeleryPlace(url, None, {})
    place = _place(url)
    tls = None if place.tls is None else _tls_options(place.tls)
    login = _login(place)
    if place.socket is not None:
        return CeleryPlace(f"redis+socket://{login}{quote(place.socket)}?virtual_host={place.db}", None, {})
    if place.master is None:
        return CeleryPlace(f"redis://{login}{_address(*place.hosts[0])}/{place.db}", tls, {})
    urls = [f"sentinel://{login}{_address(*host)}/{place.db}" for host in place.hosts]
    sentinel_options = _sentinel_options(place) | {"retry": Retry(NoBackoff(), 0)}
    return CeleryPlace(";".join(urls), tls, {"master_name": place.master, "sentinel_kwargs": sentinel_options})


class _SentinelPool(redis.asyncio.sentinel.SentinelConnectionPool):
    """Closes the connections to the Sentinels, too."""

    async def aclose(self) -> None:
        await super().aclose()
        for sentinel in self.sentinel_manager.sentinels:
            await sentinel.aclose()


def _place(url: str) -> RedisPlace:
    try:
        return parse_redis_url(url)
    except ValueError as exc:
        reason = str(exc)
    # Outside the handler, so that no traceback carries the text with its password.
    raise ConfigurationError(f"the URL of Redis cannot be used: {reason}")


def _login_options(place: RedisPlace) -> dict[str, Any]:
    return {"db": place.db, "username": place.username, "password": place.password}


def _master_tls(place: RedisPlace) -> dict[str, Any]:
    return {} if place.tls is None else {"ssl": True, **_tls_options(place.tls)}


def _sentinel_options(place: RedisPlace) -> dict[str, Any]:
    times = {"socket_timeout": SENTINEL_TIMEOUT_S, "socket_connect_timeout": SENTINEL_TIMEOUT_S}
    login = {"username": place.sentinel_username, "password": place.sentinel_password}
    return times | login | _master_tls(place)


def _tls_options(tls: Tls) -> dict[str, Any]:
    files = {"ssl_ca_certs": tls.ca_file, "ssl_certfile": tls.cert_file, "ssl_keyfile": tls.key_file}
    for name, path in files.items():
        # Else it would look like a Redis that is away, and be waited for.
        if path is not None and not os.access(path, os.R_OK):
            raise ConfigurationError(f"the URL of Redis cannot be used: {name}={path} is no file that can be read")
    return {
        **{name: path for name, path in files.items() if path is not None},
        "ssl_cert_reqs": ssl.CERT_REQUIRED if tls.verified else ssl.CERT_NONE,
        "ssl_check_hostname": tls.check_hostname and tls.verified,
    }


def _login(place: RedisPlace) -> str:
    if place.password is None:
        return ""
    return f"{quote(place.username or '', safe='')}:{quote(place.password, safe='')}@"


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
