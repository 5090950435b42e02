"""For verl on a Ray cluster: the command, the problems as Parquet, and the entry point of the reward.

Names of options and columns are those of verl 0.9.1 (`verl/trainer/config`, `examples/data_preprocess` there).
One of verl's training steps is a round of sampling with all its optimiser steps; our counts of steps are converted.
"""

# pyright: reportMissingImports=false
# (pyarrow belongs to the extra `train`)

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from math import ceil
from pathlib import Path
from typing import Any

from ...schemas.errors import ConfigurationError
from ...schemas.scores import Task
from ..config import GrpoConfig
from ..conversations import THINK, prompt_of
from ..records import read_tasks
from ..writing import writing
from . import model_name, other_tokenizer

VERL = "0.9.1"
TRAIN, VALIDATION, REWARD, COMMAND = "train.parquet", "val.parquet", "reward.py", "run.sh"
LOSSES = {"token_mean": "token-mean", "sequence_mean": "seq-mean-token-mean"}
"""Our names of losses and verl's."""

ENTRY_POINT = '''"""The reward that verl calls: k2think's grading, which must be installed in verl's environment.

Whatever fails inside a check is raised: verl then leaves the whole group out, and it is never scored zero.
"""

from k2think.training.export.verl_reward import compute_score

__all__ = ["compute_score"]
'''
SCRIPT = """#!/usr/bin/env bash
# GRPO with verl {verl} on a Ray cluster of {nodes} x {gpus} GPUs. Run it on the head node, in this folder, once `ray status`
# shows all of them. verl needs an environment of its own on every node (it pins other packages than k2think):
#   pip install 'verl[vllm]=={verl}' 'k2think[grading]'
# The files beside this script must lie at the same path on every node. Further options of verl may follow the script's name.
set -euo pipefail
cd "$(dirname "${{BASH_SOURCE[0]}}")"
here="$PWD"

exec python3 -m verl.trainer.main_ppo \\
{options} \\
    "$@"
"""


def export(config: GrpoConfig, out: Path) -> str:
    """Write OUT, and return what is in it and how to use it. Raises K2ThinkError."""
    overrides = options_of(config)
    held_out = [task for path in config.data.evaluation for task in read_tasks(path)]
    train = [task for path in config.data.train for task in read_tasks(path)]
    if not held_out:
        raise ConfigurationError("verl validates while it trains: name held-out problems in data.evaluation")
    if len(train) < config.grpo.prompts:
        raise ConfigurationError(
            f"data.train holds {len(train)} problems, one round takes {config.grpo.prompts}: give more, or lower grpo.prompts"
        )
    with writing(out):
        for name, tasks in ((TRAIN, train), (VALIDATION, held_out)):
            split = name.removesuffix(".parquet")
            _write_parquet(out / name, [row_of(task, index, split, config) for index, task in enumerate(tasks)])
        (out / REWARD).write_text(ENTRY_POINT, encoding="utf-8")
        script = out / COMMAND
        script.write_text(
            SCRIPT.format(
                verl=VERL, nodes=config.cluster.nodes, gpus=config.cluster.gpus_per_node, options=_written(overrides)
            ),
            encoding="utf-8",
        )
        script.chmod(0o755)
    return (
        f"{out}: {len(train)} problems to train on, {len(held_out)} held out, {REWARD}, {COMMAND}\n"
        f"on the Ray cluster's head node: bash {script}"
    )


