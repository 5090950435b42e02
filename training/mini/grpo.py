"""GRPO: a group of samples a prompt at temperature 1, each compared with its group, token by token.

The baseline of a token is the mean reward of the group's samples that share everything before it, not that of the whole group:
traces of one problem agree for long stretches, so a group is a small tree whose forks say which token mattered.

Strictly on-policy: every batch of samples is used for one step and thrown away, so the ratio to the sampling policy is 1 and
clipping has nothing to do. No KL term, no entropy bonus, loss averaged over the tokens that count. Samples of a group whose
rewards are all equal teach nothing and are dropped before the backward pass.

Every step draws from a seed of its own, so a run that was killed and resumed equals one that was not.
"""

# pyright: reportMissingImports=false
# (torch belongs to the extra `train`; where it is missing, only its names go unchecked)

from __future__ import annotations

import random
import zlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from .asks import Ask, draw_ask, reward, wrong_pairs
from .checkpoint import load, new_model, save
from .families import Problem
from .journal import Journal
from .model import MiniModel
from .parallel import Exchange, run_workers
from .sample import sample
from .trial import run_trial, trial_asks

BETAS = (0.9, 0.99)
CLIP_NORM = 1.0
MICRO_BATCH_TOKENS = 4096
"""Tokens of one backward pass, padding included."""
CHECKPOINT_EVERY_STEPS = 10
TRIAL_EVERY_STEPS = 50
WARM_UP_STEPS = 10
FINAL_RATE_SHARE = 0.05
SMOOTHING = 0.9


@dataclass(frozen=True)
class GrpoPlan:
    """Everything that decides the weights, but the seed and the workers."""

    start: Path
    """Checkpoint to begin with."""
    steps: int = 1400
    """Optimiser steps."""
    asks: int = 32
    """Prompts a step and worker."""
    samples: int = 8
    """Samples a prompt: the group."""
    peak_rate: float = 3e-5
    """Highest learning rate: a short warm-up, then a straight line down to ``FINAL_RATE_SHARE`` of it."""
    scale_rate: float = 5e-3
    """The same of the factors of the norms' gains."""
    limit: int = 256
    """Tokens of a sample at most; a sample that is cut is worth 0."""


def advantages(texts: Sequence[Sequence[int]], rewards: Sequence[float]) -> list[list[float]]:
    """What each token of a group's samples changed: the mean reward of the samples that share everything up to and with it,
    minus that of those that share everything before it, in standard deviations of the group's rewards.

    The tokens that all samples share, and those after the last fork, changed nothing and get 0: so a sample is not blamed
    for the whole of its text but for the token at which it left the better ones.
    """
    children: dict[tuple[int, int], int] = {}
    sums, counts = [0.0], [0]
    paths: list[list[int]] = []
    for text, worth in zip(texts, rewards, strict=True):
        path = [0]
        for token in text:
            node = children.setdefault((path[-1], token), len(sums))
            if node == len(sums):
                sums.append(0.0)
                counts.append(0)
            path.append(node)
        for node in path:
            sums[node] += worth
            counts[node] += 1
        paths.append(path)
    means = [total / count for total, count in zip(sums, counts, strict=True)]
    spread = (sum((worth - means[0]) ** 2 for worth in rewards) / len(rewards)) ** 0.5 or 1.0
    return [[(means[after] - means[before]) / spread for before, after in pairwise(path)] for path in paths]


@dataclass
class _State:
    """How far the run has come; what a checkpoint holds beside weights and optimiser."""

    step: int = 0
    tokens: int = 0
    samples: int = 0
    mean: float = 0.0
    wall_s: float = 0.0


