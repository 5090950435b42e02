"""``k2think train``: makes and measures models. Heavy imports wait until a command needs them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from . import commands
from .data import commands as data_commands
from .extras import require

TRAINING_MODULES = ("torch", "openvino")
CONVERSION_MODULES = ("torch", "transformers", "optimum", "openvino", "openvino_tokenizers")
EXPORT_MODULES = ("openvino", "safetensors")
EVALUATION_MODULES = ("openvino_genai",)

app = typer.Typer(help="Train and evaluate models.", no_args_is_help=True)
app.command()(data_commands.convert)
app.command()(data_commands.mix)
app.command(name="from-log")(data_commands.from_log)
app.command()(commands.sft)
app.command()(commands.grpo)
app.command(name="export-verl")(commands.export_verl)
app.command(name="export-llamafactory")(commands.export_llamafactory)
app.command(name="mini-data")(commands.mini_data)


@app.callback()
def _group() -> None:  # pyright: ignore[reportUnusedFunction]
    """Train and evaluate models."""


@app.command()
def mini(
    out: Annotated[Path, typer.Option(help="Folder for checkpoints, metrics, curves and model folders.")] = Path(
        "k2think-mini-run"
    ),
    seed: Annotated[int, typer.Option(help="Seed of weights, data and samples.")] = 1,
    base_tokens: Annotated[int, typer.Option(min=1, help="Tokens of the base stage, padding included.")] = 1_500_000,
    tokens: Annotated[int, typer.Option(min=1, help="Tokens of SFT, padding included.")] = 24_000_000,
    grpo_steps: Annotated[int, typer.Option(min=1, help="Steps of GRPO.")] = 1400,
    threads: Annotated[
        int, typer.Option(min=1, max=64, help="Training processes of one thread each; another number, other weights.")
    ] = 2,
    resume: Annotated[bool, typer.Option(help="Go on with the run in OUT, at whatever moment it ended.")] = False,
    convert: Annotated[bool, typer.Option(help="Write the OpenVINO folder OUT/k2think-mini at the end.")] = True,
) -> None:
    """Train k2think-mini from scratch: base, SFT, GRPO.

    The weights after each stage are OUT/base.pt, OUT/sft.pt and OUT/grpo.pt.
    The OpenVINO folder holds the last ones, and the others below `stages`.
    """
    require(TRAINING_MODULES if convert else TRAINING_MODULES[:1], "train")
    from .mini.curve import draw_curve
    from .mini.recipe import Recipe, make

    recipe = Recipe(seed=seed, workers=threads, base_tokens=base_tokens, sft_tokens=tokens, grpo_steps=grpo_steps)
    made = make(recipe, out, resume=resume)
    draw_curve(out / "metrics.jsonl", out / "curve.svg")
    if convert:
        from ..agents.backends.openvino_folder import MODELS_DIR
        from .mini.folder import write_stages

        write_stages(made, MODELS_DIR / "k2think-mini", out / "k2think-mini")
        typer.echo(f"model folder: {out / 'k2think-mini'}")


@app.command(name="mini-convert")
def mini_convert(
    checkpoint: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="A checkpoint of `mini`, such as OUT/sft.pt.")
    ],
    out: Annotated[Path, typer.Argument(file_okay=False, help="Model folder to write.")],
) -> None:
    """Convert a checkpoint to an OpenVINO model folder."""
    require(CONVERSION_MODULES, "train")
    from .mini.convert import convert

    convert(checkpoint, out)


@app.command(name="mini-export")
def mini_export(
    out: Annotated[Path, typer.Argument(file_okay=False, help="Hugging Face-format folder to write.")],
    times: Annotated[
        int,
        typer.Option(
            min=1, max=32, help="How many times as wide: the same function with the arithmetic of a larger model."
        ),
    ] = 1,
) -> None:
    """Write the bundled model as a Hugging Face-format checkpoint, as it is or wider (to measure engines with)."""
    require(EXPORT_MODULES, "train")
    from ..agents.backends.openvino_folder import MODELS_DIR
    from .mini.huggingface import export

    parameters = export(MODELS_DIR / "k2think-mini", out, times=times)
    typer.echo(f"{parameters / 1e6:.1f} M parameters: {out}")


@app.command(name="mini-eval")
def mini_eval(
    model: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="OpenVINO model folder.")],
    per_family: Annotated[int, typer.Option(min=1, help="Fresh problems of each of the eight families.")] = 140,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the engine.")] = 1,
    development: Annotated[
        bool, typer.Option(help="Ask development problems, for choosing, not those of reported figures.")
    ] = False,
    write: Annotated[
        bool, typer.Option(help="Also write evaluation.json and the figures of README.md in the folder.")
    ] = False,
) -> None:
    """Measure a model folder through openvino-genai and print JSON."""
    require(EVALUATION_MODULES, "embedded")
    from ..agents.backends.openvino_folder import describe_folder
    from .mini.card import update_card
    from .mini.evaluate import evaluate
    from .mini.families import Side

    if write and development:
        raise typer.BadParameter("a card holds figures of report problems: leave --development out")
    describe_folder(model)
    side = Side.development if development else Side.report
    text = json.dumps(evaluate(model, per_family=per_family, threads=threads, side=side), indent=2)
    typer.echo(text)
    if write:
        (model / "evaluation.json").write_text(text + "\n", encoding="utf-8")
        update_card(model)
