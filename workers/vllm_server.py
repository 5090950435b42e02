"""`k2think vllm up`: a vLLM server kept alive: ready when it answers, started again when it dies, ended with its children."""

import asyncio
import collections
import http.client
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

from pydantic import SecretStr

from ..agents.backends.base import WARNING
from ..agents.backends.vllm import VllmBackend
from ..agents.backends.vllm_options import said
from ..schemas.backend_settings import BackendKind, BackendSettings
from ..schemas.errors import BackendError, ConfigurationError
from ..schemas.settings import Settings
from .children import Child
from .logs import configure_logs
from .stack import prepare_data_dir
from .supervisor import USAGE_EXIT_CODE, Supervisor
from .vllm_command import VllmServer

POLL_S = 0.5
PROGRESS_S = 10.0
"""Seconds between two lines that tell how far the start is."""
STOP_TIMEOUT_S = 30.0
"""Seconds that the server gets to end its own children and streams."""
HEALTHY_S = 600.0
"""A server that lived this long starts again without back-off: loading a large model takes minutes."""
LAST_LINES = 15
"""Lines of the server's log that are shown when it does not come up."""
Say = Callable[[str], None]


def run_vllm(settings: Settings, server: VllmServer, *, api_key: str | None, say: Say) -> int:
    """Start the server, wait until it is ready, tell the settings that use it, keep it until SIGTERM or SIGINT.

    Returns the exit code. Raises ConfigurationError for a port that is taken, a wrong model folder, or a server that ended
    before it was ready. `say` takes lines for the user.
    """
    configure_logs(settings, role="vllm")
    command = server.command()
    check_port(server)
    log_file = prepare_data_dir(settings) / f"vllm-{server.port}.log"
    log_file.write_bytes(b"")
    # Not on the command line, where every user of the machine could read it.
    environment = {} if api_key is None else {"VLLM_API_KEY": api_key}
    child = Child("vllm", command, environment, output=log_file, whole_group=True)
    supervisor = Supervisor([child], stop_timeout_s=STOP_TIMEOUT_S, healthy_s=HEALTHY_S)
    watch = _Watch(server, child, log_file, api_key=api_key, say=say, give_up=supervisor.stop)

    def stop(*_: object) -> None:
        watch.look_away()
        supervisor.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    say(f"Starting vLLM {said(server.version)} with {server.model}; its log is {log_file}")
    watch.start()
    code = supervisor.run()
    watch.stop()
    if watch.failure is not None or (code == USAGE_EXIT_CODE and not watch.was_ready):
        raise ConfigurationError(f"vLLM ended while it started; the last lines of its log:\n{last_lines(log_file)}")
    return code


def check_port(server: VllmServer) -> None:
    """Raise ConfigurationError when the server could not listen."""
    family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((server.host, server.port))
        except OSError as exc:
            raise ConfigurationError(
                f"cannot listen on {server.host} port {server.port} ({exc.strerror or exc}): choose another with --port, or, "
                f"if a vLLM server runs there, use it with K2THINK_GENERATOR__BACKEND=vllm and "
                f"K2THINK_GENERATOR__BASE_URL={server.url}"
            ) from exc


def last_lines(log_file: Path) -> str:
    """Return the end of the server's log, indented."""
    with log_file.open(encoding="utf-8", errors="replace") as lines:
        kept = collections.deque((line.rstrip() for line in lines if line.strip()), maxlen=LAST_LINES)
    return "\n".join(f"  {line}" for line in kept) or "  (it is empty)"


class _Watch:
    """Sees in a thread of its own whether the server is ready, and whether what was asked for is on."""

    def __init__(
        self,
        server: VllmServer,
        child: Child,
        log_file: Path,
        *,
        api_key: str | None,
        say: Say,
        give_up: Callable[[], None],
    ) -> None:
        self.was_ready = False
        self.failure: str | None = None
        """Why it never became ready; None = it did, or was not waited for to the end."""
        self._server = server
        self._child = child
        self._log_file = log_file
        self._api_key = api_key
        self._say = say
        self._give_up = give_up
        self._stopping = threading.Event()
        self._first: int | None = None
        self._thread = threading.Thread(target=self._run, name="k2think-vllm-watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def look_away(self) -> None:
        """What ends from now on was told to."""
        self._stopping.set()

    def stop(self) -> None:
        self.look_away()
        self._thread.join(POLL_S)

    def _run(self) -> None:
        told: int | None = None
        began = said_at = time.monotonic()
        while not self._stopping.wait(POLL_S):
            pid = self._child.pid
            if pid is None or pid == told:
                continue
            if self._never_came_up(pid):
                self.failure = "ended before it was ready"
                self._give_up()
                return
            if self._healthy():
                self._tell_ready(seconds=time.monotonic() - began)
                told, self.was_ready = pid, True
            elif time.monotonic() - said_at >= PROGRESS_S:
                said_at = time.monotonic()
                self._say(f"  {said_at - began:4.0f} s: {last_lines(self._log_file).splitlines()[-1].strip()[:150]}")

    def _never_came_up(self, pid: int) -> bool:
        """Whether the first process is gone; a later one that dies is the supervisor's to start again."""
        if self.was_ready or self._stopping.is_set():
            return False
        self._first = self._first or pid
        return pid != self._first or self._child.exit_code() is not None

    def _healthy(self) -> bool:
        link = http.client.HTTPConnection(self._server.address, timeout=2)
        try:
            link.request("GET", "/health")
            return link.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            link.close()

    def _tell_ready(self, *, seconds: float) -> None:
        if self.was_ready:
            self._say("vLLM is ready again.")
            return
        try:
            facts = asyncio.run(self._probe())
        except (BackendError, ConfigurationError) as exc:
            self._say(f"vLLM is up after {seconds:.0f} s, but does not serve as it should: {exc}")
            return
        context = facts.get("context", "").partition(" ")[0].replace(",", "")
        variables = self._server.settings(
            context_tokens=int(context) if context.isdigit() else None, max_tokens_default=BackendSettings().max_tokens
        )
        shown = "\n".join(f"  {name}={value}" for name, value in variables.items())
        key = "" if self._api_key is None else "\n  K2THINK_GENERATOR__API_KEY=(the key you gave)"
        what = ", ".join(f"{name} {text}" for name, text in facts.items() if name not in ("address", "model", WARNING))
        self._say(f"vLLM is ready after {seconds:.0f} s: {self._server.name} at {self._server.url} ({what})")
        if WARNING in facts:
            self._say(f"Warning: {facts[WARNING]}")
        self._say(f"Use it with:\n{shown}{key}")

    async def _probe(self) -> dict[str, str]:
        key = None if self._api_key is None else SecretStr(self._api_key)
        speculation = self._server.speculation
        settings = BackendSettings(
            backend=BackendKind.vllm,
            base_url=self._server.url,
            model=self._server.name,
            api_key=key,
            speculative=None if speculation is None else str(speculation),
            max_tokens=1,
        )
        backend = VllmBackend(settings, name="vllm")
        try:
            return await backend.probe()
        finally:
            await backend.aclose()
