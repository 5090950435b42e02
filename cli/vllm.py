"""`k2think vllm up`: a vLLM server with the right flags, kept alive."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from ..schemas.errors import ConfigurationError
from ..schemas.settings import load_settings
from ..schemas.speculation import WORDS, Speculation

vllm_app = typer.Typer(help="A vLLM server for the generators.", no_args_is_help=True)


@vllm_app.callback()
def group() -> None:
    """A vLLM server for the generators."""


@vllm_app.command("up")
def vllm_up(
    model: Annotated[str, typer.Argument(help="Model folder in Hugging Face's form, or a model's name there.")],
    extra: Annotated[
        list[str] | None, typer.Argument(help="After --: further arguments of `vllm serve`, passed on as they are.")
    ] = None,
    speculative: Annotated[str | None, typer.Option(metavar="KIND", help=f"Speculative decoding: {WORDS}.")] = None,
    speculative_tokens: Annotated[
        int, typer.Option(min=0, max=64, help="Tokens of a draft; 0 = 4 for ngram and draft, 3 for eagle, 1 for mtp.")
    ] = 0,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Port to listen on.")] = 8000,
    served_name: Annotated[
        str | None, typer.Option(help="Name of the model at the server. Default: MODEL's last part.")
    ] = None,
    tensor_parallel: Annotated[int, typer.Option(min=1, help="GPUs over which the model is spread.")] = 1,
    max_model_len: Annotated[
        int | None, typer.Option(min=1, help="Tokens of prompt and completion at most. Default: the model's own limit.")
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(envvar="VLLM_API_KEY", help="Key that the server is to ask for. Better in the variable."),
    ] = None,
    vllm: Annotated[
        Path | None, typer.Option(help="vLLM's program. Default: this environment's `vllm`, else the first on PATH.")
    ] = None,
    print_only: Annotated[bool, typer.Option("--print", help="Print the command line and start nothing.")] = False,
) -> None:
    """Start a vLLM server, wait until it is ready, print the settings that use it, keep it alive until Ctrl-C.

    It gets the flags that the installed version understands, for prefix caching, speculation and figures with each reply.
    Whether speculation is on, and samples as the model would, is asked of the server itself.

    A server that dies is started again with back-off. All its processes end with this command.

    Examples:

      k2think vllm up Qwen/Qwen3-8B --speculative ngram

      k2think vllm up ./model --speculative draft:./small --tensor-parallel 4 -- --gpu-memory-utilization 0.8
    """
    from ..workers.vllm_command import VllmServer, ask_version, find_program

    try:
        speculation = None if speculative is None else Speculation.read(speculative)
    except ValueError as exc:
        raise ConfigurationError(f"--speculative: {exc}") from exc
    program = find_program(vllm)
    server = VllmServer(
        program=program,
        version=ask_version(program),
        model=model,
        name=served_name or Path(model).expanduser().resolve().name,
        host=host,
        port=port,
        speculation=speculation,
        speculative_tokens=speculative_tokens,
        tensor_parallel=tensor_parallel,
        context_tokens=max_model_len,
        extra=tuple(extra or ()),
    )
    if print_only:
        print(shlex.join(server.command()))
        return
    from ..workers.vllm_server import run_vllm

    raise typer.Exit(run_vllm(load_settings(), server, api_key=api_key, say=_say))


def _say(line: str) -> None:
    print(line, flush=True)
