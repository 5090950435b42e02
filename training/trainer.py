"""What SFT and GRPO on one machine have in common: the trainer's arguments, its going on, and the end of a run."""

# pyright: reportMissingImports=false, reportUnknownParameterType=false
# (torch, trl and datasets belong to the extra `train`; where they are missing, only their names go unchecked)

from __future__ import annotations

import contextlib
import importlib
import shutil
import warnings
from collections.abc import Generator
from pathlib import Path
from typing import Any

from ..schemas.errors import ConfigurationError, StoreFull
from .config import GrpoConfig, Lora, SftConfig
from .model_folder import save_final
from .run_folder import RunFolder

CHECKPOINT_BYTES = 12
"""Of a trained weight in a checkpoint: itself and AdamW's two averages, in float32."""
SCHEDULES = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}
"""Our names of schedules and transformers'."""


def library(name: str) -> Any:
    """Import a training library when it is needed."""
    return importlib.import_module(name)


def use_gpu(config: SftConfig | GrpoConfig) -> bool:
    """Tell whether a GPU is used, and set the number of CPU threads. Raises ConfigurationError."""
    torch = library("torch")
    if config.run.threads is not None:
        torch.set_num_threads(config.run.threads)
    there = bool(torch.cuda.is_available())
    if config.run.device == "gpu" and not there:
        raise ConfigurationError(
            "run.device is gpu, but PyTorch finds none: use auto or cpu, or install PyTorch for it"
        )
    gpu = there and config.run.device != "cpu"
    if config.model.liger and not gpu:
        raise ConfigurationError("model.liger needs a GPU: set it to false here")
    return gpu


def common_arguments(
    config: SftConfig | GrpoConfig, *, micro_batch: int, accumulation: int, gpu: bool
) -> dict[str, Any]:
    """Return the arguments that both of TRL's trainers take."""
    run, optimizer = config.run, config.optimizer
    return {
        "output_dir": str(run.out),
        "per_device_train_batch_size": micro_batch,
        "gradient_accumulation_steps": accumulation,
        "num_train_epochs": run.epochs or 1.0,
        "max_steps": run.steps or -1,
        "learning_rate": optimizer.learning_rate,
        "lr_scheduler_type": SCHEDULES[optimizer.schedule],
        # Below 1 it is a share.
        "warmup_steps": optimizer.warmup_steps or optimizer.warmup_share,
        "weight_decay": optimizer.weight_decay,
        "adam_beta1": optimizer.betas[0],
        "adam_beta2": optimizer.betas[1],
        "max_grad_norm": optimizer.clip_norm,
        "optim": "adamw_torch",
        "bf16": config.model.dtype == "bfloat16",
        "gradient_checkpointing": config.model.gradient_checkpointing,
        "use_liger_kernel": config.model.liger,
        "seed": run.seed,
        "data_seed": run.seed,
        "logging_steps": run.log_every,
        "save_strategy": "steps",
        "save_steps": run.save_every,
        "save_total_limit": run.keep,
        "eval_strategy": "steps" if config.data.evaluation else "no",
        "eval_steps": run.evaluate_every,
        "use_cpu": not gpu,
        "dataloader_pin_memory": gpu,
        "report_to": [],
        "disable_tqdm": True,
    }


def adapter(lora: Lora | None) -> Any:
    """Return peft's configuration of an adapter; None = none is wanted. Raises ConfigurationError."""
    if lora is None:
        return None
    try:
        peft = library("peft")
    except ImportError as exc:
        raise ConfigurationError("model.lora needs peft: pip install peft") from exc
    targets = lora.targets if isinstance(lora.targets, str) else list(lora.targets)
    return peft.LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets, task_type="CAUSAL_LM"
    )


@contextlib.contextmanager
def quiet() -> Generator[None]:
    """Keep the libraries from talking over the progress lines."""
    logging: Any = library("transformers.utils.logging")
    datasets: Any = library("datasets")
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    datasets.disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        logging.enable_progress_bar()
        datasets.enable_progress_bars()


def train(
    trainer: Any, folder: RunFolder, journal: Any, *, checkpoint: Path | None, source: Path, tokenizer: Any
) -> Path:
    """Train to the end from a checkpoint, or from the start; return the folder of the trained model."""
    trainer.remove_callback(library("transformers").PrinterCallback)
    # One process uses one device; more would split batches behind our back.
    trainer.args._n_gpu = min(1, trainer.args.n_gpu)
    _check_space(trainer, folder)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    journal.draw()
    network = trainer.accelerator.unwrap_model(trainer.model)
    if hasattr(network, "merge_and_unload"):
        network = network.merge_and_unload()
    save_final(network, tokenizer, source, folder.final)
    return folder.final


def _check_space(trainer: Any, folder: RunFolder) -> None:
    trained = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    everything = sum(p.numel() for p in trainer.model.parameters())
    # While one is written, those to keep are still there; the final model comes on top.
    needed = CHECKPOINT_BYTES * trained * (trainer.args.save_total_limit + 1) + CHECKPOINT_BYTES // 3 * everything
    free = shutil.disk_usage(folder.path).free
    if free < needed:
        raise StoreFull(
            f"checkpoints and the model take up to {needed / 1e9:.1f} GB and {folder.path} has {free / 1e9:.1f} GB: free some "
            "space, lower run.keep, or name another folder in run.out"
        )
