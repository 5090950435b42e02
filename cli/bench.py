"""`k2think bench …`: how fast a backend is, what we cost on top of it, and what it could reach."""

import asyncio
import dataclasses
import os
import platform
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from ..schemas.backend_settings import BackendKind, BackendSettings
from ..schemas.errors import ConfigurationError, InvalidRequest
from ..schemas.messages import AgentKind
from ..schemas.settings import Settings, load_settings
from .terminal import print_json

STREAMS_MAX = 4096
LEVELS_MAX = 16

bench_app = typer.Typer(help="Measure: backends, beside a bare client of each.", no_args_is_help=True)


@bench_app.callback()
def group() -> None:
    """Measure: backends, beside a bare client of each."""


@bench_app.command("backend")
def bench_backend(
    name: Annotated[
        str,
        typer.Argument(
            help="A backend of K2THINK_BACKENDS, a role (planner, generator, verifier, safety), or a kind "
            "(openvino, openai, cerebras, vllm, vllm_engine)."
        ),
    ],
    streams: Annotated[str, typer.Option(metavar="LIST", help="Numbers of calls at once, one level each.")] = "1,2,4,8",
    prompt_tokens: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Tokens of a prompt, roughly: four characters each.")
    ] = 64,
    output_tokens: Annotated[int, typer.Option(min=1, max=1_000_000, help="Tokens of a completion at most.")] = 128,
    calls: Annotated[int, typer.Option(min=1, max=10_000, help="Calls of each stream in a round.")] = 4,
    rounds: Annotated[
        int, typer.Option(min=1, max=1_000, help="Rounds of a level. An even number is fair to both clients.")
    ] = 4,
    temperature: Annotated[float, typer.Option(min=0.0, max=2.0, help="Softmax temperature; 0 = greedy.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Of prompts and sampling.")] = 0,
    bare: Annotated[bool, typer.Option(help="Run a bare client in turns with ours, to tell our overhead.")] = True,
    base_url: Annotated[
        str | None, typer.Option(metavar="URL", help="Root of the server, instead of the settings'.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model name or folder, instead of the settings'.")] = None,
    memory_bandwidth: Annotated[
        float | None,
        typer.Option(
            min=0.001, metavar="GB/S", help="Of the memory that holds the model. Embedded: measured if not given."
        ),
    ] = None,
    model_size: Annotated[
        float | None,
        typer.Option(
            min=0.000001, metavar="GB", help="Weights that a step reads. Embedded: the model folder's if not given."
        ),
    ] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.svg", help="Also draw the figures.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with every round.")] = False,
) -> None:
    """Measure a backend over more and more streams: time to first token, tokens per second, acceptance of drafts.

    Our client makes the calls as the agents do, and in turns with it a bare one makes the same calls.
    Bare is an aiohttp loop for servers, Cerebras' own SDK, or a plain loop over openvino-genai.
    Overhead is the share of the bare client's throughput that ours lacks; it should be at most 3 %.
    On a machine that does other work meanwhile it is mostly noise: look at the rounds in --json.

    The embedded engine is measured without and with speculation, each on an engine of its own.
    A server is measured as it is; whether it speculates is told where it tells.

    The limit is what the memory allows without speculation: bandwidth over the bytes of the weights, times the streams.
    It is known where --memory-bandwidth and --model-size are, and always for the embedded engine.

    The calls are real: on a paid backend they cost money and quota. How many there will be is said first.
    Limits that the workers share are not heeded.

    Exit code: 0 when figures were measured, 1 when the backend failed, 2 for bad usage or settings.

    Examples:

      k2think bench backend openvino

      k2think bench backend generator --streams 1,8,64 --output-tokens 512 --plot figures.svg

      k2think bench backend vllm --base-url http://gpu-1:8000/v1 --memory-bandwidth 3350 --model-size 16 --json
    """
    from ..agents.bench.load import Load
    from ..agents.bench.run import Target, measure_backend
    from .bench_plot import drawn
    from .bench_text import report_lines
    from .progress import Stages

    levels = levels_of(streams)
    if plot is not None:
        check_plot(plot)
    settings = load_settings()
    chosen = chosen_backend(settings, name)
    changed = {field: value for field, value in (("base_url", base_url), ("model", model)) if value is not None}
    if changed:
        chosen = _changed(chosen, changed)
    load = Load(levels, prompt_tokens, output_tokens, calls, rounds, temperature, seed)
    target = Target(
        name=name,
        settings=chosen,
        cerebras_api_key=settings.cerebras_api_key,
        bandwidth_bytes_per_s=None if memory_bandwidth is None else memory_bandwidth * 1e9,
        model_bytes=None if model_size is None else round(model_size * 1e9),
        with_bare=bare,
    )
    with Stages(quiet=False) as stages:
        tokens = load.calls_in_all * (prompt_tokens + output_tokens)
        stages.note(f"each client makes {load.calls_in_all:,} calls, of about {tokens:,} tokens at most")
        report = asyncio.run(measure_backend(target, load, progress=stages.note))
    values: dict[str, Any] = {
        "backend": name,
        "kind": str(BackendKind(chosen.backend)),
        "measured_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": {"cpus": len(os.sched_getaffinity(0)), "system": platform.platform()},
        "load": dataclasses.asdict(load),
        **dataclasses.asdict(report),
    }
    if as_json:
        print_json(values)
    else:
        print(
            "\n".join(report_lines(report, load, title=f"{name} ({BackendKind(chosen.backend)}), model {report.model}"))
        )
    if plot is not None:
        plot.write_text(drawn(report, title=f"{name}: {report.model}"), encoding="utf-8")
        print(f"drawn to {plot}", file=sys.stderr)


