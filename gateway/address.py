"""Where a gateway listens, and what keeps it from doing so. Loads no web framework: `up` looks before it starts anything."""

import ipaddress
import socket

from ..schemas.errors import ConfigurationError
from ..schemas.settings import GatewaySettings, Settings
from ..store.database import database_of
from ..store.deliveries import check_webhook_settings
from ..store.keys import any_valid_key

BACKLOG = 2048


def check_gateway(settings: Settings) -> None:
    """Raise ConfigurationError for what would keep a gateway from starting. The database must have its tables."""
    check_webhook_settings(settings)
    require_key(settings)
    listen(settings.gateway).close()


def is_loopback(host: str) -> bool:
    """Whether an address or name to listen on is reached from this machine only."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host.lower() == "localhost"
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def require_key(settings: Settings) -> None:
    """An address that other machines can reach wants a key. Raises ConfigurationError while there is none."""
    host = settings.gateway.host
    if is_loopback(host):
        return
    database = database_of(settings)
    try:
        known = database.read_sync(lambda connection: any_valid_key(connection, now=database.now()))
    finally:
        database.close()
    if not known:
        raise ConfigurationError(
            f"the gateway would listen on {host}, which other machines may reach, and no valid API key exists: make one "
            "with `k2think keys create`, or set K2THINK_GATEWAY__HOST to 127.0.0.1"
        )


def listen(gateway: GatewaySettings) -> socket.socket:
    """Return the socket that takes the connections. Raises ConfigurationError when the address cannot be had."""
    family = socket.AF_INET6 if ":" in gateway.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((gateway.host, gateway.port))
        listener.listen(BACKLOG)
    except OSError as exc:
        listener.close()
        raise ConfigurationError(
            f"the gateway cannot listen on {gateway.host} port {gateway.port} ({exc.strerror or exc}): "
            "set K2THINK_GATEWAY__HOST or K2THINK_GATEWAY__PORT (0 = any free port)"
        ) from exc
    return listener
