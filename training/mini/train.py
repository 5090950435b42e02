"""Training of k2think-mini from scratch: next-token loss on completions, fresh verified examples, a fixed token budget.

One process a worker, one thread each: at this size two processes that add up their gradients in shared memory do more
per second than one process with two threads. Gradients are added in worker order, so a run is reproducible from its
seed on one kind of machine with one number of workers.
"""

# pyright: reportMissingImports=false, reportUntypedBaseClass=false, reportUnknownParameterType=false
# pyright: reportUntypedFunctionDecorator=false
# (torch belongs to the extra `train`; where it is missing, only its names go unchecked)

from __future__ import annotations

import json
import math
import os
import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch import multiprocessing as processes
from torch.multiprocessing.spawn import ProcessException, spawn
from torch.nn import functional

from .examples import FAMILY_WEIGHTS, SECOND_WEIGHTS, Example, draw_example
from .families import Side
from .model import MiniModel, ModelConfig
from .tokens import VOCABULARY

BATCH_TOKENS = 2048
"""Tokens of one worker's batch, padding included."""
EARLY_SHARE = 0.12
"""Share of the run with batches of half the size: more steps while the loss falls fast."""
BUCKET_TOKENS = 8
"""Sequences are padded to a multiple of this, so that few distinct shapes occur."""
POOL_BATCHES = 24
"""Examples for about so many batches are drawn at once and shuffled by batch."""
WARM_UP_STEPS = 100
FINAL_RATE_SHARE = 0.05
BETAS = (0.9, 0.98)
WEIGHT_DECAY = 0.1
CLIP_NORM = 1.0
PROBE_EVERY_TOKENS = 500_000
CHECKPOINT_EVERY_TOKENS = 1_000_000
LOG_EVERY_TOKENS = 50_000
PROBE_EXAMPLES = 24
"""Development examples of each family in a probe."""
PROBE_SEED = 777
WAIT_S = 600.0
"""A worker gives up when another has not finished its step within this time."""
IGNORED = -100

Steps = tuple[int, int]
"""Optimiser steps since the start of the run and since the start of the stage."""


@dataclass(frozen=True)
class Stage:
    """A part of the run with its own mixture and its own rise and fall of the learning rate."""

    share: float
    """Share of the token budget, 0..1."""
    peak_rate: float
    """Highest learning rate."""
    weights: dict[str, float]
    """How often each family is drawn."""


STAGES = (
    Stage(0.75, 2.5e-3, FAMILY_WEIGHTS),
    # Finding a row by its name is learnt last, so the second stage is mostly tables.
    Stage(0.25, 1.5e-3, SECOND_WEIGHTS),
)


@dataclass(frozen=True)
class TrainingPlan:
    """Everything that decides the weights."""

    out: Path
    """Folder for metrics, curve and checkpoints."""
    seed: int = 1
    """Seed of weights and data."""
    tokens: int = 24_000_000
    """Budget in tokens over all workers, padding included."""
    workers: int = 2
    """Processes, one thread each. Another number gives other weights."""
    resume: bool = False
    """Go on from the checkpoint in ``out``."""


