"""Base and SFT: next-token loss on fresh verified examples, a fixed token budget, in phases.

A run is reproducible from its seed, also when it was killed and resumed: the stream of examples begins anew at every
checkpoint, from a seed of its own, whether or not the run was interrupted there.
"""

# pyright: reportMissingImports=false
# (torch belongs to the extra `train`; where it is missing, only its names go unchecked)

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from .batches import IGNORED, Batches, Draw
from .checkpoint import load, new_model, save
from .journal import Journal
from .model import MiniModel
from .parallel import Exchange, run_workers
from .probe import probe, probe_set

BATCH_TOKENS = 2048
"""Tokens of one worker's batch, padding included."""
WARM_UP_STEPS = 100
FINAL_RATE_SHARE = 0.05
BETAS = (0.9, 0.98)
WEIGHT_DECAY = 0.1
CLIP_NORM = 1.0
CHECKPOINT_EVERY_TOKENS = 500_000
LOG_EVERY_TOKENS = 50_000
SMOOTHING = 0.97
"""Weight of the past in the loss that is shown."""


@dataclass(frozen=True)
class Phase:
    """A part of a stage with its own examples and its own rise and fall of the learning rate."""

    share: float
    """Share of the stage's tokens, 0..1; the shares of a stage add up to 1."""
    peak_rate: float
    """Highest learning rate."""
    draw: Draw
    """Draws its examples."""
    early_share: float = 0.0
    """Share of the phase with batches of half the size: more steps while the loss falls fast."""


@dataclass(frozen=True)
class Lesson:
    """One stage of supervised training: everything that decides its weights, but the seed and the workers."""

    name: str
    """``base`` or ``sft``: names its checkpoints and its rows in the metrics."""
    tokens: int
    """Budget over all workers, padding included."""
    phases: tuple[Phase, ...]
    """In order."""
    start: Path | None = None
    """Checkpoint with the weights to begin with; None = fresh ones."""


@dataclass
class _State:
    """How far a stage has come; what a checkpoint holds beside weights and optimiser."""

    step: int = 0
    phase: int = 0
    phase_step: int = 0
    tokens: int = 0
    loss: float = 0.0
    wall_s: float = 0.0


