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
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..writing import writing

Array = npt.NDArray[np.float32]

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
WEIGHTS_MIN = 64
"""Elements of the smallest weight: smaller constants of the network are shapes and axes."""


def export(folder: Path, out: Path, *, times: int = 1) -> int:
    """Write the checkpoint `out` from the OpenVINO folder of k2think-mini, `times` as wide; return its number of parameters."""
    from safetensors.numpy import save_file

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    weights = read_weights(folder / "openvino_model.xml")
    if times > 1:
        weights = widen(weights, times)
        grown = ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")
        config |= {name: config[name] * times for name in grown}
        # The mean square of a vector with zeros in it is smaller by `times`: see `widen`.
        config["rms_norm_eps"] /= times
    with writing(out):
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
        name = weight_name(constant)
        if name is None:
            raise ValueError(f"{network}: a constant of {constant.data.size} elements belongs to no known layer")
        array = np.asarray(constant.data, dtype=np.float32)
        weights[name] = array if name.endswith("weight") and array.ndim == 2 else array.reshape(-1)
    return weights


def weight_name(constant: Any) -> str | None:
    """Name of a large constant, by itself or by the operation that takes it; None = no weight."""
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


def widen(weights: dict[str, Array], times: int) -> dict[str, Array]:
    """Return weights of a network that computes the same, `times` as wide and with `times` as many heads."""
    wide: dict[str, Array] = {}
    for name, array in weights.items():
        # The vocabulary does not grow.
        shape = [size * times for size in array.shape]
        if name.endswith("embed_tokens.weight"):
            shape[0] = array.shape[0]
        grown = np.zeros(shape, dtype=np.float32)
        grown[tuple(slice(size) for size in array.shape)] = array
        # A norm divides by the root of the mean square, which zeros make smaller.
        wide[name] = grown / np.float32(np.sqrt(times)) if "norm" in name else grown
    return wide
