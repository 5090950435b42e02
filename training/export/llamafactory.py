"""For LLaMA-Factory on a cluster: its YAML, the conversations in ShareGPT's form, and DeepSpeed's ZeRO-3 file.

Names of keys are those of LLaMA-Factory 0.9.5 (`src/llamafactory/hparams`, `data/parser.py` there) and of the transformers
releases that it admits (up to 5.6).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ...schemas.errors import ConfigurationError
from ..config import SftConfig
from ..conversations import as_messages
from ..records import SftExample, read_examples
from ..writing import writing
from . import model_name, other_tokenizer

LLAMAFACTORY = "0.9.5"
CONFIG, DATASETS, DEEPSPEED = "sft.yaml", "dataset_info.json", "ds_z3.json"
TRAIN, HELD_OUT = "train", "held_out"
"""Names of the sets, and of their files."""
SPEAKERS = {"system": "system", "user": "human", "assistant": "assistant"}
"""Our roles and ShareGPT's, with the tags that AM-Thinking-v1-Distilled uses."""
DDP_TIMEOUT_S = 180_000_000
"""Tokenising millions of conversations takes longer than any default."""

ZERO_3: dict[str, Any] = {
    "train_batch_size": "auto",
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
    "zero_allow_untested_optimizer": True,
    "bf16": {"enabled": "auto"},
    "zero_optimization": {
        "stage": 3,
        "contiguous_gradients": True,
        "sub_group_size": 1_000_000_000,
        "reduce_bucket_size": "auto",
        "stage3_prefetch_bucket_size": "auto",
        "stage3_param_persistence_threshold": "auto",
        "stage3_max_live_parameters": 1_000_000_000,
        "stage3_max_reuse_distance": 1_000_000_000,
        "stage3_gather_16bit_weights_on_model_save": True,
    },
}
"""DeepSpeed's configuration: weights, gradients and optimiser split over all GPUs."""


def export(config: SftConfig, out: Path) -> str:
    """Write OUT, and return what is in it and how to use it. Raises K2ThinkError."""
    import yaml

    keys = keys_of(config)
    with writing(out):
        counts = {TRAIN: _write(out, TRAIN, config.data.train, config.data.system)}
        if not counts[TRAIN]:
            raise ConfigurationError("data.train holds no conversation")
        if config.data.evaluation:
            counts[HELD_OUT] = _write(out, HELD_OUT, config.data.evaluation, config.data.system)
        described = {name: _described(name) for name in counts}
        (out / DATASETS).write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
        (out / DEEPSPEED).write_text(json.dumps(ZERO_3, indent=2) + "\n", encoding="utf-8")
        head = f"# LLaMA-Factory {LLAMAFACTORY}. Paths are relative to this folder: start it from here.\n"
        (out / CONFIG).write_text(head + yaml.safe_dump(keys, sort_keys=False), encoding="utf-8")
    cluster = config.cluster
    return (
        f"{out}: {', '.join(f'{count} conversations in {name}.jsonl' for name, count in counts.items())}, {CONFIG}, {DATASETS}, "
        f"{DEEPSPEED}\n"
        f"on each of {cluster.nodes} machines with {cluster.gpus_per_node} GPUs, in that folder: FORCE_TORCHRUN=1 "
        f"NNODES={cluster.nodes} NODE_RANK=… MASTER_ADDR=… MASTER_PORT=29500 llamafactory-cli train {CONFIG}"
    )


