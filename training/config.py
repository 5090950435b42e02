"""What `k2think train sft|grpo CONFIG.yaml` is told, typed. The same file serves one machine and the exports for a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from ..schemas.base import Frozen


class Lora(Frozen):
    """Train small matrices beside frozen weights rather than the weights."""

    rank: int = Field(gt=0)
    """Inner size of the matrices."""
    alpha: float = Field(gt=0)
    """Scale: their product counts alpha / rank."""
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of their inputs left out while training, 0..1."""
    targets: tuple[str, ...] | Literal["all-linear"] = "all-linear"
    """Names of the layers that get some."""


class Model(Frozen):
    """The model that training begins with."""

    name: str = Field(min_length=1)
    """A folder in Hugging Face's form, or OWNER/NAME on the hub."""
    revision: str | None = None
    """Commit, tag or branch on the hub; None = its main branch. Folders have none."""
    tokenizer: Path | None = None
    """Folder of the tokenizer; None = the model's own (its folder `tokenizer`, where it has one)."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """What products are computed in; weights and optimiser are kept in float32."""
    gradient_checkpointing: bool = False
    """Compute activations twice rather than keep them: less memory, about a third more time."""
    liger: bool = False
    """Use Liger's fused kernels (GPU only; `pip install liger-kernel`)."""
    lora: Lora | None = None
    """None = all weights are trained."""


class Data(Frozen):
    """Which typed sets are read, in this order."""

    train: tuple[Path, ...] = Field(min_length=1)
    """JSONL files: conversations for SFT (`training/records.py`), problems for GRPO (`schemas/scores.py: Task`)."""
    evaluation: tuple[Path, ...] = ()
    """The same, held out; empty = nothing is evaluated while training."""
    shuffle: bool = True
    """Whether the order is drawn by the seed, anew for each pass; False = as it stands in the files (a curriculum)."""
    system: str | None = None
    """System message put before conversations and problems that have none; None = none is put."""


class Optimizer(Frozen):
    """AdamW and its learning rate over time."""

    learning_rate: float = Field(gt=0)
    """Peak learning rate."""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """What it does after the warm-up: stay, or fall to 0."""
    warmup_share: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of the steps in which it rises from 0."""
    warmup_steps: int = Field(default=0, ge=0)
    """The same in steps; one of the two."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW's weight decay."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's averages of gradients and of their squares."""
    clip_norm: float = Field(default=1.0, gt=0)
    """Gradients are scaled down to this norm."""

    @model_validator(mode="after")
    def _one_warmup(self) -> Self:
        if self.warmup_share and self.warmup_steps:
            raise ValueError("give warmup_share or warmup_steps, not both")
        return self


class Run(Frozen):
    """Where a run writes, how long it is, and what makes it repeatable."""

    out: Path
    """Folder for checkpoints, metrics, plot and the final model."""
    epochs: float | None = Field(default=None, gt=0)
    """Passes over the training set."""
    steps: int | None = Field(default=None, gt=0)
    """Optimiser steps; one of the two."""
    seed: int = Field(default=1, ge=0, lt=2**32)
    """Seed of data order, dropout and sampling."""
    log_every: int = Field(default=1, gt=0)
    """Steps between lines of metrics."""
    save_every: int = Field(default=100, gt=0)
    """Steps between checkpoints."""
    keep: int = Field(default=2, gt=0)
    """Checkpoints kept, newest first."""
    evaluate_every: int = Field(default=100, gt=0)
    """Steps between evaluations on `data.evaluation`."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """`auto` = a GPU where there is one."""
    threads: int | None = Field(default=None, gt=0)
    """CPU threads of one process; None = PyTorch's default."""

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give epochs or steps, one of the two")
        return self


class Cluster(Frozen):
    """What only the exports need."""

    nodes: int = Field(default=1, gt=0)
    """Machines."""
    gpus_per_node: int = Field(default=8, gt=0)
    """GPUs in each."""


class SftCluster(Cluster):
    """What the export for LLaMA-Factory needs beside the rest."""

    template: str = "chatml"
    """LLaMA-Factory's name of the chat template; `chatml` puts no system message of its own."""
    workers: int = Field(default=16, gt=0)
    """Processes that tokenise."""


