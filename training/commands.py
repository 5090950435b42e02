"""Commands of the recipe: train on this machine, or write what a cluster trains with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .extras import require

TRL_MODULES = ("torch", "transformers", "trl", "datasets", "yaml")
CHECK_MODULES = ("transformers", "yaml")
"""What looking at a configuration needs."""
EXPORT_MODULES = ("pyarrow", "yaml")

ConfigFile = Annotated[Path, typer.Argument(dir_okay=False, help="Configuration; configs/ holds some to begin with.")]
Resume = Annotated[bool, typer.Option(help="Go on from the newest whole checkpoint in run.out.")]
Check = Annotated[bool, typer.Option(help="Check configuration, data, model folder and lengths, and train nothing.")]
Out = Annotated[Path, typer.Option(file_okay=False, help="Folder to write.")]


def sft(config: ConfigFile, resume: Resume = False, check: Check = False) -> None:
    """Fine-tune a model on conversations, on this machine (TRL)."""
    require(CHECK_MODULES if check else TRL_MODULES, "train")
    from .config import SftConfig
    from .config_file import load_config
    from .sft import look_at, train_sft

    read = load_config(config, SftConfig)
    if check:
        typer.echo(look_at(read).described(read))
        return
    typer.echo(f"model folder: {train_sft(read, resume=resume)}")


def grpo(config: ConfigFile, resume: Resume = False, check: Check = False) -> None:
    """Let a model learn from verifiable rewards, on this machine (TRL)."""
    require(CHECK_MODULES if check else TRL_MODULES, "train")
    from .config import GrpoConfig
    from .config_file import load_config
    from .grpo import look_at, train_grpo

    read = load_config(config, GrpoConfig)
    if check:
        typer.echo(look_at(read).described(read))
        return
    typer.echo(f"model folder: {train_grpo(read, resume=resume)}")


def export_verl(config: ConfigFile, out: Out) -> None:
    """Write what verl trains with on a Ray cluster, from a configuration of `grpo`.

    OUT gets the command, the problems as Parquet, and the entry point of the reward.
    """
    require(EXPORT_MODULES, "train")
    from .config import GrpoConfig
    from .config_file import load_config
    from .export.verl import export

    typer.echo(export(load_config(config, GrpoConfig), out))


def export_llamafactory(config: ConfigFile, out: Out) -> None:
    """Write what LLaMA-Factory trains with on a cluster, from a configuration of `sft`.

    OUT gets its YAML, its dataset_info.json, the conversations in ShareGPT's form, and DeepSpeed's ZeRO-3 file.
    """
    require(EXPORT_MODULES, "train")
    from .config import SftConfig
    from .config_file import load_config
    from .export.llamafactory import export

    typer.echo(export(load_config(config, SftConfig), out))


def mini_data(
    out: Out,
    examples: Annotated[int, typer.Option(min=1, help="Conversations to imitate.")] = 2000,
    tasks: Annotated[int, typer.Option(min=1, help="Problems to solve.")] = 2000,
    held_out: Annotated[int, typer.Option(min=1, help="Of each kind, from the held-out side.")] = 64,
    seed: Annotated[int, typer.Option(help="Seed of what is drawn.")] = 1,
) -> None:
    """Write typed sets of k2think-mini's own problems, to try `sft` and `grpo` with."""
    from .mini.typed import write_sets

    for path, count in write_sets(out, examples=examples, tasks=tasks, held_out=held_out, seed=seed).items():
        typer.echo(f"{path}: {count}")