def keys_of(config: SftConfig) -> dict[str, Any]:
    """Return LLaMA-Factory's keys. Raises ConfigurationError for what it has no key for, and where the batch is uneven."""
    method, optimizer, run, cluster, model = config.sft, config.optimizer, config.run, config.cluster, config.model
    if (tokenizer := other_tokenizer(model)) is not None:
        raise ConfigurationError(
            f"model.tokenizer: LLaMA-Factory reads the tokenizer beside the model's configuration alone; put the files of {tokenizer} "
            "there, or into a copy of the model's folder"
        )
    if model.lora is not None and model.lora.alpha % 1:
        raise ConfigurationError("model.lora.alpha: LLaMA-Factory takes whole numbers")
    at_once = method.micro_batch * cluster.nodes * cluster.gpus_per_node
    if method.batch % at_once:
        raise ConfigurationError(
            f"sft.batch ({method.batch}) must be a multiple of sft.micro_batch x cluster.nodes x cluster.gpus_per_node ({at_once})"
        )
    keys: dict[str, Any] = {
        "model_name_or_path": model_name(model),
        **({"model_revision": model.revision} if model.revision else {}),
        "enable_liger_kernel": model.liger,
        "disable_gradient_checkpointing": not model.gradient_checkpointing,
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "lora" if model.lora else "full",
        "deepspeed": DEEPSPEED,
        "dataset": TRAIN,
        "dataset_dir": ".",
        "template": cluster.template,
        "cutoff_len": method.max_tokens,
        "packing": method.packing,
        "neat_packing": method.packing,
        "preprocessing_num_workers": cluster.workers,
        "output_dir": str(run.out),
        "logging_steps": run.log_every,
        "save_steps": run.save_every,
        "save_total_limit": run.keep,
        "plot_loss": True,
        "report_to": "none",
        "per_device_train_batch_size": method.micro_batch,
        "gradient_accumulation_steps": method.batch // at_once,
        "learning_rate": optimizer.learning_rate,
        "lr_scheduler_type": "constant_with_warmup" if optimizer.schedule == "constant" else optimizer.schedule,
        "weight_decay": optimizer.weight_decay,
        "adam_beta1": optimizer.betas[0],
        "adam_beta2": optimizer.betas[1],
        "max_grad_norm": optimizer.clip_norm,
        "bf16": model.dtype == "bfloat16",
        "seed": run.seed,
        "ddp_timeout": DDP_TIMEOUT_S,
    }
    if optimizer.warmup_share:
        keys["warmup_ratio"] = optimizer.warmup_share
    if optimizer.warmup_steps:
        keys["warmup_steps"] = optimizer.warmup_steps
    if run.steps is not None:
        keys["max_steps"] = run.steps
    else:
        keys["num_train_epochs"] = run.epochs
    if model.lora is not None:
        targets = model.lora.targets
        keys |= {
            "lora_rank": model.lora.rank,
            "lora_alpha": int(model.lora.alpha),
            "lora_dropout": model.lora.dropout,
            "lora_target": "all" if isinstance(targets, str) else ",".join(targets),
        }
    if not config.data.shuffle:
        keys["disable_shuffling"] = True
    if config.data.evaluation:
        keys |= {
            "eval_dataset": HELD_OUT,
            "eval_strategy": "steps",
            "eval_steps": run.evaluate_every,
            "per_device_eval_batch_size": method.micro_batch,
        }
    return keys


def sharegpt(example: SftExample, *, system: str | None) -> dict[str, Any]:
    """Return a conversation in ShareGPT's form."""
    messages = as_messages(example.messages, system=system)
    return {"conversations": [{"from": SPEAKERS[turn["role"]], "value": turn["content"]} for turn in messages]}


def _write(out: Path, name: str, paths: Iterable[Path], system: str | None) -> int:
    count = 0
    with (out / f"{name}.jsonl").open("w", encoding="utf-8") as file:
        for path in paths:
            for example in read_examples(path):
                file.write(json.dumps(sharegpt(example, system=system), ensure_ascii=False) + "\n")
                count += 1
    return count


def _described(name: str) -> dict[str, Any]:
    return {
        "file_name": f"{name}.jsonl",
        "formatting": "sharegpt",
        "columns": {"messages": "conversations"},
        "tags": {
            "role_tag": "from",
            "content_tag": "value",
            "user_tag": SPEAKERS["user"],
            "assistant_tag": SPEAKERS["assistant"],
            "system_tag": SPEAKERS["system"],
        },
    }
