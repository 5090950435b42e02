"""The bundled model back in Hugging Face's form, as it is and widened."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from k2think.training.cli import app
from typer.testing import CliRunner

numpy = pytest.importorskip("numpy")
pytest.importorskip("openvino", reason="the embedded engine is not installed (extra `embedded`)")
numbers = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed (extra `train`)")

WIDTH = 128


def exported(folder: Path, *arguments: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Config and weights."""
    result = CliRunner().invoke(app, ["mini-export", str(folder), *arguments])
    assert result.exit_code == 0, result.output
    return json.loads((folder / "config.json").read_text()), numbers.load_file(folder / "model.safetensors")


def test_the_checkpoint_has_every_weight_and_the_tokenizer(tmp_path: Path) -> None:
    config, weights = exported(tmp_path)
    assert config["architectures"] == ["Qwen2ForCausalLM"]
    # Embedding and last norm; in a layer seven matrices, three biases, two norms.
    assert len(weights) == 2 + config["num_hidden_layers"] * 12
    assert sum(array.size for array in weights.values()) == 1_196_544
    assert weights["model.layers.5.self_attn.k_proj.bias"].shape == (64,)
    assert weights["model.layers.0.input_layernorm.weight"].mean() > 0.1
    for name in ("tokenizer.json", "tokenizer/tokenizer.json", "chat_template.jinja"):
        assert (tmp_path / name).is_file()


def test_a_widened_layer_computes_the_same(tmp_path: Path) -> None:
    config, narrow = exported(tmp_path / "narrow")
    wider, wide = exported(tmp_path / "wide", "--times", "4")
    assert wider["hidden_size"] == 4 * WIDTH
    assert wider["num_attention_heads"] // wider["num_key_value_heads"] == 2
    vector = numpy.random.default_rng(1).normal(size=WIDTH).astype(numpy.float32)

    def layer(weights: dict[str, Any], x: Any, epsilon: float) -> Any:
        normed = x / numpy.sqrt((x**2).mean() + epsilon) * weights["model.layers.2.post_attention_layernorm.weight"]
        gate, up = (weights[f"model.layers.2.mlp.{name}_proj.weight"] @ normed for name in ("gate", "up"))
        return weights["model.layers.2.mlp.down_proj.weight"] @ (gate / (1 + numpy.exp(-gate)) * up)

    grown = numpy.concatenate([vector, numpy.zeros(3 * WIDTH, dtype=numpy.float32)])
    ours = layer(narrow, vector, config["rms_norm_eps"])
    theirs = layer(wide, grown, wider["rms_norm_eps"])
    assert numpy.allclose(theirs[:WIDTH], ours, atol=1e-4)
    assert not theirs[WIDTH:].any()
