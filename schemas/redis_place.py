"""Where Redis is, read from one URL: a server, a Unix socket, or the Sentinels that know which server is the master."""

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

SCHEMES = ("redis", "rediss", "redis+socket", "redis+sentinel", "rediss+sentinel")
REDIS_PORT = 6379
SENTINEL_PORT = 26379
_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_TLS = (*_FILES, "ssl_check_hostname", "ssl_cert_reqs")
_WORDS = {"ssl_check_hostname": ("true", "false"), "ssl_cert_reqs": ("required", "none")}
_SENTINEL_LOGIN = ("sentinel_username", "sentinel_password")
_URL = re.compile(rf"({'|'.join(re.escape(scheme) for scheme in SCHEMES)})://", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Tls:
    """How a connection is encrypted. The server's certificate is checked unless said otherwise."""

    ca_file: str | None = None
    """PEM file of the authorities that are believed; None = those of the system."""
    cert_file: str | None = None
    """PEM file of our own certificate, for a server that asks for one; None = none is shown."""
    key_file: str | None = None
    """PEM file of its private key; None = it is in `cert_file`."""
    check_hostname: bool = True
    """Whether the certificate must be for the name by which the server is called. Sentinels often tell addresses."""
    verified: bool = True
    """Whether the server's certificate is checked at all."""


@dataclass(frozen=True, slots=True)
class RedisPlace:
    """What a URL of Redis says."""

    hosts: tuple[tuple[str, int], ...] = ()
    """(name, port) of the server, or of the Sentinels; empty = a Unix socket."""
    socket: str | None = None
    """Path of a Unix socket."""
    master: str | None = None
    """Name under which the Sentinels watch the server; None = no Sentinels, `hosts` is the server itself."""
    db: int = 0
    """Number of the database."""
    username: str | None = None
    """ACL user; None = the default one."""
    password: str | None = field(default=None, repr=False)
    """None = none needed."""
    sentinel_username: str | None = None
    """ACL user on the Sentinels, which have users of their own; None = the default one."""
    sentinel_password: str | None = field(default=None, repr=False)
    """None = none needed."""
    tls: Tls | None = None
    """None = not encrypted. Counts for the server and for its Sentinels."""


def is_redis_url(url: str) -> bool:
    """Whether a URL is of one of the schemes that are read here."""
    return _URL.match(url) is not None


def parse_redis_url(url: str) -> RedisPlace:
    """Read a URL. Raises ValueError, with what is wrong and without the password."""
    matched = _URL.match(url)
    if matched is None:
        raise ValueError(f"must begin with {', '.join(f'{scheme}://' for scheme in SCHEMES[:-1])} or {SCHEMES[-1]}://")
    scheme = matched[1].lower()
    # Not by the port that urlsplit finds: there may be many hosts.
    parts = urlsplit("//" + url[matched.end() :].replace("#", "%23"))
    login, _, places = parts.netloc.rpartition("@")
    user, _, password = (unquote(part) for part in login.partition(":"))
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    tls = _read_tls(options) if scheme.startswith("rediss") else None
    common = {"username": user or None, "password": password or None, "tls": tls}
    if scheme == "redis+socket":
        _only(options, ("virtual_host",))
        if places or len(parts.path) < 2:
            raise ValueError("write the path of the socket after three slashes: redis+socket:///run/redis.sock")
        number = _number(options.get("virtual_host", "0"))
        return RedisPlace(socket=unquote(parts.path), db=number, **common)  # pyright: ignore[reportArgumentType]
    path = unquote(parts.path).strip("/")
    if scheme.endswith("+sentinel"):
        _only(options, ("db", *_SENTINEL_LOGIN, *(_TLS if tls else ())))
        if not path:
            raise ValueError(f"name the master after the Sentinels: {scheme}://HOST:{SENTINEL_PORT},…/NAME")
        return RedisPlace(
            hosts=tuple(_host(place, SENTINEL_PORT) for place in places.split(",")),
            master=path,
            db=_number(options.get("db", "0")),
            sentinel_username=options.get("sentinel_username"),
            sentinel_password=options.get("sentinel_password"),
            **common,  # pyright: ignore[reportArgumentType]
        )
    _only(options, ("db", *(_TLS if tls else ())))
    if "," in places:
        raise ValueError(f"one server only; Sentinels are written {scheme}+sentinel://HOST,HOST,…/NAME")
    number = _number(options.get("db") or path or "0")
    return RedisPlace(hosts=(_host(places, REDIS_PORT),), db=number, **common)  # pyright: ignore[reportArgumentType]


def _host(text: str, default_port: int) -> tuple[str, int]:
    parts = urlsplit(f"//{text.strip()}")
    try:
        name, port = parts.hostname, parts.port
    except ValueError:
        name, port = None, None
    if not name:
        raise ValueError("a host is missing or its port is no number: write HOST or HOST:PORT")
    return unquote(name), port or default_port


def _number(text: str) -> int:
    if not text.isdecimal():
        raise ValueError("the database must be a number, 0 or more")
    return int(text)


def _only(options: dict[str, str], known: tuple[str, ...]) -> None:
    unknown = sorted(set(options) - set(known))
    if unknown:
        # What looks like no option may be a piece of a password that was not encoded.
        name = repr(unknown[0]) if re.fullmatch(r"[a-z_]{2,30}", unknown[0]) else "(are user and password URL-encoded?)"
        raise ValueError(f"unknown option {name}; this kind of URL takes {', '.join(known)}")


def _read_tls(options: dict[str, str]) -> Tls:
    for name, words in _WORDS.items():
        if options.get(name, words[0]).lower() not in words:
            raise ValueError(f"{name} must be {' or '.join(words)}")
    ca_file, cert_file, key_file = (options.get(name) or None for name in _FILES)
    if key_file and not cert_file:
        raise ValueError("ssl_keyfile needs ssl_certfile, the certificate that it belongs to")
    return Tls(
        ca_file=ca_file,
        cert_file=cert_file,
        key_file=key_file,
        check_hostname=options.get("ssl_check_hostname", "true").lower() == "true",
        verified=options.get("ssl_cert_reqs", "required").lower() == "required",
    )