def work(rank: int, exchange: Exchange, plan: GrpoPlan, out: Path, seed: int, workers: int) -> None:
    model = new_model()
    model.load_state_dict(load(plan.start)["model"])
    parameters = list(model.parameters())
    scales = Scales(model)
    groups = [{"params": parameters, "peak": plan.peak_rate}, {"params": scales.parameters, "peak": plan.scale_rate}]
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=BETAS, weight_decay=0.0)
    state = _State()
    unfinished = out / "grpo.unfinished.pt"
    if unfinished.exists():
        loaded = load(unfinished)
        model.load_state_dict(loaded["model"])
        optimizer.load_state_dict(loaded["optimizer"])
        state = _State(**loaded["state"])
    reporter = _Reporter(plan, out, state, model) if rank == 0 else None
    generator = torch.Generator()
    own_wrong: list[tuple[Problem, str]] = []
    while state.step < plan.steps:
        name = f"{seed}/grpo/{rank}/{state.step}"
        if state.step % CHECKPOINT_EVERY_STEPS == 0:
            # A resumed run has none of these left, so that an uninterrupted one has none either.
            own_wrong = []
        rng = random.Random(name)
        generator.manual_seed(zlib.crc32(name.encode()))
        asks = [draw_ask(rng, own_wrong) for _ in range(plan.asks)]
        prompts = [ask.prompt for ask in asks for _ in range(plan.samples)]
        texts = sample(model, prompts, limit=plan.limit, temperature=1.0, generator=generator)
        groups = [texts[index * plan.samples : (index + 1) * plan.samples] for index in range(plan.asks)]
        rewards = [[reward(ask, text) for text in group] for ask, group in zip(asks, groups, strict=True)]
        own_wrong = [pair for ask, group in zip(asks, groups, strict=True) for pair in wrong_pairs(ask, group)]
        rows = [
            (ask.prompt, text, changes)
            for ask, group, worths in zip(asks, groups, rewards, strict=True)
            for text, changes in zip(group, advantages(group, worths), strict=True)
            if any(changes)
        ]
        model.zero_grad(set_to_none=True)
        accumulate(model, rows)
        used = exchange.average(rank, parameters, sum(change != 0 for _, _, changes in rows for change in changes))
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, CLIP_NORM))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(group["peak"], state.step, plan.steps)
        if used:
            scales.take_gradients()
            optimizer.step()
            scales.move_into_gains()
        state.step += 1
        state.samples += plan.asks * plan.samples * workers
        state.tokens += sum(map(len, texts)) * workers
        if reporter is not None:
            reporter.after_step(model, optimizer, asks, rewards, texts, len(rows), norm)
    if reporter is not None:
        reporter.finish(model)


class Scales:
    """One factor for each norm's gain, as its logarithm: a way for the whole policy to become surer of itself.

    A step's samples say little about each of a million weights and much about these few: the last one is the inverse of the
    temperature. The factors are trained beside the weights, at a rate of their own, and are taken into the gains after each step.
    """

    def __init__(self, model: MiniModel) -> None:
        self._gains = [parameter for name, parameter in model.named_parameters() if "norm" in name]
        self.parameters = [torch.zeros((), requires_grad=True) for _ in self._gains]

    def take_gradients(self) -> None:
        """Works out the factors' gradients from those of the gains."""
        for factor, gain in zip(self.parameters, self._gains, strict=True):
            factor.grad = torch.zeros(()) if gain.grad is None else (gain.grad * gain.detach()).sum()

    def move_into_gains(self) -> None:
        """Multiplies the gains by what a step made of the factors, which begin anew at 1."""
        with torch.no_grad():
            for factor, gain in zip(self.parameters, self._gains, strict=True):
                gain.mul_(factor.exp())
                factor.zero_()


def learning_rate(peak: float, step: int, steps: int) -> float:
    """A short linear rise to ``peak``, then a straight line down to ``FINAL_RATE_SHARE`` of it."""
    down = 1 - (1 - FINAL_RATE_SHARE) * step / steps
    return peak * min(1.0, (step + 1) / WARM_UP_STEPS) * down


