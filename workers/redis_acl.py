"""What each kind of process may do in Redis, as users of its access control lists: enough for its work and no more.

No one of them may empty Redis, list its keys, read or set its settings, or end others' connections. The tests run the whole
system under these users.
"""

import hashlib
from dataclasses import dataclass

from ..schemas.messages import AgentKind
from .doorbells import OWN_CHANNEL
from .limits import KEY_PREFIX as LIMITS_PREFIX
from .queues import CANCEL_CHANNEL, INTAKE, JOB_CHANNEL_PREFIX, REQUESTS_PREFIX

_STEPS = tuple(f"{agent.value}*" for agent in AgentKind)
"""Keys of the queues of steps: with a name after a dot, and with a priority."""
_INTAKE = f"{INTAKE}*"
_BINDINGS = "_kombu.*"
_RESULTS = "celery-task-meta-*"
_LIMITS = f"{LIMITS_PREFIX}*"
_BELLS = f"{JOB_CHANNEL_PREFIX}*"
_CONNECT = ("hello", "ping", "select", "client|setname", "info", "multi", "exec")
"""INFO: the check of durability asks it."""
_RING = ("lpush", "llen", "publish")
_RECEIVE = ("brpop", "rpush", "llen", "sadd", "smembers")
_KEEP = (
    *("hset", "hget", "hdel", "zadd", "zrem", "zrange", "watch", "unwatch"),
    *("set", "get", "del", "evalsha", "script|load"),
)
"""kombu's record of what was fetched and not acknowledged, under a lock."""
_LIMIT = ("evalsha", "script|load", "get", "set", "expire", "zadd", "zrem", "zcard", "zremrangebyscore", "time")
_ANSWER = ("get", "set", "setex", "publish")
_LISTEN = ("subscribe", "unsubscribe")


@dataclass(frozen=True, slots=True)
class AclUser:
    """One user of Redis."""

    name: str
    """Under which its processes connect."""
    serves: str
    """Which processes these are."""
    commands: tuple[str, ...]
    """What it may call, in lower case; COMMAND|SUBCOMMAND for one form of a command."""
    keys: tuple[str, ...] = ()
    """Patterns of the keys that it may touch."""
    channels: tuple[str, ...] = ()
    """Patterns of the channels that it may publish on and listen to."""

    def line(self, password: str) -> str:
        """Return the user's line in an ACL file; of the password it holds the digest."""
        digest = hashlib.sha256(password.encode()).hexdigest()
        keys = [f"~{pattern}" for pattern in self.keys]
        channels = [f"&{pattern}" for pattern in self.channels]
        commands = [f"+{command}" for command in dict.fromkeys(self.commands)]
        return " ".join(
            ["user", self.name, "on", f"#{digest}", "resetkeys", "resetchannels", *keys, *channels, "-@all", *commands]
        )


USERS = (
    AclUser(
        "k2think-worker",
        "workers of the roles planner, generator, verifier and safety",
        (*_CONNECT, *_RECEIVE, *_RING, *_LIMIT, *_ANSWER, *_LISTEN),
        (*_STEPS, _BINDINGS, _LIMITS, _RESULTS),
        (CANCEL_CHANNEL, _BELLS, _RESULTS),
    ),
    AclUser(
        "k2think-intake",
        "workers of the role intake",
        (*_CONNECT, *_RECEIVE, *_RING, *_KEEP, *_ANSWER, *_LISTEN),
        (_INTAKE, *_STEPS, _BINDINGS, "unacked*", _RESULTS),
        (CANCEL_CHANNEL, OWN_CHANNEL, _BELLS, _RESULTS),
    ),
    AclUser(
        "k2think-gateway",
        "gateways, and the command line",
        (*_CONNECT, *_RING, *_LISTEN, "incrby", "decrby", "expire", "get"),
        (*_STEPS, _INTAKE, _BINDINGS, f"{REQUESTS_PREFIX}*"),
        (CANCEL_CHANNEL, OWN_CHANNEL, _BELLS),
    ),
    AclUser(
        "k2think-sweeper",
        "sweepers",
        (*_CONNECT, *_RING, *_ANSWER, "pubsub|numsub"),
        (*_STEPS, _BINDINGS, _RESULTS),
        (CANCEL_CHANNEL, _BELLS, _RESULTS),
    ),
    AclUser(
        "k2think-caller",
        "Celery applications that send k2think.solve and read its result",
        (*_CONNECT, "lpush", "llen", "sadd", "smembers", "get", "mget", "del", *_LISTEN),
        (_INTAKE, _BINDINGS, _RESULTS),
        (_RESULTS,),
    ),
    AclUser("admin", "you: everything, by redis-cli", ("@all",), ("*",), ("*",)),
)
"""All users but the default one, which is switched off."""
REPLICATION_USERS = (
    AclUser(
        "sentinel",
        "Sentinels (`sentinel auth-user`, `sentinel auth-pass`)",
        (
            *("multi", "slaveof", "ping", "exec", "subscribe", "publish", "info", "role", "config|rewrite"),
            *("client|setname", "client|kill", "script|kill"),
        ),
        (),
        ("*",),
    ),
    AclUser("replica", "replicas (`masteruser`, `masterauth`)", ("psync", "replconf", "ping")),
)
"""Users that Redis' own processes need where there is more than one of them."""
DEFAULT_USER_OFF = "user default off"
