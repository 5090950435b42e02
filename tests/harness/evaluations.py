"""Runs of evaluations as `k2think eval run` writes them, made up: what each answer came to is said by the test."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from k2think.evaluation.records import OutcomeLog, data_sha256, write_items, write_manifest
from k2think.schemas.completion import TokenUsage
from k2think.schemas.evaluation import (
    Comparison,
    Graded,
    Item,
    Manifest,
    Outcome,
    Row,
    Spent,
    Status,
    TargetSpec,
)
from k2think.schemas.scores import Domain, Task

TOKENS = 100
"""Completion tokens of every made-up sample."""
SPECS: dict[str, dict[str, Any]] = {
    "single": {"row": Row.single},
    "best3": {"row": Row.self_scaffold, "policy": {"n": 3}},
    "outside3": {"row": Row.outside_scaffold, "policy": {"n": 3}, "outside_models": ("big-judge",)},
}


def items(sizes: dict[str, int]) -> list[Item]:
    """Problems of a suite, so many of each subset."""
    return [
        Item(
            task=Task(
                id=f"{subset}-{number}",
                domain=Domain.math,
                source="made-up",
                prompt=f"What is {number} + 1?",
                truth=number + 1,
            ),
            subset=subset,
        )
        for subset, size in sizes.items()
        for number in range(size)
    ]


def sample(answer: str | None, *, right: bool = False, status: Status | None = None, **more: Any) -> Graded:
    """One text, graded; without an answer it is one that could not be parsed."""
    found = status or (Status.unparsed if answer is None else Status.graded)
    usual: dict[str, Any] = {
        "reason": "equal" if right else "different",
        "usage": TokenUsage(prompt=50, completion=TOKENS),
        "text": f"<answer>{answer}</answer>",
    }
    return Graded(status=found, answer=answer, correct=right, value=float(right), **(usual | more))


def right_or_wrong(right: bool, generator: random.Random | None = None) -> Graded:
    """A right answer, or one of three wrong ones."""
    return sample("42" if right else (generator or random).choice(["7", "8", "9"]), right=right)


def spent(calls: int, completion: int, cost: float | None = None) -> Spent:
    """What a role cost."""
    return Spent(
        calls=calls, usage=TokenUsage(prompt=50 * calls, completion=completion), seconds=0.5 * calls, cost=cost
    )


def outcome(item: Item, target: str, final: Graded, *, repeat: int = 0, **more: Any) -> Outcome:
    """One sample asked once, with an honest ledger."""
    honest = {"candidates": (final,), "chosen": 0, "spent": {"generator": spent(1, final.usage.completion)}}
    return Outcome(item=item.task.id, target=target, repeat=repeat, final=final, seconds=1.0, at=1e9, **(honest | more))


def chosen_among(item: Item, target: str, samples: Sequence[Graded], choice: int, **more: Any) -> Outcome:
    """Best-of-N with a judge, with an honest ledger."""
    comparisons: Sequence[Comparison] = more.pop("comparisons", ())
    ledger = {"generator": spent(len(samples), sum(one.usage.completion for one in samples))}
    if comparisons:
        ledger["verifier"] = spent(len(comparisons), 10 * len(comparisons))
    honest = {"candidates": tuple(samples), "chosen": choice, "comparisons": tuple(comparisons), "spent": ledger}
    return outcome(item, target, samples[choice], **(honest | more))


@dataclass
class MadeUp:
    """A run to be written."""

    items: list[Item]
    targets: dict[str, dict[str, Any]]
    """Fields of each target's spec; see SPECS."""
    outcomes: list[Outcome] = field(default_factory=list[Outcome])
    manifest: dict[str, Any] = field(default_factory=dict[str, Any])
    """Fields of the manifest that differ."""

    def ask(self, target: str, answer: Callable[[Item, int], Outcome], *, repeats: int = 1) -> None:
        """Add an outcome for each problem and repeat."""
        self.outcomes += [answer(item, repeat) for item in self.items for repeat in range(repeats)]

    def write(self, folder: Path) -> Path:
        """Write it."""
        folder.mkdir(parents=True, exist_ok=True)
        fields = {
            "suite": "made_up",
            "data_sha256": data_sha256(self.items),
            "items": len(self.items),
            "repeats": max((one.repeat for one in self.outcomes), default=0) + 1,
            "targets": tuple(
                TargetSpec(**({"name": name, "model": "mini", "sampling": {"temperature": 1.0}} | fields))
                for name, fields in self.targets.items()
            ),
            "k2think_version": "0.1.0",
            "grader_sha256": "0" * 64,
            "created_at": 1e9,
        } | self.manifest
        write_manifest(folder, Manifest(**fields))
        write_items(folder, self.items)
        with OutcomeLog(folder) as log:
            for one in self.outcomes:
                log.append(one)
        return folder


def three_rows(sizes: dict[str, int], *, seed: int = 1, skill: float = 0.6) -> MadeUp:
    """A model in all three rows, two repeats each: skill by problem, a judge that is right in three of four, both orders."""
    generator = random.Random(seed)
    run = MadeUp(items(sizes), dict(SPECS))
    chance = {item.task.id: min(1.0, max(0.0, generator.gauss(skill, 0.25))) for item in run.items}

    def one(item: Item) -> Graded:
        return right_or_wrong(generator.random() < chance[item.task.id], generator)

    def judged(item: Item, repeat: int, target: str) -> Outcome:
        samples = [one(item) for _ in range(3)]
        best = max(range(3), key=lambda index: (samples[index].correct, -index))
        choice = best if generator.random() < 0.75 else generator.randrange(3)
        other = (choice + 1) % 3
        verdicts = [
            Comparison(first=choice, second=other, choice=choice, usable=True),
            Comparison(first=other, second=choice, choice=choice if generator.random() < 0.8 else other, usable=True),
        ]
        return chosen_among(item, target, samples, choice, comparisons=verdicts, repeat=repeat)

    run.ask("single", lambda item, repeat: outcome(item, "single", one(item), repeat=repeat), repeats=2)
    for target in ("best3", "outside3"):
        run.ask(target, lambda item, repeat, target=target: judged(item, repeat, target), repeats=2)
    return run
