"""The recipe of k2think-mini: base, SFT, GRPO, each stage from the last one's weights, one folder, resumable at any moment."""

# pyright: reportMissingImports=false
# (torch belongs to the extra `train`; where it is missing, only its names go unchecked)

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from ...schemas.errors import ConfigurationError
from ..writing import writing
from .examples import (
    FAMILY_WEIGHTS,
    SECOND_ROLES,
    SECOND_WEIGHTS,
    draw_base_example,
    draw_example,
)
from .grpo import GrpoPlan, run_grpo
from .supervised import Lesson, Phase, run_lesson

STAGES = ("base", "sft", "grpo")
"""In order; the weights after each are ``OUT/STAGE.pt``."""
SFT_PHASES = (
    Phase(0.75, 2.5e-3, partial(draw_example, weights=FAMILY_WEIGHTS), early_share=0.12),
    Phase(0.25, 1.5e-3, partial(draw_example, weights=SECOND_WEIGHTS, roles=SECOND_ROLES)),
)
BASE_PHASES = (Phase(1.0, 2.5e-3, draw_base_example),)


@dataclass(frozen=True)
class Recipe:
    """What decides the weights of all three stages."""

    seed: int = 1
    """Seed of weights, data and samples."""
    workers: int = 2
    """Processes, one thread each. Another number gives other weights."""
    base_tokens: int = 1_500_000
    """Tokens of the base stage, padding included."""
    sft_tokens: int = 24_000_000
    """Tokens of SFT, padding included."""
    grpo_steps: int = 1400
    """Steps of GRPO."""


def make(recipe: Recipe, out: Path, *, resume: bool) -> dict[str, Path]:
    """Runs what is left of the three stages in ``out`` and returns the checkpoint of each.

    Raises ``ConfigurationError`` when ``out`` holds a run and ``resume`` is false, or a run of another recipe, and
    ``RuntimeError`` when a worker fails.
    """
    _claim(recipe, out, resume=resume)
    made: dict[str, Path] = {}
    for stage in STAGES:
        checkpoint = out / f"{stage}.pt"
        if not checkpoint.exists():
            _run(stage, recipe, out, made)
        made[stage] = checkpoint
    return made


def _claim(recipe: Recipe, out: Path, *, resume: bool) -> None:
    """Writes the recipe into ``out``, or checks that it is the one that is there."""
    file = out / "recipe.json"
    if file.exists():
        if not resume:
            raise ConfigurationError(
                f"{out} already holds a run: add --resume to go on, or name another folder with --out"
            )
        begun = json.loads(file.read_text(encoding="utf-8"))
        other = {name: value for name, value in begun.items() if asdict(recipe).get(name) != value}
        if other:
            raise ConfigurationError(f"the run in {out} was begun with {other}: give the same values, or another --out")
    with writing(out):
        file.write_text(json.dumps(asdict(recipe), indent=2) + "\n", encoding="utf-8")


def _run(stage: str, recipe: Recipe, out: Path, made: dict[str, Path]) -> None:
    match stage:
        case "base":
            run_lesson(Lesson("base", recipe.base_tokens, BASE_PHASES), out, seed=recipe.seed, workers=recipe.workers)
        case "sft":
            lesson = Lesson("sft", recipe.sft_tokens, SFT_PHASES, start=made["base"])
            run_lesson(lesson, out, seed=recipe.seed, workers=recipe.workers)
        case _:
            plan = GrpoPlan(made["sft"], steps=recipe.grpo_steps)
            run_grpo(plan, out, seed=recipe.seed, workers=recipe.workers)
