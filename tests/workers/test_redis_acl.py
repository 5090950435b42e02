"""The users of `k2think redis acl`: the whole system works under them, and none may do more than its work needs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
import redis
from celery import Celery
from harness.cli import Cli
from harness.gateway import RunningGateway
from harness.processes import running_roles
from harness.server import serving
from harness.stack import clean_environment
from k2think.agents.backends.simulator import SimulatedEngine, SolvingResponder
from k2think.workers.redis_acl import REPLICATION_USERS, USERS
from kombu.connection import Connection

if TYPE_CHECKING:
    from conftest import RedisServer

pytestmark = pytest.mark.timeout(180)
WORKERS = ("planner", "generator", "verifier", "safety")
FORBIDDEN = (
    "FLUSHALL",
    "FLUSHDB",
    "CONFIG GET maxmemory",
    "CONFIG SET maxmemory 1",
    "KEYS *",
    "SCAN 0",
    "RANDOMKEY",
    "DEBUG SLEEP 0",
    "SHUTDOWN NOSAVE",
    "CLIENT LIST",
    "CLIENT KILL TYPE normal",
    "ACL LIST",
    "MONITOR",
    "REPLICAOF NO ONE",
    "RENAME planner stolen",
    "EVAL return(1) 0",
    "GET someone-elses",
    "SUBSCRIBE someone-elses",
    "PUBLISH someone-elses x",
)


@pytest.fixture(scope="module")
def passwords(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The passwords of an ACL file, and under "" the file itself."""
    folder = tmp_path_factory.mktemp("acl")
    cli = Cli(folder, clean_environment())
    done = cli.run("redis", "acl", "--output", "users.acl", "--replication", "--json")
    assert done.returncode == 0, done.stderr
    return {**json.loads(done.stdout), "": str(folder / "users.acl")}


@pytest.fixture
def guarded(new_redis_server: Callable[..., RedisServer], passwords: dict[str, str]) -> RedisServer:
    """A Redis with these users and no other."""
    return new_redis_server("--aclfile", passwords[""], login=("admin", passwords["admin"]))


def url_of(server: RedisServer, user: str, passwords: dict[str, str]) -> str:
    return f"redis+socket://{user}:{quote(passwords[user], safe='')}@{server.socket}?virtual_host=0"


@pytest.fixture
def admin(guarded: RedisServer, passwords: dict[str, str]) -> Iterator[redis.Redis]:
    with redis.Redis(unix_socket_path=str(guarded.socket), username="admin", password=passwords["admin"]) as client:
        yield client


def test_the_whole_system_works_under_its_users(
    guarded: RedisServer, admin: redis.Redis, passwords: dict[str, str], tmp_path: Path
) -> None:
    solver = SolvingResponder(accuracy=0.5, reasoning_tokens=5)  # so that judges are asked, too
    with serving(solver, engine=SimulatedEngine(slots=64, token_s=0.0)) as server:
        common = {
            "K2THINK_DATA_DIR": str(tmp_path),
            "K2THINK_GENERATOR__BACKEND": "openai",
            "K2THINK_GENERATOR__BASE_URL": server.url,
            "K2THINK_GENERATOR__MODEL": "simulated",
            "K2THINK_GENERATOR__REQUESTS_PER_MINUTE": "100000",
            "K2THINK_SHUTDOWN_S": "1",
        }

        def variables(user: str) -> dict[str, str]:
            return {**common, "K2THINK_BROKER_URL": url_of(guarded, user, passwords)}

        gateway = RunningGateway(tmp_path, url_of(guarded, "k2think-gateway", passwords))
        key = gateway.key("lab")
        gateway.limit("lab", requests_per_minute=6)
        roles = {role: variables("k2think-worker") for role in WORKERS}
        roles |= {"intake": variables("k2think-intake"), "sweeper": variables("k2think-sweeper")}
        with running_roles(tmp_path, roles) as commands, gateway, gateway.client(key) as client:
            assert client.get("/health/ready").status_code == 200
            body = {"model": "k2think", "messages": [{"role": "user", "content": "What is 347 + 58?"}]}
            answers = [client.post("/v1/chat/completions", json=body) for _ in range(8)]
            assert [answer.status_code for answer in answers] == [200] * 6 + [429] * 2
            job = answer_of_celery(url_of(guarded, "k2think-caller", passwords))
            assert job["status"] == "succeeded"
            assert "celery_queue_length" in gateway_metrics(gateway)
        logs = {role: command.lines("service_unavailable") for role, command in commands.items()}
        assert not any(logs.values()), logs
        assert not any(command.lines("durability_at_risk") for command in commands.values()), "INFO is allowed"
    denied = {f"{entry['object']} by {entry['username']}" for entry in admin.acl_log(count=1000)}
    assert {what for what in denied if not what.startswith("client")} == set()


