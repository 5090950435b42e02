"""Padded batches of fresh examples, few shapes, little padding."""

# pyright: reportMissingImports=false
# (torch belongs to the extra `train`; where it is missing, only its names go unchecked)

from __future__ import annotations

import random
from collections.abc import Callable

import torch
from torch import Tensor

from .examples import STRESS, Example

BUCKET_TOKENS = 8
"""Sequences are padded to a multiple of this, so that few distinct shapes occur."""
POOL_BATCHES = 24
"""Examples for about so many batches are drawn at once and shuffled by batch."""
IGNORED = -100
"""Target of a position that counts for nothing."""

Draw = Callable[[random.Random], Example]
"""Draws one fresh training example."""


class Batches:
    """Endless stream of padded batches of fresh training examples."""

    def __init__(self, rng: random.Random, draw: Draw) -> None:
        self._rng = rng
        self._draw = draw
        self._waiting: dict[int, list[Example]] = {}
        self._ready: list[tuple[int, list[Example]]] = []

    def next(self, batch_tokens: int) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs ``[batch, time]``, and targets and weights of the same shape; ``IGNORED`` where no loss is taken."""
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


def to_tensors(length: int, examples: list[Example]) -> tuple[Tensor, Tensor, Tensor]:
    """Pads ``examples`` to ``length`` inputs; targets and their weights are shifted by one and cover completions only."""
    ids = torch.zeros(len(examples), length + 1, dtype=torch.long)
    targets = torch.full((len(examples), length + 1), IGNORED)
    weights = torch.ones(len(examples), length + 1)
    for row, example in enumerate(examples):
        sequence = torch.tensor(example.prompt + example.completion)
        ids[row, : len(sequence)] = sequence
        targets[row, len(example.prompt) : len(sequence)] = sequence[len(example.prompt) :]
        weights[row, len(sequence) - example.stressed : len(sequence)] = STRESS
    return ids[:, :-1].contiguous(), targets[:, 1:].contiguous(), weights[:, 1:].contiguous()
