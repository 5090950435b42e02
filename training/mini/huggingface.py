"""From the shipped OpenVINO folder back to a Hugging Face-format checkpoint, as it is or made wider.

The folder's network holds every weight of the trained one (in fp16), so that other engines, and the conversion of any model
folder, can be tried on k2think-mini. A widened copy computes the same function with many times the arithmetic: the new rows
and columns are zero, so its replies, and with them what prompt lookup guesses right, stay those of k2think-mini, while a
step costs what it costs in a model of that size. Needs `openvino` and `safetensors`.

The tokenizer stands twice: beside the weights, as in any model folder, and alone in `tokenizer`, since newer releases of
transformers put Qwen's own pre-tokenizer into any tokenizer that stands beside a Qwen2 configuration.
"""

# pyright: reportMissingImports=false
# (safetensors belongs to the extra `train`)

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
WEIGHTS_MIN = 64
"""Elements of the smallest weight: smaller constants of the network are shapes and axes."""


@dataclass(frozen=True)
class Widening:
    """A larger shape for the same function."""

    times: int
    """How many times as many heads, as wide an embedding and as wide a feed-forward layer."""
    layers: int
    """Layers in all; the added ones, at the end, change nothing."""


def export(folder: Path, out: Path, *, widening: Widening | None = None) -> int:
    """Write the checkpoint `out` from the OpenVINO folder of k2think-mini; return its number of parameters."""
    from safetensors.numpy import save_file

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    weights = read_weights(folder / "openvino_model.xml")
    if widening is not None:
        weights = widen(weights, config, widening)
        config |= {
            "hidden_size": config["hidden_size"] * widening.times,
            "intermediate_size": config["intermediate_size"] * widening.times,
            "num_attention_heads": config["num_attention_heads"] * widening.times,
            "num_key_value_heads": config["num_key_value_heads"] * widening.times,
            "num_hidden_layers": widening.layers,
            "layer_types": ["full_attention"] * widening.layers,
            # The mean square of a vector with zeros in it is smaller by `times`: see `widen`.
            "rms_norm_eps": config["rms_norm_eps"] / widening.times,
        }
    out.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / "generation_config.json", out / "generation_config.json")
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (out / "tokenizer").mkdir(exist_ok=True)
    for name in TOKENIZER_FILES:
        shutil.copyfile(folder / name, out / name)
        shutil.copyfile(folder / name, out / "tokenizer" / name)
    return sum(array.size for array in weights.values())


def read_weights(network: Path) -> dict[str, Array]:
    """Return the weights of a converted Qwen2 network under the names of transformers' `Qwen2ForCausalLM`.

    Matrices carry their names; biases and norms are known by the operation that takes them. Raises ValueError.
    """
    import openvino

    weights: dict[str, Array] = {}
    model: Any = openvino.Core().read_model(network)
    for constant in model.get_ops():
        if constant.get_type_name() != "Constant" or constant.data.size < WEIGHTS_MIN:
            continue
        name = _named(constant)
        if name is None:
            raise ValueError(f"{network}: a constant of {constant.data.size} elements belongs to no known layer")
        array = np.asarray(constant.data, dtype=np.float32)
        weights[name] = array if name.endswith("weight") and array.ndim == 2 else array.reshape(-1)
    return weights


def _named(constant: Any) -> str | None:
    own = re.fullmatch(r"self\.(model\..+\.weight)(_compressed)?", constant.get_friendly_name())
    if own:
        return own[1]
    below = [target.get_node() for target in constant.output(0).get_target_inputs()]
    takers = [*below, *(target.get_node() for node in below for target in node.output(0).get_target_inputs())]
    for taker in takers:
        by_layer = re.match(r"__module\.(model\..+)/aten::(linear/Add|mul/Multiply)", taker.get_friendly_name())
        if by_layer:
            return f"{by_layer[1]}.{'bias' if 'linear' in by_layer[2] else 'weight'}"
    return None


def widen(weights: dict[str, Array], config: dict[str, Any], widening: Widening) -> dict[str, Array]:
    """Return weights of the widened shape that compute the same; `weights` and `config` are of the narrow one."""
    width, times = config["hidden_size"], widening.times
    wide: dict[str, Array] = {}
    for name, array in weights.items():
        if "norm" in name:
            # The norm divides by a root of the mean square, which zeros make smaller.
            grown = np.zeros(width * times, dtype=np.float32)
            grown[:width] = array / np.sqrt(times)
        elif name.endswith("embed_tokens.weight"):
            grown = np.zeros((array.shape[0], width * times), dtype=np.float32)
            grown[:, :width] = array
        else:
            grown = np.zeros([size * times for size in array.shape], dtype=np.float32)
            grown[tuple(slice(size) for size in array.shape)] = array
        wide[name] = grown
    first = {name: array for name, array in wide.items() if name.startswith("model.layers.0.")}
    for layer in range(config["num_hidden_layers"], widening.layers):
        for name, array in first.items():
            # What it adds to the residual stream is nothing.
            idle = name.endswith(("o_proj.weight", "down_proj.weight"))
            wide[name.replace(".0.", f".{layer}.", 1)] = np.zeros_like(array) if idle else array
    return wide
