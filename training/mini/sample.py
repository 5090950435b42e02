"""Sampling from the network in training: a key-value cache, many prompts at once, finished rows dropped.

Prompts are padded on the left. Rotary positions are relative, so a shifted prompt gets the same scores as an unshifted one.
"""

# pyright: reportMissingImports=false, reportUntypedFunctionDecorator=false
# (torch belongs to the extra `train`; where it is missing, only its names go unchecked)

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional

from .model import MASKED, Block, MiniModel, rotate
from .tokens import EOS_ID

BATCH = 96
"""Sequences sampled at once: more gain nothing once the caches no longer fit the processor's own."""
KEEP_SHARE = 0.85
"""Finished rows are dropped when fewer than this share of the rows is still being written."""


class _Cache:
    """Keys and values of every layer, ``[rows, kv_heads, positions, head_size]``."""

    def __init__(self, model: MiniModel, rows: int, positions: int) -> None:
        shape = (rows, model.config.kv_heads, positions, model.config.head_size)
        self.layers = [(torch.zeros(shape), torch.zeros(shape)) for _ in range(model.config.layers)]
        self.length = 0

    def keep(self, rows: Tensor) -> None:
        self.layers = [(keys[rows], values[rows]) for keys, values in self.layers]


def _attend(
    block: Block, x: Tensor, cos: Tensor, sin: Tensor, past: tuple[Tensor, Tensor], start: int, mask: Tensor
) -> Tensor:
    rows, time, width = x.shape
    rotated, group = block.heads + block.kv_heads, block.heads // block.kv_heads
    qkv = block.qkv(block.norm_attention(x)).view(rows, time, rotated + block.kv_heads, block.head_size).transpose(1, 2)
    query_key = rotate(qkv[:, :rotated], cos, sin)
    keys, values = past
    end = start + time
    keys[:, :, start:end], values[:, :, start:end] = query_key[:, block.heads :], qkv[:, rotated:]
    query = query_key[:, : block.heads].reshape(rows, block.kv_heads, group * time, block.head_size)
    scores = torch.matmul(query, keys[:, :, :end].transpose(2, 3)).mul_(block.head_size**-0.5)
    scores = scores.view(rows, block.kv_heads, group, time, end).add_(mask).softmax(-1)
    mixed = torch.matmul(scores.view(rows, block.kv_heads, group * time, end), values[:, :, :end])
    mixed = mixed.view(rows, block.heads, time, block.head_size).transpose(1, 2).reshape(rows, time, width)
    x = x + block.out(mixed)
    gate, up = block.gate_up(block.norm_feed_forward(x)).chunk(2, -1)
    return x + block.down(functional.silu(gate) * up)


def _last_scores(model: MiniModel, ids: Tensor, cache: _Cache, mask: Tensor) -> Tensor:
    """Scores ``[rows, vocabulary]`` after the last of ``ids`` ``[rows, time]``, which join the cache."""
    start, time = cache.length, ids.shape[1]
    x = model.embedding(ids)
    cos, sin = model.cos[start : start + time], model.sin[start : start + time]
    for block, past in zip(model.blocks, cache.layers, strict=True):
        x = _attend(cast(Block, block), x, cos, sin, past, start, mask)
    cache.length += time
    return functional.linear(model.norm(x[:, -1]), model.embedding.weight)


@torch.inference_mode()
def _sample_batch(
    model: MiniModel, prompts: Sequence[Sequence[int]], limit: int, temperature: float, generator: torch.Generator
) -> list[list[int]]:
    rows, longest = len(prompts), max(map(len, prompts))
    limit = min(limit, model.config.max_positions - longest)
    ids = torch.zeros(rows, longest, dtype=torch.long)
    hidden = torch.full((rows, 1, 1, 1, longest + limit), 0.0)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        hidden[row, ..., : longest - len(prompt)] = MASKED
    cache = _Cache(model, rows, longest + limit)
    causal = model.mask[:longest, :longest] + hidden[..., :longest]
    scores = _last_scores(model, ids, cache, causal)
    written = torch.zeros(rows, limit, dtype=torch.long)
    alive, done = torch.arange(rows), torch.zeros(rows, dtype=torch.bool)
    for position in range(limit):
        if temperature > 0:
            # The largest of scores plus Gumbel noise is a sample of their softmax.
            noise = torch.empty_like(scores).exponential_(generator=generator)
            scores = scores / temperature - noise.log_()
        chosen = scores.argmax(-1)
        written[alive, position] = chosen
        done |= chosen == EOS_ID
        if position + 1 == limit or bool(done.all()):
            break
        if int(done.sum()) > (1 - KEEP_SHARE) * len(alive):
            rest = ~done
            alive, chosen, hidden, done = alive[rest], chosen[rest], hidden[rest], done[rest]
            cache.keep(rest)
        scores = _last_scores(model, chosen[:, None], cache, hidden[..., : cache.length + 1])
    texts = written.tolist()
    return [text[: text.index(EOS_ID) + 1] if EOS_ID in text else text for text in texts]


def sample(
    model: MiniModel,
    prompts: Sequence[Sequence[int]],
    *,
    limit: int,
    temperature: float,
    generator: torch.Generator,
    batch: int = BATCH,
) -> list[list[int]]:
    """One completion (token ids, the end mark included unless cut) of each prompt; at most ``limit`` tokens each.

    Temperature 0 is greedy. The same generator state, prompts and weights give the same completions.
    """
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    completions: list[list[int]] = [[] for _ in prompts]
    for first in range(0, len(order), batch):
        chosen = order[first : first + batch]
        texts = _sample_batch(model, [prompts[index] for index in chosen], limit, temperature, generator)
        for index, text in zip(chosen, texts, strict=True):
            completions[index] = text
    return completions