def accumulate(model: MiniModel, rows: Sequence[tuple[list[int], list[int], list[float]]]) -> None:
    """Adds the gradient of minus the sum over tokens of advantage times log-probability, over (prompt, sample, advantages)."""
    waiting = sorted(rows, key=lambda row: len(row[0]) + len(row[1]))
    while waiting:
        longest = len(waiting[-1][0]) + len(waiting[-1][1])
        size = max(1, MICRO_BATCH_TOKENS // longest)
        batch, waiting = waiting[-size:], waiting[:-size]
        ids = torch.zeros(len(batch), longest, dtype=torch.long)
        weights = torch.zeros(len(batch), longest)
        for row, (prompt, text, changes) in enumerate(batch):
            ids[row, : len(prompt) + len(text)] = torch.tensor(prompt + text)
            weights[row, len(prompt) : len(prompt) + len(text)] = torch.tensor(changes)
        counted = torch.nonzero(weights[:, 1:].reshape(-1))[:, 0]
        hidden = model(ids[:, :-1]).reshape(-1, model.config.width)[counted]
        scores = functional.linear(hidden, model.embedding.weight)
        losses = functional.cross_entropy(scores, ids[:, 1:].reshape(-1)[counted], reduction="none")
        (losses * weights[:, 1:].reshape(-1)[counted]).sum().backward()  # pyright: ignore[reportUnknownMemberType]


class _Reporter:
    """Metrics and checkpoints, kept by the first worker; figures of a step are those of its own share."""

    def __init__(self, plan: GrpoPlan, out: Path, state: _State, model: MiniModel) -> None:
        self._plan, self._out, self._state = plan, out, state
        self._trial = trial_asks()
        self._journal = Journal(out / "metrics.jsonl", "grpo", step=state.step, wall_s=state.wall_s)
        if state.step == 0:
            self._journal.write("before the first step", step=0, trial=run_trial(model, self._trial))

    def after_step(
        self, model: MiniModel, optimizer: torch.optim.Optimizer, asks: list[Ask], rewards: list[list[float]],
        texts: list[list[int]], rows: int, norm: float,
    ) -> None:  # fmt: skip
        state, by_role = self._state, defaultdict[str, list[float]](list)
        for ask, worths in zip(asks, rewards, strict=True):
            by_role[ask.role].extend(worths)
        means = {role: sum(values) / len(values) for role, values in sorted(by_role.items())}
        mean = sum(map(sum, rewards)) / len(texts)
        state.mean = SMOOTHING * (state.mean or mean) + (1 - SMOOTHING) * mean
        figures: dict[str, Any] = {
            "step": state.step, "tokens": state.tokens, "samples": state.samples, "reward": round(mean, 4),
            "rewards": {role: round(value, 4) for role, value in means.items()}, "used": round(rows / len(texts), 4),
            "length": round(sum(map(len, texts)) / len(texts), 1), "gradient_norm": round(norm, 4),
        }  # fmt: skip
        left_min = (self._plan.steps - state.step) * self._journal.wall_s / state.step / 60
        line = f"step {state.step}  reward {mean:.3f}, smoothed {state.mean:.3f}  used {figures['used']:.2f}  "
        line += f"length {figures['length']}  norm {norm:.2f}  {left_min:.1f} min left"
        if state.step % TRIAL_EVERY_STEPS == 0 or state.step == self._plan.steps:
            figures["trial"] = run_trial(model, self._trial)
            line += f"  {figures['trial']}"
        self._journal.write(line, **figures)
        if state.step % CHECKPOINT_EVERY_STEPS == 0:
            state.wall_s = self._journal.wall_s
            save(self._out / "grpo.unfinished.pt", model, optimizer=optimizer.state_dict(), state=vars(state))

    def finish(self, model: MiniModel) -> None:
        save(self._out / "grpo.pt", model)
        (self._out / "grpo.unfinished.pt").unlink(missing_ok=True)


def run_grpo(plan: GrpoPlan, out: Path, *, seed: int, workers: int) -> Path:
    """Runs GRPO, from its last checkpoint in ``out`` when there is one, and returns the checkpoint with its weights.

    Another number of ``workers`` gives other weights. Raises ``RuntimeError`` when a worker fails.
    """
    out.mkdir(parents=True, exist_ok=True)
    size = sum(parameter.numel() for parameter in new_model().parameters())
    run_workers(work, workers, size, plan, out, seed, workers)
    return out / "grpo.pt"
