"""Other weights in the network of a model folder that is there: how each stage of a run becomes a folder like the bundled one.

Graph, tokenizers and configuration stay as they are, so it needs ``openvino`` only; ``convert.py`` makes them from nothing.
"""

# pyright: reportMissingImports=false
# (torch belongs to the extra `train`; where it is missing, only its names go unchecked)

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from .checkpoint import load_model
from .huggingface import WEIGHTS_MIN, weight_name
from .layout import to_qwen2
from .model import MiniModel

COPIED = ("chat_template.jinja", "config.json", "generation_config.json", "k2think.json", "openvino_detokenizer.bin", "openvino_detokenizer.xml",
          "openvino_tokenizer.bin", "openvino_tokenizer.xml", "tokenizer.json", "tokenizer_config.json")  # fmt: skip
TOLERANCE = 0.005
"""Largest difference of a score between torch and OpenVINO, as a share of the largest score: the folder's weights are in fp16."""


def write_folder(checkpoint: Path, template: Path, out: Path) -> None:
    """Writes the model folder ``out``: the folder ``template`` with the weights of ``checkpoint``.

    Raises ``ValueError`` when the networks differ in shape, or give different scores to the same tokens.
    """
    import openvino

    model = load_model(checkpoint)
    network: Any = openvino.Core().read_model(template / "openvino_model.xml")
    _swap(network, model)
    check_equal(network, model)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out) as scratch:
        # Beside first: the template, still mapped into memory, may be `out` itself.
        openvino.save_model(network, Path(scratch) / "openvino_model.xml", compress_to_fp16=True)
        del network
        for name in ("openvino_model.bin", "openvino_model.xml"):
            (Path(scratch) / name).replace(out / name)
    if template.resolve() != out.resolve():
        for name in COPIED:
            shutil.copyfile(template / name, out / name)


def write_stages(checkpoints: dict[str, Path], template: Path, out: Path) -> None:
    """Writes the last of the checkpoints as the model folder ``out``, and each of the others as ``out/stages/NAME``."""
    *others, last = checkpoints
    write_folder(checkpoints[last], template, out)
    for name in others:
        write_folder(checkpoints[name], template, out / "stages" / name)


def _swap(network: Any, model: MiniModel) -> None:
    import openvino

    weights = to_qwen2(model)
    for constant in list(network.get_ops()):
        if constant.get_type_name() != "Constant" or constant.data.size < WEIGHTS_MIN:
            continue
        name = weight_name(constant)
        if name not in weights or weights[name].numel() != constant.data.size:
            raise ValueError(f"the folder's network has no place for the weight {name}, or one of another size")
        values = weights.pop(name).numpy().reshape(constant.data.shape).astype(constant.data.dtype)
        fresh: Any = openvino.opset13.constant(values)
        fresh.set_friendly_name(constant.get_friendly_name())
        constant.output(0).replace(fresh.output(0))
    if weights:
        raise ValueError(f"the folder's network lacks the weights {', '.join(sorted(weights))}")


def check_equal(network: Any, model: MiniModel) -> None:
    """Raises ``ValueError`` when the two give different scores to the same tokens."""
    import openvino
    import torch

    ids = torch.arange(2, 2 + 96).remainder(model.config.vocabulary)[None]
    request: Any = (
        openvino.Core().compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()
    )
    given = {
        "input_ids": ids.numpy(),
        "attention_mask": np.ones_like(ids.numpy()),
        "position_ids": np.arange(ids.shape[1])[None],
        "beam_idx": np.zeros(1, dtype=np.int32),
    }
    theirs = torch.tensor(request.infer(given)["logits"])
    with torch.inference_mode():
        ours = model.logits(ids)
    difference = float((ours - theirs).abs().max() / ours.abs().max())
    if difference > TOLERANCE:
        raise ValueError(f"the converted network differs from the trained one by {difference:.2%} of its largest score")