def completion_loss(model: MiniModel, inputs: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean over the positions that count of minus the log-probability of the target."""
    counted = torch.nonzero(targets.reshape(-1) != IGNORED)[:, 0]
    hidden = model(inputs).reshape(-1, model.config.width)[counted]
    scores = functional.linear(hidden, model.embedding.weight)
    losses = functional.cross_entropy(scores, targets.reshape(-1)[counted], reduction="none")
    weight = weights.reshape(-1)[counted]
    return (losses * weight).sum() / weight.sum()


def learning_rate(peak: float, step: int, done: float) -> float:
    """Linear warm-up, then a cosine down to ``FINAL_RATE_SHARE`` of ``peak``; ``done`` is the share of the phase in 0..1."""
    cosine = FINAL_RATE_SHARE + (1 - FINAL_RATE_SHARE) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    return peak * min(1.0, (step + 1) / WARM_UP_STEPS) * cosine


def new_optimizer(model: MiniModel) -> torch.optim.AdamW:
    """AdamW with weight decay on the matrices only; the embedding, tied to the output, is spared."""
    decayed = [p for name, p in model.named_parameters() if p.dim() > 1 and not name.startswith("embedding")]
    plain = [p for name, p in model.named_parameters() if p.dim() <= 1 or name.startswith("embedding")]
    groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=1.0, betas=BETAS, fused=True)


def work(rank: int, exchange: Exchange, lesson: Lesson, out: Path, seed: int, workers: int) -> None:
    torch.manual_seed(seed)
    model = new_model()
    if lesson.start:
        model.load_state_dict(load(lesson.start)["model"])
    optimizer, state = new_optimizer(model), _State()
    unfinished = out / f"{lesson.name}.unfinished.pt"
    if unfinished.exists():
        loaded = load(unfinished)
        model.load_state_dict(loaded["model"])
        optimizer.load_state_dict(loaded["optimizer"])
        state = _State(**loaded["state"])
    reporter = _Reporter(lesson, out, state) if rank == 0 else None
    ends = [sum(phase.share for phase in lesson.phases[: index + 1]) for index in range(len(lesson.phases))]
    parameters, batches = list(model.parameters()), None
    while state.tokens < lesson.tokens:
        if state.phase + 1 < len(ends) and state.tokens >= ends[state.phase] * lesson.tokens:
            state.phase, state.phase_step, batches = state.phase + 1, 0, None
        phase = lesson.phases[state.phase]
        if batches is None:
            batches = Batches(random.Random(f"{seed}/{lesson.name}/{rank}/{state.tokens}"), phase.draw)
        done = (state.tokens / lesson.tokens - ends[state.phase] + phase.share) / phase.share
        batch_tokens = BATCH_TOKENS // 2 if done < phase.early_share else BATCH_TOKENS
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(phase.peak_rate, state.phase_step, done)
        loss = completion_loss(model, *batches.next(batch_tokens))
        model.zero_grad(set_to_none=True)
        loss.backward()  # pyright: ignore[reportUnknownMemberType]
        exchange.average(rank, parameters, 1.0)
        torch.nn.utils.clip_grad_norm_(parameters, CLIP_NORM)
        optimizer.step()
        before = state.tokens
        state.step, state.phase_step, state.tokens = (
            state.step + 1,
            state.phase_step + 1,
            before + batch_tokens * workers,
        )
        state.loss = SMOOTHING * (state.loss or loss.item()) + (1 - SMOOTHING) * loss.item()
        if reporter is not None:
            reporter.after_step(model, optimizer, before)
        if before // CHECKPOINT_EVERY_TOKENS != state.tokens // CHECKPOINT_EVERY_TOKENS:
            batches = None
    if reporter is not None:
        reporter.finish(model)


class _Reporter:
    """Metrics and checkpoints, kept by the first worker."""

    def __init__(self, lesson: Lesson, out: Path, state: _State) -> None:
        self._lesson, self._out, self._state = lesson, out, state
        self._sets = probe_set()
        self._journal = Journal(out / "metrics.jsonl", lesson.name, step=state.step, wall_s=state.wall_s)

    def after_step(self, model: MiniModel, optimizer: torch.optim.Optimizer, before: int) -> None:
        def crossed(every: int) -> bool:
            return before // every != self._state.tokens // every

        if crossed(LOG_EVERY_TOKENS):
            self._write(probe(model, self._sets) if crossed(CHECKPOINT_EVERY_TOKENS) else None)
        if crossed(CHECKPOINT_EVERY_TOKENS):
            self._state.wall_s = self._journal.wall_s
            path = self._out / f"{self._lesson.name}.unfinished.pt"
            save(path, model, optimizer=optimizer.state_dict(), state=vars(self._state))

    def finish(self, model: MiniModel) -> None:
        self._write(probe(model, self._sets))
        save(self._out / f"{self._lesson.name}.pt", model)
        (self._out / f"{self._lesson.name}.unfinished.pt").unlink(missing_ok=True)

    def _write(self, figures: dict[str, dict[str, float]] | None) -> None:
        state = self._state
        rate = state.tokens / max(self._journal.wall_s, 1e-9)
        left_min = (self._lesson.tokens - state.tokens) / max(rate, 1e-9) / 60
        line = (
            f"{state.tokens / 1e6:6.2f} M tokens  loss {state.loss:.4f}  {rate:5.0f} tokens/s  {left_min:4.1f} min left"
        )
        if figures:
            line += "  " + " ".join(f"{name} {round(100 * row['greedy'])}" for name, row in figures.items())
        more: dict[str, Any] = {"probe": figures} if figures else {}
        self._journal.write(line, step=state.step, tokens=state.tokens, loss=round(state.loss, 4), **more)


def run_lesson(lesson: Lesson, out: Path, *, seed: int, workers: int) -> Path:
    """Runs the stage, from its last checkpoint in ``out`` when there is one, and returns the checkpoint with its weights.

    Another number of ``workers`` gives other weights. Raises ``RuntimeError`` when a worker fails.
    """
    out.mkdir(parents=True, exist_ok=True)
    size = sum(parameter.numel() for parameter in new_model().parameters())
    run_workers(work, workers, size, lesson, out, seed, workers)
    return out / f"{lesson.name}.pt"