class Batches:
    """Endless stream of padded batches of fresh training examples."""

    def __init__(self, rng: random.Random, draw: Callable[[random.Random], Example] = draw_example) -> None:
        self._rng = rng
        self._draw = draw
        self._waiting: dict[int, list[Example]] = {}
        self._ready: list[tuple[int, list[Example]]] = []

    def next(self, batch_tokens: int) -> tuple[Tensor, Tensor]:
        """Inputs ``[batch, time]`` and targets of the same shape, ``IGNORED`` where no loss is taken."""
        while not self._ready:
            self._refill(batch_tokens)
        return to_tensors(*self._ready.pop())

    def _refill(self, batch_tokens: int) -> None:
        for _ in range(POOL_BATCHES * batch_tokens // 96):
            example = self._draw(self._rng)
            length = len(example.prompt) + len(example.completion) - 1
            self._waiting.setdefault(-(-length // BUCKET_TOKENS) * BUCKET_TOKENS, []).append(example)
        for length, examples in sorted(self._waiting.items()):
            size = max(1, batch_tokens // length)
            while len(examples) >= size:
                self._ready.append((length, examples[:size]))
                del examples[:size]
        self._rng.shuffle(self._ready)


def to_tensors(length: int, examples: list[Example]) -> tuple[Tensor, Tensor]:
    """Pads ``examples`` to ``length`` inputs; targets are shifted by one and cover completions only."""
    ids = torch.zeros(len(examples), length + 1, dtype=torch.long)
    targets = torch.full((len(examples), length + 1), IGNORED)
    for row, example in enumerate(examples):
        sequence = torch.tensor(example.prompt + example.completion)
        ids[row, : len(sequence)] = sequence
        targets[row, len(example.prompt) : len(sequence)] = sequence[len(example.prompt) :]
    return ids[:, :-1].contiguous(), targets[:, 1:].contiguous()


def completion_scores(model: MiniModel, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Scores ``[positions, vocabulary]`` and targets ``[positions]`` of the positions that count."""
    counted = torch.nonzero(targets.reshape(-1) != IGNORED)[:, 0]
    hidden = model(inputs).reshape(-1, model.config.width)[counted]
    return functional.linear(hidden, model.embedding.weight), targets.reshape(-1)[counted]


def learning_rate(peak: float, step: int, done: float) -> float:
    """Linear warm-up, then a cosine down to ``FINAL_RATE_SHARE`` of ``peak``; ``done`` is the share of the stage in 0..1."""
    cosine = FINAL_RATE_SHARE + (1 - FINAL_RATE_SHARE) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    return peak * min(1.0, (step + 1) / WARM_UP_STEPS) * cosine


def probe_set() -> dict[str, list[Example]]:
    """Development examples by family, and of the judge, planner and refusal roles."""
    rng = random.Random(PROBE_SEED)
    sets = {
        name: [draw_example(rng, side=Side.development, role="solve", family=name) for _ in range(PROBE_EXAMPLES)]
        for name in FAMILY_WEIGHTS
    }
    for role in ("judge", "plan", "refuse"):
        sets[role] = [draw_example(rng, side=Side.development, role=role) for _ in range(PROBE_EXAMPLES)]
    return sets


@torch.inference_mode()
def probe(model: MiniModel, sets: dict[str, list[Example]]) -> dict[str, dict[str, float]]:
    """Share of completions that greedy decoding would write exactly, and the mean chance of sampling them at temperature 1.

    One forward pass does it: greedy decoding writes the reference exactly when every reference token is the best one
    after the reference prefix. Both figures are lower bounds of accuracy, for a right answer may come by another trace.
    """
    result: dict[str, dict[str, float]] = {}
    for name, examples in sets.items():
        longest = max(len(e.prompt) + len(e.completion) for e in examples) - 1
        inputs, targets = to_tensors(longest, examples)
        chances = torch.log_softmax(model.logits(inputs), -1)
        counted = targets != IGNORED
        known = targets.clamp_min(0)
        exact = ((chances.argmax(-1) == known) | ~counted).all(-1).float().mean().item()
        sampled = (chances.gather(-1, known[..., None])[..., 0] * counted).sum(-1).exp().mean().item()
        result[name] = {"greedy": round(exact, 4), "sampled": round(sampled, 4)}
    return result


def _optimizer(model: MiniModel) -> torch.optim.AdamW:
    decayed = [p for name, p in model.named_parameters() if p.dim() > 1 and not name.startswith("embedding")]
    plain = [p for name, p in model.named_parameters() if p.dim() <= 1 or name.startswith("embedding")]
    groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=STAGES[0].peak_rate, betas=BETAS, fused=True)


def save_checkpoint(path: Path, model: MiniModel, optimizer: torch.optim.Optimizer, steps: Steps, tokens: int) -> None:
    """Writes a checkpoint; a kill in the middle leaves the former one."""
    state = {"config": asdict(model.config), "model": model.state_dict(), "optimizer": optimizer.state_dict()}
    unfinished = path.with_suffix(".partial")
    torch.save({**state, "step": steps[0], "stage_step": steps[1], "tokens": tokens}, unfinished)
    unfinished.replace(path)


def load_model(path: Path) -> MiniModel:
    """The model of a checkpoint, in evaluation mode."""
    state = torch.load(path, weights_only=True)
    model = MiniModel(ModelConfig(**state["config"]))
    model.load_state_dict(state["model"])
    return model.eval()


def _work(rank: int, plan: TrainingPlan, gradients: Tensor, barrier: Any) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(plan.seed)
    model = MiniModel(ModelConfig(vocabulary=len(VOCABULARY)))
    optimizer = _optimizer(model)
    checkpoint = plan.out / "checkpoint.pt"
    step = stage_step = tokens = 0
    if plan.resume and checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step, stage_step, tokens = state["step"], state.get("stage_step", 0), state["tokens"]
    journal = _Journal(plan, tokens) if rank == 0 else None
    parameters = list(model.parameters())
    current, start, end, batches = -1, 0.0, 0.0, None
    while tokens < plan.tokens:
        while tokens >= end and current + 1 < len(STAGES):
            current, start = current + 1, end
            end = start + STAGES[current].share * plan.tokens
            batches = None
        stage = STAGES[current]
        if batches is None:
            # Each stage, and each resumed run, begins a stream of its own: where it begins is part of the seed.
            stage_step = stage_step if tokens > start + BATCH_TOKENS * plan.workers else 0
            batches = Batches(
                random.Random(f"{plan.seed}/{rank}/{tokens}"), partial(draw_example, weights=stage.weights)
            )
        done = (tokens - start) / (end - start)
        batch_tokens = BATCH_TOKENS // 2 if current == 0 and done < EARLY_SHARE else BATCH_TOKENS
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(stage.peak_rate, stage_step, done)
        inputs, targets = batches.next(batch_tokens)
        loss = functional.cross_entropy(*completion_scores(model, inputs, targets))
        model.zero_grad(set_to_none=True)
        loss.backward()  # pyright: ignore[reportUnknownMemberType]
        gradients[rank].copy_(torch.cat([p.grad.reshape(-1) for p in parameters if p.grad is not None]))
        barrier.wait(WAIT_S)
        mean = gradients.sum(0) / plan.workers
        barrier.wait(WAIT_S)
        position = 0
        for parameter in parameters:
            parameter.grad = mean[position : position + parameter.numel()].view_as(parameter)
            position += parameter.numel()
        torch.nn.utils.clip_grad_norm_(parameters, CLIP_NORM)
        optimizer.step()
        step += 1
        stage_step += 1
        before, tokens = tokens, tokens + batch_tokens * plan.workers
        if journal is not None:
            journal.after_step(model, optimizer, (step, stage_step), before, tokens, loss.item())
    if journal is not None:
        journal.finish(model, optimizer, (step, stage_step), tokens)


class _Journal:
    """Progress lines, metrics and checkpoints of the first worker."""

    def __init__(self, plan: TrainingPlan, tokens: int) -> None:
        self._plan = plan
        self._sets = probe_set()
        self._loss: float | None = None
        self._start, self._first_token = time.monotonic(), tokens
        self._path = plan.out / "metrics.jsonl"
        if not plan.resume:
            self._path.unlink(missing_ok=True)

    def after_step(
        self, model: MiniModel, optimizer: torch.optim.Optimizer, steps: Steps, before: int, tokens: int, loss: float
    ) -> None:
        self._loss = loss if self._loss is None else 0.97 * self._loss + 0.03 * loss

        def crossed(every: int) -> bool:
            return before // every != tokens // every

        if crossed(LOG_EVERY_TOKENS):
            self._write(steps[0], tokens, {})
        if crossed(PROBE_EVERY_TOKENS):
            self._write(steps[0], tokens, {"probe": probe(model, self._sets)})
        if crossed(CHECKPOINT_EVERY_TOKENS):
            save_checkpoint(self._plan.out / "checkpoint.pt", model, optimizer, steps, tokens)

    def finish(self, model: MiniModel, optimizer: torch.optim.Optimizer, steps: Steps, tokens: int) -> None:
        self._write(steps[0], tokens, {"probe": probe(model, self._sets), "final": True})
        save_checkpoint(self._plan.out / "checkpoint.pt", model, optimizer, steps, tokens)

    def _write(self, step: int, tokens: int, extra: dict[str, Any]) -> None:
        wall = time.monotonic() - self._start
        row = {"step": step, "tokens": tokens, "loss": round(self._loss or 0.0, 4), "wall_s": round(wall, 1),
               "worker_cpu_s": round(time.process_time(), 1), **extra}  # fmt: skip
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        rate = (tokens - self._first_token) / max(wall, 1e-9)
        left = (self._plan.tokens - tokens) / max(rate, 1e-9)
        line = f"{tokens / 1e6:6.2f} M tokens  loss {self._loss:.4f}  {rate:5.0f} tokens/s  {left / 60:4.1f} min left"
        if "probe" in extra:
            line += "  " + " ".join(f"{name} {round(100 * v['greedy'])}" for name, v in extra["probe"].items())
        print(line, flush=True)


def train(plan: TrainingPlan) -> Path:
    """Runs ``plan`` and returns the path of the final checkpoint; raises ``RuntimeError`` when a worker fails."""
    plan.out.mkdir(parents=True, exist_ok=True)
    # Returning freed pages to the system after every step costs a third of the speed; the workers inherit this.
    os.environ.update(MALLOC_MMAP_THRESHOLD_="4294967296", MALLOC_TRIM_THRESHOLD_="4294967296", OMP_NUM_THREADS="1")
    size = sum(p.numel() for p in MiniModel(ModelConfig(vocabulary=len(VOCABULARY))).parameters())
    gradients = torch.zeros(plan.workers, size).share_memory_()
    context = processes.get_context("spawn")
    barrier = context.Barrier(plan.workers)
    try:
        spawn(_work, (plan, gradients, barrier), nprocs=plan.workers)  # pyright: ignore[reportUnknownMemberType]
    except ProcessException as failure:
        raise RuntimeError(f"a training worker failed: {failure}") from failure
    return plan.out / "checkpoint.pt"