class GrpoCluster(Cluster):
    """What the export for verl needs beside the rest."""

    tensor_parallel: int = Field(default=1, gt=0)
    """GPUs that share one engine while sampling."""
    sequence_parallel: int = Field(default=1, gt=0)
    """GPUs that share one sequence while training (Ulysses)."""
    tokens_per_gpu: int = Field(default=16_384, gt=0)
    """Most tokens of a micro-batch on one GPU."""
    memory_share: float = Field(default=0.7, gt=0.0, lt=1.0)
    """Share of a GPU's memory that the sampling engine takes, 0..1."""
    offload: bool = False
    """Keep weights and optimiser in the machine's memory while they are not used."""
    reward_workers: int = Field(default=8, gt=0)
    """Processes that compute rewards."""


class SftMethod(Frozen):
    """How conversations are imitated: loss on the assistant's turns only."""

    batch: int = Field(gt=0)
    """Sequences of one optimiser step, over all devices."""
    micro_batch: int = Field(gt=0)
    """Sequences that go through the model at once on one device; divides `batch`."""
    max_tokens: int = Field(gt=0)
    """Longest conversation in tokens; longer ones are left out, and counted."""
    packing: bool = False
    """Put several conversations into one sequence of `max_tokens` (needs FlashAttention, so a GPU)."""

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.batch % self.micro_batch:
            raise ValueError(f"batch ({self.batch}) must be a multiple of micro_batch ({self.micro_batch})")
        return self


class GrpoMethod(Frozen):
    """How the policy learns from rewards: group-relative advantages, clipped ratios (arXiv 2402.03300)."""

    prompts: int = Field(gt=0)
    """Problems of one round of sampling."""
    rollouts: int = Field(ge=2)
    """Answers sampled for each."""
    update_prompts: int = Field(gt=0)
    """Problems of one optimiser step; divides `prompts`. Smaller = the later steps of a round are off-policy."""
    micro_batch: int = Field(gt=0)
    """Answers that go through the model at once; divides `update_prompts` x `rollouts`."""
    max_prompt_tokens: int = Field(gt=0)
    """Longest prompt in tokens; longer problems are left out, and counted."""
    max_completion_tokens: int = Field(gt=0)
    """Answers are cut here."""
    opens_thinking: bool = False
    """Whether the model's chat template ends a prompt with `<think>`, so that answers begin inside it."""
    temperature: float = Field(default=1.0, gt=0)
    """Of sampling."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Of sampling."""
    clip_low: float = Field(default=0.2, gt=0, lt=1)
    """Ratios below 1 - this are clipped."""
    clip_high: float = Field(default=0.2, gt=0)
    """Ratios above 1 + this are clipped."""
    dual_clip: float | None = Field(default=None, gt=1)
    """Largest ratio that counts where the advantage is negative; None = any."""
    kl: float = Field(default=0.0, ge=0)
    """Weight of the divergence from the first policy; 0 = none, and no copy of it is kept."""
    entropy: float = 0.0
    """Weight of the entropy bonus."""
    loss: Literal["token_mean", "sequence_mean"] = "token_mean"
    """What the loss is a mean of: all tokens of a step, or each answer's mean."""
    scale_by_deviation: bool = True
    """Whether advantages are divided by their group's standard deviation."""
    mask_truncated: bool = False
    """Whether answers that were cut are left out of the loss."""
    graded_at_once: int = Field(default=4, gt=0)
    """Answers that are graded at the same time."""

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.prompts % self.update_prompts:
            raise ValueError(f"prompts ({self.prompts}) must be a multiple of update_prompts ({self.update_prompts})")
        if self.update_prompts * self.rollouts % self.micro_batch:
            raise ValueError(
                f"update_prompts x rollouts ({self.update_prompts * self.rollouts}) must be a multiple of "
                f"micro_batch ({self.micro_batch})"
            )
        return self

    @property
    def updates_per_round(self) -> int:
        """Optimiser steps made from one round of sampling."""
        return self.prompts // self.update_prompts


class SftConfig(Frozen):
    """A whole file for `train sft`."""

    model: Model
    data: Data
    sft: SftMethod
    optimizer: Optimizer
    run: Run
    cluster: SftCluster = SftCluster()


class GrpoConfig(Frozen):
    """A whole file for `train grpo`."""

    model: Model
    data: Data
    grpo: GrpoMethod
    optimizer: Optimizer
    run: Run
    cluster: GrpoCluster = GrpoCluster()

    @model_validator(mode="after")
    def _saves_between_rounds(self) -> Self:
        # A round's answers are not part of a checkpoint.
        rounds = self.grpo.updates_per_round
        if self.run.save_every % rounds:
            raise ValueError(
                f"run.save_every ({self.run.save_every}) must be a multiple of grpo.prompts / grpo.update_prompts "
                f"({rounds}): a checkpoint in the middle of a round could not be resumed exactly"
            )
        return self
