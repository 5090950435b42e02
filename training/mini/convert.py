"""From a checkpoint to a folder that OpenVINO GenAI loads like any other model folder.

The folder holds the network with its weights in fp16, the tokenizer and detokenizer as OpenVINO models, the same
tokenizer in the ``tokenizers`` format, configurations and a chat template. Text without a role tag is a problem to
solve; a tag at its start chooses another role. System messages are not read: the model knows tags only.
"""

# pyright: reportMissingImports=false
# (the converters belong to the extra `train`)

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from .checkpoint import load_model
from .layout import to_qwen2
from .model import MAX_POSITIONS, RMS_EPSILON, ROPE_BASE, MiniModel
from .tokens import (
    AFTER_LOWER,
    BEFORE_LOWER,
    EOS,
    EOS_ID,
    JUDGE,
    PAD,
    PAD_ID,
    PLAN,
    SOLVE,
    SPECIAL,
    TAGS,
    TOKEN_IDS,
    UNKNOWN,
)

CHAT_TEMPLATE = (
    "{%- set ns = namespace(text='', begun='') -%}"
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'user' -%}{%- set ns.text = message['content'] | trim -%}{%- set ns.begun = '' -%}"
    "{%- elif message['role'] == 'assistant' -%}{%- set ns.begun = message['content'] -%}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if not (" + " or ".join(f"ns.text.startswith('{tag}')" for tag in (SOLVE, PLAN, JUDGE)) + ") -%}"
    f"{{{{- '{SOLVE}' -}}}}"
    "{%- endif -%}"
    "{{- ns.text -}}{{- ns.begun -}}"
)
"""The last user message, with ``<solve>`` in front unless it starts with a role tag; a reply already begun follows it.

Applying it twice changes nothing. (Without the begun reply, OpenVINO's template engine warns on every start.)
"""
MAX_NEW_TOKENS = 320
"""Default limit of a reply: above the longest trace of training (about 180 tokens)."""
RUNTIME_OPTIONS = {"KV_CACHE_PRECISION": "f16", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
"""Written into the network file: at this size eight-bit caches and activations cost accuracy and save nothing."""


def build_tokenizer() -> Any:
    """The tokenizer as a ``transformers.PreTrainedTokenizerFast``."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    # A BPE without merges: one token a character.
    tokenizer: Any = Tokenizer(models.BPE(vocab=dict(TOKEN_IDS), merges=[], unk_token=UNKNOWN))
    before = [normalizers.Replace(Regex(pattern), text) for pattern, text in BEFORE_LOWER]
    after = [normalizers.Replace(Regex(pattern), text) for pattern, text in AFTER_LOWER]
    tokenizer.normalizer = normalizers.Sequence([*before, normalizers.Lowercase(), *after])
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL])
    # Tags are not "special", or the detokenizer would drop them from the streamed text.
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=False) for token in TAGS])
    # No unk_token here: it would make "~" a special token, which splits text and is dropped from output.
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=EOS,
        pad_token=PAD,
        model_max_length=MAX_POSITIONS,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def to_transformers(model: MiniModel) -> Any:
    """The same network as a ``transformers.Qwen2ForCausalLM``."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    shape = model.config
    fields: dict[str, Any] = {
        "vocab_size": shape.vocabulary, "hidden_size": shape.width, "intermediate_size": shape.feed_forward,
        "num_hidden_layers": shape.layers, "num_attention_heads": shape.heads, "num_key_value_heads": shape.kv_heads,
        "max_position_embeddings": shape.max_positions, "rms_norm_eps": RMS_EPSILON, "tie_word_embeddings": True,
        "rope_parameters": {"rope_theta": ROPE_BASE, "rope_type": "default"},
        "bos_token_id": None, "eos_token_id": EOS_ID, "pad_token_id": PAD_ID,
    }  # fmt: skip
    # By name: what its initialiser takes is declared in some releases of transformers only.
    config = Qwen2Config(**fields)
    weights = to_qwen2(model)
    converted = Qwen2ForCausalLM(config)
    converted.load_state_dict({**weights, "lm_head.weight": weights["model.embed_tokens.weight"]}, strict=True)
    return converted.eval()


def check_equal(model: MiniModel, converted: Any, *, tolerance: float = 1e-4) -> None:
    """Raises ``ValueError`` when the two networks give different scores to the same tokens, by a share of the largest score."""
    import torch

    ids = torch.arange(2, 2 + 96).remainder(model.config.vocabulary)[None]
    with torch.inference_mode():
        ours = model.logits(ids)
        difference = float((ours - converted(ids).logits).abs().max() / ours.abs().max())
    if difference > tolerance:
        raise ValueError(f"the converted network differs from the trained one by {difference:.2%} of its largest score")


def convert(checkpoint: Path, out: Path) -> None:
    """Writes the model folder ``out`` from ``checkpoint``; files of the same names are replaced."""
    import openvino
    from openvino_tokenizers import convert_tokenizer
    from optimum.exporters.openvino import main_export

    out.mkdir(parents=True, exist_ok=True)
    model = load_model(checkpoint)
    converted = to_transformers(model)
    check_equal(model, converted)
    tokenizer = build_tokenizer()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        converted.save_pretrained(folder / "torch")
        main_export(
            str(folder / "torch"), folder / "openvino", task="text-generation-with-past", convert_tokenizer=False
        )
        network = openvino.Core().read_model(folder / "openvino" / "openvino_model.xml")
        for name, value in RUNTIME_OPTIONS.items():
            network.set_rt_info(value, ["runtime_options", name])
        openvino.save_model(network, out / "openvino_model.xml", compress_to_fp16=True)
        config = json.loads((folder / "openvino" / "config.json").read_text(encoding="utf-8"))
    tokenizer.save_pretrained(out)
    settings = json.loads((out / "tokenizer_config.json").read_text(encoding="utf-8"))
    # The class name that transformers 4 and 5 both know.
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    pair: Any = convert_tokenizer(tokenizer, with_detokenizer=True, skip_special_tokens=True, add_special_tokens=False)
    encoder, decoder = pair
    openvino.save_model(encoder, out / "openvino_tokenizer.xml")
    openvino.save_model(decoder, out / "openvino_detokenizer.xml")
    generation = {"eos_token_id": EOS_ID, "pad_token_id": PAD_ID, "do_sample": True, "temperature": 1.0, "top_p": 1.0,
                  "max_new_tokens": MAX_NEW_TOKENS}  # fmt: skip
    written = {"config.json": config, "generation_config.json": generation, "tokenizer_config.json": settings,
               "k2think.json": {"templates": "mini"}}  # fmt: skip
    for name, content in written.items():
        (out / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
