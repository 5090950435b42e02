"""A checkpoint of the training becomes a model folder, and a model folder a checkpoint."""

# ruff: noqa: E402

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (extra `train`)")
pytest.importorskip("openvino", reason="the embedded engine is not installed (extra `embedded`)")

from k2think.training.mini.checkpoint import load_model, new_model, save
from k2think.training.mini.folder import write_folder, write_stages
from k2think.training.mini.huggingface import read_weights
from k2think.training.mini.layout import to_qwen2
from k2think.training.mini.model import MiniModel, ModelConfig
from k2think.training.mini.tokens import VOCABULARY


def from_qwen2(weights: Mapping[str, torch.Tensor]) -> MiniModel:
    """The network of k2think-mini's shape with these weights: the way back from ``to_qwen2``."""
    model = new_model()
    state = {"embedding.weight": weights["model.embed_tokens.weight"], "norm.weight": weights["model.norm.weight"]}
    for layer in range(model.config.layers):
        ours, theirs = f"blocks.{layer}.", f"model.layers.{layer}."
        for kind in ("weight", "bias"):
            parts = [weights[f"{theirs}self_attn.{name}_proj.{kind}"] for name in "qkv"]
            state[f"{ours}qkv.{kind}"] = torch.cat(parts)
        state[f"{ours}out.weight"] = weights[f"{theirs}self_attn.o_proj.weight"]
        state[f"{ours}gate_up.weight"] = torch.cat(
            [weights[f"{theirs}mlp.{name}_proj.weight"] for name in ("gate", "up")]
        )
        state[f"{ours}down.weight"] = weights[f"{theirs}mlp.down_proj.weight"]
        state[f"{ours}norm_attention.weight"] = weights[f"{theirs}input_layernorm.weight"]
        state[f"{ours}norm_feed_forward.weight"] = weights[f"{theirs}post_attention_layernorm.weight"]
    model.load_state_dict(state)
    return model


@pytest.fixture
def shipped_model(shipped_folder: Path) -> MiniModel:
    weights = read_weights(shipped_folder / "openvino_model.xml")
    return from_qwen2({name: torch.tensor(array) for name, array in weights.items()})


def test_the_shipped_weights_make_the_shipped_folder_again(
    shipped_folder: Path, shipped_model: MiniModel, tmp_path: Path
) -> None:
    # Given the bundled model as a checkpoint, and another one as the stage before it
    save(tmp_path / "grpo.pt", shipped_model)
    with torch.no_grad():
        shipped_model.norm.weight.mul_(1.5)
    save(tmp_path / "sft.pt", shipped_model)
    # When both are written as a model folder
    checkpoints = {"sft": tmp_path / "sft.pt", "grpo": tmp_path / "grpo.pt"}
    write_stages(checkpoints, shipped_folder, tmp_path / "folder")
    # Then the folder's weights are the bundled ones to the last bit, and the stage's are its own
    assert (tmp_path / "folder" / "openvino_model.bin").read_bytes() == (
        shipped_folder / "openvino_model.bin"
    ).read_bytes()
    stage = read_weights(tmp_path / "folder" / "stages" / "sft" / "openvino_model.xml")
    expected = to_qwen2(load_model(tmp_path / "sft.pt"))
    assert torch.allclose(torch.tensor(stage["model.norm.weight"]), expected["model.norm.weight"], rtol=1e-3)
    # And everything that an engine needs is there
    for folder in (tmp_path / "folder", tmp_path / "folder" / "stages" / "sft"):
        assert {"config.json", "openvino_tokenizer.xml", "chat_template.jinja"} <= {f.name for f in folder.iterdir()}


def test_a_network_of_another_size_is_refused(shipped_folder: Path, tmp_path: Path) -> None:
    save(tmp_path / "wide.pt", MiniModel(ModelConfig(vocabulary=len(VOCABULARY), feed_forward=256)))
    with pytest.raises(ValueError, match="another size"):
        write_folder(tmp_path / "wide.pt", shipped_folder, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_the_layout_there_and_back_loses_nothing() -> None:
    torch.manual_seed(1)
    model = new_model()
    again = from_qwen2(to_qwen2(model)).state_dict()
    assert all(torch.equal(again[name], weight) for name, weight in model.state_dict().items())