def options_of(config: GrpoConfig) -> dict[str, Any]:
    """Return verl's options by name. Raises ConfigurationError for what verl has no option for."""
    method, optimizer, run, cluster, model = config.grpo, config.optimizer, config.run, config.cluster, config.model
    if unknown := list(_unknown_to_verl(config)):
        raise ConfigurationError("\n".join(unknown))
    rounds = method.updates_per_round
    actor, rollout = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
    options: dict[str, Any] = {
        "algorithm.adv_estimator": "grpo",
        "algorithm.norm_adv_by_std_in_grpo": method.scale_by_deviation,
        "algorithm.use_kl_in_reward": False,
        "data.train_files": f"$here/{TRAIN}",
        "data.val_files": f"$here/{VALIDATION}",
        "data.prompt_key": "prompt",
        "data.train_batch_size": method.prompts,
        "data.max_prompt_length": method.max_prompt_tokens,
        "data.max_response_length": method.max_completion_tokens,
        "data.filter_overlong_prompts": True,
        "data.truncation": "error",
        "data.shuffle": config.data.shuffle,
        "data.seed": run.seed,
        "actor_rollout_ref.model.path": model_name(model),
        "actor_rollout_ref.model.use_remove_padding": True,
        "actor_rollout_ref.model.enable_gradient_checkpointing": model.gradient_checkpointing,
        "actor_rollout_ref.model.use_liger": model.liger,
        f"{actor}.strategy": "fsdp",
        f"{actor}.optim.lr": optimizer.learning_rate,
        f"{actor}.optim.lr_scheduler_type": optimizer.schedule,
        f"{actor}.optim.weight_decay": optimizer.weight_decay,
        f"{actor}.optim.betas": list(optimizer.betas),
        f"{actor}.optim.clip_grad": optimizer.clip_norm,
        f"{actor}.grad_clip": optimizer.clip_norm,
        f"{actor}.ppo_mini_batch_size": method.update_prompts,
        f"{actor}.use_dynamic_bsz": True,
        f"{actor}.ppo_max_token_len_per_gpu": cluster.tokens_per_gpu,
        f"{actor}.clip_ratio_low": method.clip_low,
        f"{actor}.clip_ratio_high": method.clip_high,
        f"{actor}.loss_agg_mode": LOSSES[method.loss],
        f"{actor}.entropy_coeff": method.entropy,
        f"{actor}.use_kl_loss": method.kl > 0,
        f"{actor}.fsdp_config.dtype": model.dtype,
        f"{actor}.fsdp_config.param_offload": cluster.offload,
        f"{actor}.fsdp_config.optimizer_offload": cluster.offload,
        f"{actor}.fsdp_config.ulysses_sequence_parallel_size": cluster.sequence_parallel,
        "actor_rollout_ref.ref.fsdp_config.param_offload": cluster.offload,
        "actor_rollout_ref.ref.fsdp_config.ulysses_sequence_parallel_size": cluster.sequence_parallel,
        f"{rollout}.name": "vllm",
        f"{rollout}.n": method.rollouts,
        f"{rollout}.temperature": method.temperature,
        f"{rollout}.top_p": method.top_p,
        f"{rollout}.top_k": -1,
        f"{rollout}.tensor_model_parallel_size": cluster.tensor_parallel,
        f"{rollout}.gpu_memory_utilization": cluster.memory_share,
        f"{rollout}.val_kwargs.temperature": method.temperature,
        f"{rollout}.val_kwargs.top_p": method.top_p,
        f"{rollout}.val_kwargs.do_sample": True,
        "reward.custom_reward_function.path": f"$here/{REWARD}",
        "reward.custom_reward_function.name": "compute_score",
        "reward.num_workers": cluster.reward_workers,
        "trainer.nnodes": cluster.nodes,
        "trainer.n_gpus_per_node": cluster.gpus_per_node,
        "trainer.save_freq": ceil(run.save_every / rounds),
        "trainer.test_freq": ceil(run.evaluate_every / rounds),
        "trainer.max_actor_ckpt_to_keep": run.keep,
        "trainer.default_local_dir": str(run.out),
        "trainer.project_name": "k2think",
        "trainer.experiment_name": run.out.name,
        "trainer.logger": ["console"],
        "trainer.resume_mode": "auto",
        # A group whose check failed is dropped by verl; this puts another in its place.
        "trainer.v1.sampler.sync_refill_failed_groups": True,
    }
    if method.kl:
        options[f"{actor}.kl_loss_coef"] = method.kl
    if method.dual_clip is not None:
        options[f"{actor}.clip_ratio_c"] = method.dual_clip
    if optimizer.warmup_steps:
        options[f"{actor}.optim.lr_warmup_steps"] = ceil(optimizer.warmup_steps / rounds)
    if optimizer.warmup_share:
        options[f"{actor}.optim.lr_warmup_steps_ratio"] = optimizer.warmup_share
    if run.steps is not None:
        options["trainer.total_training_steps"] = ceil(run.steps / rounds)
    else:
        options["trainer.total_epochs"] = int(run.epochs or 1)
    tokenizer = other_tokenizer(model)
    if tokenizer is not None:
        options["actor_rollout_ref.model.tokenizer_path"] = str(tokenizer)
    if model.lora is not None:
        targets = model.lora.targets
        options |= {
            "actor_rollout_ref.model.lora_rank": model.lora.rank,
            "actor_rollout_ref.model.lora_alpha": model.lora.alpha,
            "actor_rollout_ref.model.target_modules": targets if isinstance(targets, str) else list(targets),
        }
    return options


def _unknown_to_verl(config: GrpoConfig) -> Iterator[str]:
    """Yield what is asked for and verl has no option for."""
    model, epochs = config.model, config.run.epochs
    if config.optimizer.schedule == "linear":
        yield "optimizer.schedule: verl's FSDP trainer knows constant and cosine, not linear"
    if model.revision is not None:
        yield "model.revision: verl reads a model's main branch; download the revision and name its folder in model.name"
    if model.lora is not None and model.lora.dropout:
        yield "model.lora.dropout: verl's FSDP trainer has none; set it to 0"
    if config.grpo.mask_truncated:
        yield "grpo.mask_truncated: verl takes answers that were cut into the loss; set it to false"
    if epochs is not None and epochs % 1:
        yield "run.epochs: verl makes whole passes; give a whole number, or run.steps"


def _written(options: Mapping[str, Any]) -> str:
    return " \\\n".join(f"    {name}={_word(value)}" for name, value in options.items())


def _word(value: Any) -> str:
    """Return a value as Hydra and the shell both read it."""
    if isinstance(value, str) and value.startswith("$here/"):
        return f'"{value}"'
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, list):
        return shlex.quote(f"[{','.join(map(str, value))}]")
    return shlex.quote(str(value))


def row_of(task: Task, index: int, split: str, config: GrpoConfig) -> dict[str, Any]:
    """Return a problem as verl's data sets hold one. Truth and details are JSON, since a column has one type."""
    return {
        "data_source": task.source,
        "prompt": prompt_of(task, system=config.data.system),
        "ability": task.domain.value,
        "reward_model": {"style": "rule", "ground_truth": json.dumps(task.truth, ensure_ascii=False)},
        "extra_info": {
            "split": split,
            "index": index,
            "id": task.id,
            "domain": task.domain.value,
            "question": task.prompt,
            "opening": THINK if config.grpo.opens_thinking else "",
            "meta": json.dumps(task.meta, ensure_ascii=False),
        },
    }


def _write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow
    from pyarrow import parquet

    table: Any = pyarrow
    writer: Any = parquet
    writer.write_table(table.Table.from_pylist(rows), path)