def levels_of(text: str) -> tuple[int, ...]:
    """Read a list of numbers of streams. Raises InvalidRequest."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdecimal() and 1 <= int(part[:9]) <= STREAMS_MAX for part in parts):
        raise InvalidRequest(
            f"--streams: {text!r} is no list of numbers from 1 to {STREAMS_MAX:,} with commas between, such as 1,2,4,8"
        )
    levels = tuple(sorted({int(part) for part in parts}))
    if len(levels) > LEVELS_MAX:
        raise InvalidRequest(f"--streams: at most {LEVELS_MAX} levels")
    return levels


def check_plot(path: Path) -> None:
    """Refuse a file that could not be written, before an hour of measuring. Raises InvalidRequest."""
    if path.suffix.lower() != ".svg":
        raise InvalidRequest(f"--plot: {path.name!r} must end in .svg, the one form that is drawn")
    folder = path.absolute().parent
    if not folder.is_dir():
        raise InvalidRequest(f"--plot: there is no folder {folder}; make it first")
    if path.is_dir() or not os.access(path if path.exists() else folder, os.W_OK):
        raise InvalidRequest(f"--plot: {path} cannot be written")


def chosen_backend(settings: Settings, name: str) -> BackendSettings:
    """Return the settings that a name stands for. Raises ConfigurationError."""
    if name in settings.backends:
        return settings.backend(name)
    roles = {str(agent): settings.role(agent) for agent in AgentKind}
    if name in roles:
        role = roles[name]
        if role is None:
            raise ConfigurationError("the safety agent has no model (rules only): set K2THINK_SAFETY__… to give it one")
        return settings.resolve(role)
    if name in BackendKind.__members__:
        resolved = [settings.resolve(role) for role in roles.values() if role is not None]
        return next((one for one in resolved if one.backend == name), BackendSettings(backend=BackendKind(name)))
    if serving := settings.serving(name):
        raise ConfigurationError(f"{name!r} is a class of backends: name one of them ({', '.join(serving)})")
    known = ", ".join([*sorted(settings.backends), *roles, *BackendKind.__members__])
    raise ConfigurationError(f"unknown backend {name!r}: choose one of {known}")


def _changed(chosen: BackendSettings, changed: dict[str, str]) -> BackendSettings:
    """Return the settings with these fields instead. Raises InvalidRequest."""
    if "base_url" in changed and not changed["base_url"].startswith(("http://", "https://")):
        raise InvalidRequest("--base-url must begin with http:// or https://")
    return chosen.model_copy(update=changed)
