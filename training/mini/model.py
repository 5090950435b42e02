"""The network of k2think-mini: the Qwen2 layout in plain torch, small enough to train on two CPU cores.

The parameter layout maps one to one onto ``transformers.Qwen2ForCausalLM`` (see ``convert.py``): pre-norm blocks,
rotary positions, grouped-query attention with biases on q, k and v only, a SwiGLU feed-forward, tied embeddings.
Attention is written out because at this width the fused CPU kernels are slower than two batched products.
"""

# pyright: reportMissingImports=false, reportUntypedBaseClass=false, reportUnknownParameterType=false
# pyright: reportUntypedFunctionDecorator=false
# (torch belongs to the extra `train`; where it is missing, only its names go unchecked)

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

ROPE_BASE = 10_000.0
RMS_EPSILON = 1e-6
INIT_STD = 0.08
MASKED = -1e9
MAX_POSITIONS = 512


@dataclass(frozen=True)
class ModelConfig:
    """Shape of the network."""

    vocabulary: int
    """Number of tokens."""
    width: int = 128
    """Size of the residual stream."""
    layers: int = 6
    """Number of blocks."""
    heads: int = 4
    """Query heads; ``width`` is a multiple of it."""
    kv_heads: int = 2
    """Key and value heads; ``heads`` is a multiple of it."""
    feed_forward: int = 384
    """Inner size of the SwiGLU."""
    max_positions: int = MAX_POSITIONS
    """Longest sequence, in tokens."""

    @property
    def head_size(self) -> int:
        return self.width // self.heads


class RmsNorm(nn.Module):
    """Root-mean-square normalisation with a learnt gain."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return functional.rms_norm(x, (x.shape[-1],), self.weight, RMS_EPSILON)


def rotary_tables(positions: int, head_size: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine tables, each ``[positions, head_size]`` with the two halves repeated (the Qwen2 convention)."""
    inverse = 1.0 / (ROPE_BASE ** (torch.arange(0, head_size, 2).float() / head_size))
    angles = torch.outer(torch.arange(positions).float(), inverse)
    angles = torch.cat([angles, angles], -1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of ``x`` ``[batch, heads, time, head_size]``."""
    half = x.shape[-1] // 2
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin


class Block(nn.Module):
    """One pre-norm transformer block."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_size = config.heads, config.kv_heads, config.head_size
        self.qkv = nn.Linear(config.width, (config.heads + 2 * config.kv_heads) * config.head_size, bias=True)
        self.out = nn.Linear(config.width, config.width, bias=False)
        self.gate_up = nn.Linear(config.width, 2 * config.feed_forward, bias=False)
        self.down = nn.Linear(config.feed_forward, config.width, bias=False)
        self.norm_attention = RmsNorm(config.width)
        self.norm_feed_forward = RmsNorm(config.width)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        batch, time, width = x.shape
        rotated = self.heads + self.kv_heads
        qkv = (
            self.qkv(self.norm_attention(x)).view(batch, time, rotated + self.kv_heads, self.head_size).transpose(1, 2)
        )
        query_key = rotate(qkv[:, :rotated], cos, sin)
        group = self.heads // self.kv_heads
        query = query_key[:, : self.heads].reshape(-1, time, self.head_size)
        key = query_key[:, self.heads :].repeat_interleave(group, 1).reshape(-1, time, self.head_size)
        value = qkv[:, rotated:].repeat_interleave(group, 1).reshape(-1, time, self.head_size)
        weights = torch.baddbmm(mask, query, key.transpose(1, 2), alpha=self.head_size**-0.5).softmax(-1)
        mixed = torch.bmm(weights, value).view(batch, self.heads, time, self.head_size)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, time, width))
        gate, up = self.gate_up(self.norm_feed_forward(x)).chunk(2, -1)
        return x + self.down(functional.silu(gate) * up)


class MiniModel(nn.Module):
    """Decoder-only language model; ``forward`` returns the hidden states, ``logits`` the scores."""

    cos: Tensor
    """Rotary table ``[max_positions, head_size]``."""
    sin: Tensor
    """Rotary table ``[max_positions, head_size]``."""
    mask: Tensor
    """Causal mask ``[max_positions, max_positions]``: 0 where a position may look, else a large negative number."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = RmsNorm(config.width)
        cos, sin = rotary_tables(config.max_positions, config.head_size)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        mask = torch.full((config.max_positions, config.max_positions), MASKED).triu(1)
        self.register_buffer("mask", mask, persistent=False)
        self._initialise()

    def _initialise(self) -> None:
        # Projections that write to the residual stream start smaller, so that its variance does not grow with depth.
        residual_std = INIT_STD / math.sqrt(2 * self.config.layers)
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                residual = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(parameter, 0.0, residual_std if residual else INIT_STD)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, ids: Tensor) -> Tensor:
        """Hidden states ``[batch, time, width]`` of token ids ``[batch, time]``."""
        time = ids.shape[1]
        x = self.embedding(ids)
        cos, sin, mask = self.cos[:time], self.sin[:time], self.mask[:time, :time]
        for block in self.blocks:
            x = block(x, cos, sin, mask)
        return self.norm(x)

    def logits(self, ids: Tensor) -> Tensor:
        """Scores ``[batch, time, vocabulary]`` of the next token after each position of ``ids`` ``[batch, time]``."""
        return functional.linear(self(ids), self.embedding.weight)
