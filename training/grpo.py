"""Reinforcement learning on one machine: TRL's GRPO on our typed problems, with grading's score as the reward."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..grading.blocking import run
from ..grading.preflight import failing_checks
from ..grading.sandbox import require_sandbox
from ..schemas.errors import ConfigurationError, GradingError, SandboxUnavailable
from ..schemas.scores import Domain, Task
from .config import GrpoConfig
from .conversations import THINK, Message, opens_thinking, prompt_of, prompt_tokens
from .model_folder import find_model, load_model, load_tokenizer
from .plot import GRPO_PANELS
from .records import read_tasks
from .rewards import Rewards
from .run_folder import RunFolder, manifest_of
from .trainer import adapter, common_arguments, library, quiet, train, use_gpu

LOSSES = {"token_mean": "dapo", "sequence_mean": "grpo"}
"""Our names of losses and TRL's."""


@dataclass(frozen=True)
class TaskSet:
    """Problems whose prompts are short enough."""

    tasks: list[Task]
    prompts: list[list[Message]]
    """One for each task."""
    too_long: int
    """Problems above the limit, left out."""


@dataclass(frozen=True)
class GrpoInputs:
    """What a run begins with, looked at and counted."""

    model: Path
    """Folder of the model."""
    tokenizer: Any
    train: TaskSet
    evaluation: TaskSet
    failing: int
    """Problems whose check fails, whatever the answer: it gets no reward."""

    def described(self, config: GrpoConfig) -> str:
        """Return what a run would do, in lines."""
        method, count = config.grpo, len(self.train.tasks)
        domains = Counter(task.domain.value for task in self.train.tasks)
        return "\n".join(
            [
                f"model: {self.model}",
                f"problems: {count} ({', '.join(f'{name} {number}' for name, number in domains.most_common())}); "
                f"left out as longer than {method.max_prompt_tokens} tokens: {self.train.too_long}",
                f"held out: {len(self.evaluation.tasks)}; left out: {self.evaluation.too_long}",
                f"checks that fail, so that no answer gets a reward: {self.failing}",
                f"steps: {steps_of(config, count)} of {method.update_prompts} problems x "
                f"{method.rollouts} answers; new answers every {method.updates_per_round}",
                f"out: {config.run.out}",
            ]
        )


def look_at(config: GrpoConfig, *, weights: bool = False) -> GrpoInputs:
    """Read and count everything that a run needs; `weights` = find those, too, and do not only count. Raises K2ThinkError."""
    tasks, held_out = _read(config.data.train), _read(config.data.evaluation)
    failing = _check_grading([*tasks, *held_out])
    model = find_model(config.model, weights=weights)
    tokenizer = load_tokenizer(model, config.model)
    if opens_thinking(tokenizer) != config.grpo.opens_thinking:
        raise ConfigurationError(
            f"grpo.opens_thinking must be {str(not config.grpo.opens_thinking).lower()}: the chat template of {model} "
            f"{'does not end' if config.grpo.opens_thinking else 'ends'} a prompt with {THINK}, and grading must know"
        )
    sets = [_fitting(tokenizer, some, config) for some in (tasks, held_out)]
    if len(sets[0].tasks) < config.grpo.prompts:
        raise ConfigurationError(
            f"data.train holds {len(sets[0].tasks)} problems of at most {config.grpo.max_prompt_tokens} tokens "
            f"({sets[0].too_long} are longer), one round takes {config.grpo.prompts}: give more, or lower grpo.prompts"
        )
    return GrpoInputs(model, tokenizer, *sets, failing=failing)


def _read(paths: tuple[Path, ...]) -> list[Task]:
    return [task for path in paths for task in read_tasks(path)]


def _check_grading(tasks: list[Task]) -> int:
    """Try the check of every problem; return how many fail. Raises ConfigurationError for what would end the run."""
    if any(task.domain is Domain.code for task in tasks):
        try:
            require_sandbox()
        except GradingError as exc:
            raise ConfigurationError(
                f"data.train holds problems of code, whose answers cannot be run here: {exc}"
            ) from exc
    failing = run(failing_checks(tasks))
    for task, failure in failing:
        if not isinstance(failure, GradingError) or isinstance(failure, SandboxUnavailable):
            raise ConfigurationError(
                f"answers to {task.id!r} ({task.source}) could not be graded here, so nothing was trained: {failure}"
            ) from failure
    return len(failing)


