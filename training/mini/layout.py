"""The weights under the names of transformers' ``Qwen2ForCausalLM``."""

# pyright: reportMissingImports=false
# (torch belongs to the extra `train`; where it is missing, only its names go unchecked)

from __future__ import annotations

from torch import Tensor

from .model import MiniModel


def to_qwen2(model: MiniModel) -> dict[str, Tensor]:
    """Every weight of ``model``; the tied output has no entry of its own."""
    shape, source = model.config, model.state_dict()
    target = {"model.embed_tokens.weight": source["embedding.weight"], "model.norm.weight": source["norm.weight"]}
    rows = [shape.heads * shape.head_size, shape.kv_heads * shape.head_size, shape.kv_heads * shape.head_size]
    for layer in range(shape.layers):
        ours, theirs = f"blocks.{layer}.", f"model.layers.{layer}."
        for kind in ("weight", "bias"):
            for name, part in zip("qkv", source[f"{ours}qkv.{kind}"].split(rows), strict=True):
                target[f"{theirs}self_attn.{name}_proj.{kind}"] = part
        target[f"{theirs}self_attn.o_proj.weight"] = source[f"{ours}out.weight"]
        gate, up = source[f"{ours}gate_up.weight"].chunk(2)
        target[f"{theirs}mlp.gate_proj.weight"], target[f"{theirs}mlp.up_proj.weight"] = gate, up
        target[f"{theirs}mlp.down_proj.weight"] = source[f"{ours}down.weight"]
        target[f"{theirs}input_layernorm.weight"] = source[f"{ours}norm_attention.weight"]
        target[f"{theirs}post_attention_layernorm.weight"] = source[f"{ours}norm_feed_forward.weight"]
    return target
