"""Supervised fine-tuning on one machine: TRL's trainer on our typed conversations."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..schemas.errors import ConfigurationError
from .config import SftConfig
from .conversations import TokenisedSet, tokenise_examples
from .model_folder import find_model, has_flash_attention, load_model, load_tokenizer
from .plot import SFT_PANELS
from .records import SftExample, read_examples
from .run_folder import RunFolder, manifest_of
from .trainer import adapter, common_arguments, library, quiet, train, use_gpu


@dataclass(frozen=True)
class SftInputs:
    """What a run begins with, looked at and counted."""

    model: Path
    """Folder of the model."""
    tokenizer: Any
    train: TokenisedSet
    evaluation: TokenisedSet

    def described(self, config: SftConfig) -> str:
        """Return what a run would do, in lines."""
        rows, batch = len(self.train.rows), config.sft.batch
        steps = config.run.steps or max(1, int((config.run.epochs or 1) * -(-rows // batch)))
        return "\n".join(
            [
                f"model: {self.model}",
                f"conversations: {rows} ({self.train.tokens} tokens, {self.train.counted_tokens} of the assistant's); "
                f"left out as longer than {config.sft.max_tokens} tokens: {self.train.too_long}",
                f"held out: {len(self.evaluation.rows)}; left out: {self.evaluation.too_long}",
                f"steps: {'about ' if config.run.steps is None else ''}{steps} of {batch} sequences",
                f"out: {config.run.out}",
            ]
        )


def look_at(config: SftConfig, *, weights: bool = False) -> SftInputs:
    """Read and count everything that a run needs; `weights` = find those, too, and do not only count. Raises K2ThinkError."""
    examples, held_out = _read(config.data.train), _read(config.data.evaluation)
    model = find_model(config.model, weights=weights)
    tokenizer = load_tokenizer(model, config.model)
    sets = [
        tokenise_examples(tokenizer, some, system=config.data.system, max_tokens=config.sft.max_tokens)
        for some in (examples, held_out)
    ]
    if not sets[0].rows:
        raise ConfigurationError(
            f"data.train holds no conversation of at most {config.sft.max_tokens} tokens ({sets[0].too_long} are longer): "
            "raise sft.max_tokens"
        )
    return SftInputs(model, tokenizer, *sets)


def _read(paths: tuple[Path, ...]) -> list[SftExample]:
    return [example for path in paths for example in read_examples(path)]


def train_sft(config: SftConfig, *, resume: bool = False) -> Path:
    """Train, and return the folder of the trained model. Raises K2ThinkError."""
    inputs = look_at(config, weights=True)
    gpu = use_gpu(config)
    if config.sft.packing and not (gpu and has_flash_attention()):
        raise ConfigurationError(
            "sft.packing needs FlashAttention on a GPU, or conversations in one sequence would see each other: set it to false"
        )
    folder = RunFolder(config.run.out)
    manifest = manifest_of(config, model=inputs.model)
    checkpoint = folder.resume(manifest) if resume else folder.begin(manifest)
    from .journal import Journal

    trl, datasets = library("trl"), library("datasets")
    method = config.sft
    with quiet():
        arguments = trl.SFTConfig(
            **common_arguments(
                config, micro_batch=method.micro_batch, accumulation=method.batch // method.micro_batch, gpu=gpu
            ),
            per_device_eval_batch_size=method.micro_batch,
            max_length=method.max_tokens,
            packing=method.packing,
            eval_packing=False,
            train_sampling_strategy="random" if config.data.shuffle else "sequential",
            # What is tokenised and labelled already needs only packing.
            dataset_kwargs={"skip_prepare_dataset": not method.packing},
        )
        journal = Journal(folder, SFT_PANELS, tokens_before=folder.last("tokens"))
        trainer = trl.SFTTrainer(
            model=load_model(inputs.model, config.model, gpu=gpu),
            args=arguments,
            train_dataset=datasets.Dataset.from_list(inputs.train.rows),
            eval_dataset=datasets.Dataset.from_list(inputs.evaluation.rows) if inputs.evaluation.rows else None,
            processing_class=inputs.tokenizer,
            callbacks=[journal],
            peft_config=adapter(config.model.lora),
        )
        return train(trainer, folder, journal, checkpoint=checkpoint, source=inputs.model, tokenizer=inputs.tokenizer)
