"""Sandboxes for tests: what a machine has that a program must not reach, sandboxes with holes, and a SandboxFusion."""

import asyncio
import base64
import contextlib
import json
import os
import socket
import subprocess
import tempfile
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

from k2think.grading.sandboxes.base import Program, SandboxLimits
from k2think.grading.sandboxes.bubblewrap import BubblewrapSandbox
from k2think.grading.sandboxes.local import Command, LocalSandbox

ATTEMPTS = Path(__file__).with_name("escape_attempts.py")


@dataclass
class Machine:
    """What an escape would find: servers that answer, a secret file, and a process that can be killed."""

    mark: str
    secret_file: Path
    unix_socket: Path
    ports: tuple[int, int, int]
    victim: "subprocess.Popen[bytes]"

    @property
    def arguments(self) -> tuple[str, ...]:
        """The command line of the attempts."""
        return (
            self.mark, str(self.secret_file), str(self.unix_socket), f"k2think-{self.mark}", *map(str, self.ports),
            str(self.victim.pid),
        )  # fmt: skip


@contextlib.contextmanager
def machine() -> Iterator[Machine]:
    """A machine to break out to. Its secret is readable for all: not rights protect it, the sandbox does."""
    mark = os.urandom(8).hex()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="k2escape-", dir="/tmp")))
        folder.chmod(0o755)
        secret = folder / "secret"
        secret.write_text(mark)
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        unix = stack.enter_context(socket.socket(socket.AF_UNIX))
        unix.bind(str(folder / "door"))
        (folder / "door").chmod(0o777)
        abstract = stack.enter_context(socket.socket(socket.AF_UNIX))
        abstract.bind(f"\0k2think-{mark}")
        for server in (unix, abstract):
            server.listen()
        udp = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(2)]
        stop = threading.Event()
        for link in udp:
            link.bind(("127.0.0.1", 0))
            link.settimeout(0.1)
            thread = threading.Thread(target=_echo, args=(link, stop))
            thread.start()
            stack.callback(thread.join)
        stack.callback(stop.set)
        victim = subprocess.Popen(["sleep", "300"], env={"PATH": os.environ["PATH"], "MARK": mark})
        stack.callback(victim.wait)
        stack.callback(victim.kill)
        ports = tuple(link.getsockname()[1] for link in (tcp, *udp))
        yield Machine(mark, secret, folder / "door", ports, victim)  # type: ignore[arg-type]


def _echo(link: socket.socket, stop: threading.Event) -> None:
    while not stop.is_set():
        with contextlib.suppress(TimeoutError):
            content, sender = link.recvfrom(1000)
            link.sendto(b"heard " + content, sender)


def attempts(of: Machine) -> Program:
    """The program that tries to break out."""
    return Program({"attempts.py": ATTEMPTS.read_text()}, "attempts.py", of.arguments)


async def seen_by(sandbox: LocalSandbox, of: Machine, limits: SandboxLimits) -> dict[str, dict[str, Any]]:
    """Run the attempts; what each saw."""
    run = await sandbox.run(attempts(of), stdin="", limits=limits)
    assert run.outcome == "ok", (run.outcome, run.stderr)
    return json.loads(run.stdout)


class LeakySandbox(BubblewrapSandbox):
    """bubblewrap with the walls torn down, one by one, that the tests are to notice."""

    def __init__(self, *, mark: str = "") -> None:
        super().__init__()
        self._mark = mark

    @asynccontextmanager
    async def command(self, program: Program, limits: SandboxLimits) -> AsyncGenerator[Command]:
        """The real command line without its walls."""
        async with super().command(program, limits) as command:
            words = list(command.words)
            while "--remount-ro" in words:
                place = words.index("--remount-ro")
                del words[place : place + 2]
            place = words.index("--seccomp")
            del words[place : place + 2]
            place = words.index("--unshare-all")
            words[place : place + 1] = ["--unshare-user", "--unshare-uts"]
            size = words.index("--size")
            words[size : size + 4] = ["--bind", "/tmp", "/tmp", "--setenv", "LEAKED", self._mark]
            yield Command(words, command.descriptors)


class _Container(BubblewrapSandbox):
    """Stands for one of SandboxFusion's containers: new processes are allowed, and work is done in the files' folder."""

    @asynccontextmanager
    async def command(self, program: Program, limits: SandboxLimits) -> AsyncGenerator[Command]:
        async with super().command(program, limits) as command:
            words = list(command.words)
            place = words.index("--seccomp")
            del words[place : place + 2]
            place = words.index("--chdir")
            del words[place : place + 2]
            end = words.index("--")
            yield Command([*words[:end], "--chdir", "/code", *words[end:]], command.descriptors)


class FusionServer:
    """Speaks the wire format of SandboxFusion's `POST /run_code` and really runs the code, in bubblewrap.

    `faults` are answers for the first requests: a status, or a body instead of a result.
    """

    def __init__(self, *faults: int | dict[str, Any] | bytes) -> None:
        self.requests: list[dict[str, Any]] = []
        self._faults = list(faults)
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(200 if self.path == "/v1/ping" else 404, b'"pong"')

            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                assert self.path == "/run_code"
                server.requests.append(request)
                fault = server._faults.pop(0) if server._faults else None
                if isinstance(fault, int):
                    return self._answer(fault, b"{}")
                if fault is not None:
                    return self._answer(200, fault if isinstance(fault, bytes) else json.dumps(fault).encode())
                return self._answer(200, json.dumps(server.run(request)).encode())

            def _answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def run(self, request: dict[str, Any]) -> dict[str, Any]:
        """What the server answers, in its own words."""
        assert request["language"] == "python"
        files = {name: base64.b64decode(content).decode() for name, content in request["files"].items()}
        program = Program({**files, "run_by_the_server.py": request["code"]}, "run_by_the_server.py")
        limits = SandboxLimits(wall_s=request["run_timeout"], memory_bytes=request["memory_limit_MB"] * 2**20)
        done = asyncio.run(_Container().run(program, stdin=request["stdin"] or "", limits=limits))
        late = done.outcome == "timeout"
        result = {
            "status": "TimeLimitExceeded" if late else "Finished",
            "execution_time": done.wall_s,
            "return_code": None if late else done.exit_code,
            "stdout": done.stdout,
            "stderr": done.stderr,
        }
        status = "Success" if done.outcome == "ok" else "Failed"
        return {
            "status": status, "message": "", "compile_result": None, "run_result": result, "executor_pod_name": None,
            "files": {},
        }  # fmt: skip

    def __enter__(self) -> "FusionServer":
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