def _fitting(tokenizer: Any, tasks: list[Task], config: GrpoConfig) -> TaskSet:
    kept: list[Task] = []
    prompts: list[list[Message]] = []
    for task in tasks:
        prompt = prompt_of(task, system=config.data.system)
        if prompt_tokens(tokenizer, prompt) <= config.grpo.max_prompt_tokens:
            kept.append(task)
            prompts.append(prompt)
    return TaskSet(kept, prompts, len(tasks) - len(kept))


def train_grpo(config: GrpoConfig, *, resume: bool = False) -> Path:
    """Train, and return the folder of the trained model. Raises K2ThinkError."""
    inputs = look_at(config, weights=True)
    gpu = use_gpu(config)
    folder = RunFolder(config.run.out)
    manifest = manifest_of(config, model=inputs.model)
    checkpoint = folder.resume(manifest) if resume else folder.begin(manifest)
    from .journal import Journal

    trl = library("trl")
    first = len(inputs.train.tasks)
    rewards = Rewards(
        [*inputs.train.tasks, *inputs.evaluation.tasks],
        held_out_from=first,
        at_once=config.grpo.graded_at_once,
        opening=THINK if config.grpo.opens_thinking else "",
    )
    with quiet():
        rounds_per_pass = first // config.grpo.prompts
        journal = Journal(
            folder, GRPO_PANELS, rewards.figures, steps_per_pass=rounds_per_pass * config.grpo.updates_per_round
        )
        trainer = trl.GRPOTrainer(
            model=load_model(inputs.model, config.model, gpu=gpu),
            reward_funcs=rewards,
            args=trl.GRPOConfig(**_arguments(config, steps=steps_of(config, first), gpu=gpu)),
            train_dataset=_dataset(inputs.train, 0).select(order_of(config, first)),
            eval_dataset=_dataset(inputs.evaluation, first) if inputs.evaluation.tasks else None,
            processing_class=inputs.tokenizer,
            callbacks=[journal],
            peft_config=adapter(config.model.lora),
        )
        return train(trainer, folder, journal, checkpoint=checkpoint, source=inputs.model, tokenizer=inputs.tokenizer)


def steps_of(config: GrpoConfig, tasks: int) -> int:
    """Return the optimiser steps of a run; problems that fill no round are left to the next pass."""
    method = config.grpo
    return config.run.steps or int(tasks // method.prompts * (config.run.epochs or 1)) * method.updates_per_round


def order_of(config: GrpoConfig, tasks: int) -> list[int]:
    """Return which problem is asked when, over the whole run.

    The trainer's own sampler forgets how many passes it has made, so that a resumed run would repeat the first one's order.
    """
    rounds = -(-steps_of(config, tasks) // config.grpo.updates_per_round)
    wanted, per_pass = rounds * config.grpo.prompts, tasks // config.grpo.prompts * config.grpo.prompts
    order: list[int] = []
    while len(order) < wanted:
        places = list(range(tasks))
        if config.data.shuffle:
            random.Random(f"{config.run.seed}/{len(order)}").shuffle(places)
        order += places[:per_pass]
    return order[:wanted]


def _arguments(config: GrpoConfig, *, steps: int, gpu: bool) -> dict[str, Any]:
    method = config.grpo
    answers = method.update_prompts * method.rollouts
    return {
        **common_arguments(config, micro_batch=method.micro_batch, accumulation=answers // method.micro_batch, gpu=gpu),
        "max_steps": steps,
        "per_device_eval_batch_size": method.micro_batch,
        "num_generations": method.rollouts,
        "num_generations_eval": 1,
        "steps_per_generation": method.prompts * method.rollouts // method.micro_batch,
        "max_completion_length": method.max_completion_tokens,
        "temperature": method.temperature,
        "top_p": method.top_p,
        "beta": method.kl,
        "epsilon": method.clip_low,
        "epsilon_high": method.clip_high,
        "delta": method.dual_clip,
        "entropy_coef": method.entropy,
        "loss_type": LOSSES[method.loss],
        "scale_rewards": "group" if method.scale_by_deviation else "none",
        "mask_truncated_completions": method.mask_truncated,
        "shuffle_dataset": False,
        "use_vllm": False,
    }


def _dataset(tasks: TaskSet, first: int) -> Any:
    rows = [{"prompt": prompt, "index": first + place} for place, prompt in enumerate(tasks.prompts)]
    return library("datasets").Dataset.from_list(rows)
