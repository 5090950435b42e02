"""SandboxFusion over HTTP (github.com/bytedance/SandboxFusion): `POST /run_code`, whose fields are below.

Code runs wherever that server is, as walled off as the server makes it: how well is its operator's concern. Both
interpreters of :meth:`run_pair` share one of its containers, so that an answer written to attack it may reach the tests.
"""

from __future__ import annotations

import base64
import time
import urllib.error
import urllib.request
from importlib import resources
from typing import Any, Literal

import aiohttp
from pydantic import BaseModel, ConfigDict, ValidationError

from ...schemas.errors import SandboxUnavailable
from ...schemas.sandbox_settings import SandboxKind
from .base import Outcome, Program, SandboxLimits, SandboxResult, as_bytes, refuse_too_long, require_runnable

PROBE_TIMEOUT_S = 10.0
QUEUE_S = 60.0
"""Seconds that a request may wait in the server, besides the program's own time."""
_ANSWER_BYTES_MAX = 64_000_000
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""No proxy from the environment: the programs' requests take none, either."""


class _Wire(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)


class CommandRunResult(_Wire):
    """What one command of the server's did."""

    status: Literal["Finished", "Error", "TimeLimitExceeded"]
    """Error = the server could not run it."""
    return_code: int | None = None
    """Exit status; None = it has none."""
    stdout: str | None = None
    """Standard output."""
    stderr: str | None = None
    """Standard error."""


class RunCodeResponse(_Wire):
    """The server's answer."""

    status: Literal["Success", "Failed", "SandboxError"]
    """SandboxError = nothing is known about the program."""
    message: str = ""
    """Why, for SandboxError."""
    run_result: CommandRunResult | None = None
    """The program's run; None = there was none."""


class FusionSandbox:
    """Runs each program by a request of its own."""

    def __init__(self, url: str) -> None:
        self._url = url

    @property
    def kind(self) -> SandboxKind:
        """Which one it is."""
        return SandboxKind.fusion

    def problem(self) -> str:
        """Whether the server answers, asked anew each time: it may come and go. A program is not run for that."""
        try:
            # SandboxFusion's own path for this; one that is not served is an answer of a server, too.
            with _OPENER.open(f"{self._url}/v1/ping", timeout=PROBE_TIMEOUT_S):
                return ""
        except urllib.error.HTTPError as exc:
            with exc:
                return "" if exc.code < 500 else f"the SandboxFusion server at {self._url} answers {exc.code}"
        except (OSError, ValueError) as exc:
            reason = getattr(exc, "reason", exc)
            return (
                f"the SandboxFusion server at {self._url} cannot be reached ({reason}); K2THINK_SANDBOX__URL names it"
            )

    async def run(self, program: Program, *, stdin: str, limits: SandboxLimits, renewals: int = 0) -> SandboxResult:
        """Run one program; see :class:`~.base.Sandbox`. The server keeps one clock: renewals lengthen it."""
        return refuse_too_long(program) or await self._run(program, stdin, limits, renewals)

    async def _run(self, program: Program, stdin: str, limits: SandboxLimits, renewals: int = 0) -> SandboxResult:
        started = time.monotonic()
        seconds = limits.wall_s * (1 + renewals)
        request = {
            "language": "python",
            "code": program.files[program.main],
            "files": {
                name: base64.b64encode(as_bytes(text)).decode()
                for name, text in program.files.items()
                if name != program.main
            },
            "stdin": stdin,
            "compile_timeout": seconds,
            "run_timeout": seconds,
            "memory_limit_MB": limits.memory_bytes // (1024 * 1024),
        }
        answer = await self._post(request, seconds + QUEUE_S)
        ran = answer.run_result
        if answer.status == "SandboxError" or ran is None or ran.status == "Error":
            raise SandboxUnavailable(
                f"code was not run: the SandboxFusion server at {self._url} failed: {answer.message[:300] or 'no reason told'}"
            )
        return _result(ran, limits, time.monotonic() - started)

    async def run_pair(self, tests: Program, answer: Program, *, limits: SandboxLimits) -> SandboxResult:
        """Run tests and answer in one container; see :class:`~.base.Sandbox`."""
        require_runnable(tests)
        if (refused := refuse_too_long(answer)) is not None:
            return refused
        starter = resources.files("k2think.grading.inside").joinpath("pair.py").read_text(encoding="utf-8")
        both = Program({**tests.files, **answer.files, "pair.py": starter}, "pair.py")
        return await self._run(both, "", limits)

    async def _post(self, request: dict[str, Any], timeout_s: float) -> RunCodeResponse:
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=timeout_s)) as session,
                session.post(f"{self._url}/run_code", json=request) as response,
            ):
                body = await response.content.read(_ANSWER_BYTES_MAX)
                if response.status != 200:
                    raise SandboxUnavailable(
                        f"code was not run: the SandboxFusion server at {self._url} answers {response.status}"
                    )
            return RunCodeResponse.model_validate_json(body)
        except (TimeoutError, aiohttp.ClientError, OSError) as exc:
            raise SandboxUnavailable(
                f"code was not run: the SandboxFusion server at {self._url} cannot be reached "
                f"({type(exc).__name__}: {exc}); K2THINK_SANDBOX__URL names it"
            ) from exc
        except ValidationError as exc:
            raise SandboxUnavailable(
                f"code was not run: what answers at {self._url} does not speak SandboxFusion's run_code"
            ) from exc


def _result(ran: CommandRunResult, limits: SandboxLimits, wall_s: float) -> SandboxResult:
    out, err = ran.stdout or "", ran.stderr or ""
    outcome: Outcome
    code = ran.return_code if ran.return_code is not None else -1
    if ran.status == "TimeLimitExceeded":
        outcome, code = "timeout", -1
    elif max(len(out), len(err)) > limits.output_bytes:
        outcome, code = "output_limit", -1
    else:
        outcome = "ok" if code == 0 else "failed"
    return SandboxResult(outcome, code, out[: limits.output_bytes], err[: limits.output_bytes], wall_s)