def answer_of_celery(url: str) -> dict[str, Any]:
    """Send a task as some other service would, and wait for its result."""
    app = Celery("other-service", broker=url, backend=url, set_as_current=False)
    try:
        return app.send_task("k2think.solve", [{"problem": "What is 347 + 58?"}], queue="intake").get(timeout=60)
    finally:
        app.close()


def gateway_metrics(gateway: RunningGateway) -> str:
    from k2think.schemas.doors import KeyScope

    with gateway.client(gateway.key(scope=KeyScope.metrics)) as client:
        return client.get("/metrics").text


def test_an_intake_worker_may_return_what_a_dead_one_had_fetched(
    guarded: RedisServer, admin: redis.Redis, passwords: dict[str, str]
) -> None:
    options = {"visibility_timeout": 0.1, "unacked_restore_throttle": 1}
    url = url_of(guarded, "k2think-intake", passwords)
    with (
        Connection(url, transport="k2think.workers.transport:Transport", transport_options=options) as connection,
        connection.SimpleQueue("intake") as queue,
    ):
        queue.put({"problem": "?"})
        queue.get(timeout=5)
        assert admin.llen("intake") == 0
        time.sleep(0.2)
        queue.channel.qos.restore_visible()
        assert admin.llen("intake") == 1
        assert admin.hlen("unacked") == 0
    assert not [entry for entry in admin.acl_log() if not entry["object"].startswith("client")]


@pytest.mark.parametrize("user", [user.name for user in USERS if user.name != "admin"])
def test_no_process_may_do_more(guarded: RedisServer, admin: redis.Redis, passwords: dict[str, str], user: str) -> None:
    admin.set("someone-elses", "x")
    with redis.Redis(unix_socket_path=str(guarded.socket), username=user, password=passwords[user]) as client:
        assert client.ping()
        for command in FORBIDDEN:
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command(*command.split())
    assert admin.get("someone-elses") == b"x"


def test_without_a_user_nothing_is_told(guarded: RedisServer) -> None:
    with (
        redis.Redis(unix_socket_path=str(guarded.socket)) as client,
        pytest.raises(redis.AuthenticationError, match="authenticate"),
    ):
        client.get("planner")


def test_the_file_holds_no_password_and_is_for_its_owner_alone(passwords: dict[str, str]) -> None:
    file = Path(passwords[""])
    assert file.stat().st_mode & 0o777 == 0o600
    text = file.read_text()
    names = [user.name for user in (*USERS, *REPLICATION_USERS)]
    assert [line.split()[1] for line in text.splitlines()] == ["default", *names]
    assert not [name for name in names if passwords[name] in text]
    again = Cli(file.parent, clean_environment()).run("redis", "acl", "--output", file.name)
    assert again.returncode == 2
    assert "exists already" in again.stderr
    assert file.read_text() == text


def test_without_a_file_the_lists_are_standard_output_and_the_passwords_are_not(tmp_path: Path) -> None:
    done = Cli(tmp_path, clean_environment()).run("redis", "acl")
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["user"] * (1 + len(USERS))
    told = [line.split()[:2] for line in done.stderr.splitlines()]
    assert [name for name, _ in told] == [user.name for user in USERS]
    assert not [password for _, password in told if password in done.stdout]
    nowhere = Cli(tmp_path, clean_environment()).run("redis", "acl", "--output", "none/users.acl")
    assert nowhere.returncode == 2
    assert "cannot be written" in nowhere.stderr
