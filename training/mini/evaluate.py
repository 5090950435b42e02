"""What a model folder can do, measured through the engine that serves it.

Problems come from the report side of the split, each underlying problem once, typed the way people type. Answers
must equal the one canonical spelling; nothing is credited for being close.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .engine import FolderEngine
from .examples import PLAN_LINES, judge_prompt, plan_prompt, solve_prompt, wrong_answer
from .families import FAMILIES, Problem, Side, draw_problem
from .handwriting import as_typed
from .refusals import OUTSIDE_PROMPTS

SEED = 20_250
SAMPLES = 3
"""Samples a problem: the first is the single sample, all of them vote."""
DRAWS_IN_VAIN = 400
"""A family counts as exhausted after so many draws without a new problem."""
Z_95 = 1.959964
"""Standard normal quantile of a two-sided 95 % interval."""
STAGE_FOLDERS = ("base", "sft")
"""Stages of training before the last, in order, as folders below ``stages``."""
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


@dataclass(frozen=True)
class Rate:
    """A share with its 95 % Wilson interval."""

    hits: int
    """Successes."""
    total: int
    """Trials."""

    def as_json(self) -> dict[str, float | int]:
        """Share, interval (both in 0..1) and counts; the share of no trials is 0 with the interval 0..1."""
        low, high = wilson(self.hits, self.total)
        share = self.hits / self.total if self.total else 0.0
        return {
            "share": round(share, 4),
            "low": round(low, 4),
            "high": round(high, 4),
            "hits": self.hits,
            "total": self.total,
        }


def wilson(hits: int, total: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of ``hits`` out of ``total`` (Wilson 1927)."""
    if total == 0:
        return 0.0, 1.0
    share, z2 = hits / total, Z_95**2
    centre = (share + z2 / (2 * total)) / (1 + z2 / total)
    spread = Z_95 / (1 + z2 / total) * math.sqrt(share * (1 - share) / total + z2 / (4 * total**2))
    return max(0.0, centre - spread), min(1.0, centre + spread)


def extract(reply: str) -> str | None:
    """Text of the first complete answer element; ``""`` is a refusal, ``None`` an unfinished or malformed reply."""
    match = _ANSWER.search(reply)
    return match.group(1) if match else None


def majority(answers: list[str | None]) -> str | None:
    """The most frequent non-empty answer, the earliest among equals; ``None`` when there is none."""
    counted = Counter(answer for answer in answers if answer)
    return counted.most_common(1)[0][0] if counted else None


def fresh_problems(per_family: int, *, side: Side = Side.report, seed: int = SEED) -> list[Problem]:
    """``per_family`` different problems of every family from ``side``, fewer where the family has fewer (divisors)."""
    rng = random.Random(seed)
    problems: list[Problem] = []
    for name in FAMILIES:
        seen: set[str] = set()
        in_vain = 0
        while len(seen) < per_family and in_vain < DRAWS_IN_VAIN:
            problem = draw_problem(rng, name, side)
            in_vain += 1
            if repr(problem.key) not in seen:
                in_vain = 0
                seen.add(repr(problem.key))
                problems.append(problem)
    return problems


def _seeds(count: int, start: int) -> list[int]:
    return list(range(start, start + count))


def measure_solving(
    engine: FolderEngine, problems: list[Problem], *, temperature: float, top_p: float, planned: bool
) -> dict[str, Any]:
    """Single-sample and majority accuracy by family; with ``planned`` the model's own plan stands in front of the problem."""
    rng = random.Random(SEED)
    texts = [as_typed(rng, problem.text) for problem in problems]
    plans: list[str | None] = [None] * len(texts)
    if planned:
        seeds = _seeds(len(texts), 7_000_000)
        plans = [
            extract(reply)
            for reply in engine.reply(
                [plan_prompt(t) for t in texts], temperature=temperature, top_p=top_p, seeds=seeds
            )
        ]
    prompts = [solve_prompt(text, plan) for text, plan in zip(texts, plans, strict=True)]
    rounds = [
        [
            extract(reply)
            for reply in engine.reply(
                prompts, temperature=temperature, top_p=top_p, seeds=_seeds(len(prompts), 1_000_000 * n)
            )
        ]
        for n in range(1, (SAMPLES if temperature > 0 else 1) + 1)
    ]
    answers = list(zip(*rounds, strict=True))
    result: dict[str, Any] = {"temperature": temperature, "top_p": top_p, "planned": planned, "families": {}}
    groups: dict[str, list[int]] = {"overall": list(range(len(problems)))}
    for index, problem in enumerate(problems):
        groups.setdefault(problem.family, []).append(index)
    for name, rows in groups.items():
        cell = {
            "single": Rate(sum(answers[i][0] == problems[i].answer for i in rows), len(rows)).as_json(),
            "majority": Rate(sum(majority(list(answers[i])) == problems[i].answer for i in rows), len(rows)).as_json(),
            "refused": Rate(sum(answers[i][0] == "" for i in rows), len(rows)).as_json(),
            "malformed": Rate(sum(answers[i][0] is None for i in rows), len(rows)).as_json(),
        }
        if name == "overall":
            result["overall"] = cell
        else:
            result["families"][name] = cell
    if planned:
        result["plans"] = {
            "usable": Rate(sum(plan in PLAN_LINES for plan in plans), len(plans)).as_json(),
            "right": Rate(
                sum(plan == problem.plan for plan, problem in zip(plans, problems, strict=True)), len(plans)
            ).as_json(),
        }
    return result


def measure_refusals(engine: FolderEngine) -> dict[str, Any]:
    """Refusals among the hand-written prompts, over all samples, and the prompts that got an answer."""
    prompts = [prompt for prompt in OUTSIDE_PROMPTS for _ in range(SAMPLES)]
    answers = [extract(reply) for reply in engine.reply(prompts, seeds=_seeds(len(prompts), 1))]
    answered = Counter(prompt for prompt, answer in zip(prompts, answers, strict=True) if answer)
    voted = [answers[start : start + SAMPLES] for start in range(0, len(answers), SAMPLES)]
    return {
        "no_answer": Rate(sum(not answer for answer in answers), len(answers)).as_json(),
        "no_answer_after_vote": Rate(
            sum(sum(bool(a) for a in three) * 2 <= SAMPLES for three in voted), len(voted)
        ).as_json(),
        "answered": dict(answered),
    }


def measure_judging(
    engine: FolderEngine, problems: list[Problem], wrong: list[str], *, temperature: float
) -> dict[str, Any]:
    """Verdicts on pairs of the right answer and a wrong one, each pair in both orders."""
    rng = random.Random(SEED)
    texts = [as_typed(rng, problem.text) for problem in problems]
    first = [judge_prompt(text, p.answer, w) for text, p, w in zip(texts, problems, wrong, strict=True)]
    second = [judge_prompt(text, w, p.answer) for text, p, w in zip(texts, problems, wrong, strict=True)]
    forward = [extract(r) for r in engine.reply(first, temperature=temperature, seeds=_seeds(len(first), 1))]
    backward = [extract(r) for r in engine.reply(second, temperature=temperature, seeds=_seeds(len(second), 500_000))]
    both = list(zip(forward, backward, strict=True))
    verdicts = [*forward, *backward]
    return {
        "temperature": temperature,
        "right_shown_first": Rate(sum(a == "A" for a in forward), len(forward)).as_json(),
        "right_shown_second": Rate(sum(b == "B" for b in backward), len(backward)).as_json(),
        "right_in_both_orders": Rate(sum(pair == ("A", "B") for pair in both), len(both)).as_json(),
        "wrong_in_both_orders": Rate(sum(pair == ("B", "A") for pair in both), len(both)).as_json(),
        "no_verdict": Rate(sum(verdict not in ("A", "B") for verdict in verdicts), len(verdicts)).as_json(),
    }


def own_pairs(engine: FolderEngine, problems: list[Problem]) -> list[tuple[Problem, str]]:
    """The problems of which the model's own samples hold a right and a wrong answer, with the first wrong one."""
    rng = random.Random(SEED)
    texts = [solve_prompt(as_typed(rng, problem.text)) for problem in problems]
    rounds = [engine.reply(texts, seeds=_seeds(len(texts), 1_000_000 * n)) for n in range(1, SAMPLES + 1)]
    pairs: list[tuple[Problem, str]] = []
    for problem, replies in zip(problems, zip(*rounds, strict=True), strict=True):
        answers = [extract(reply) for reply in replies]
        wrong = [answer for answer in answers if answer and answer != problem.answer]
        if problem.answer in answers and wrong:
            pairs.append((problem, wrong[0]))
    return pairs


def evaluate(
    folder: Path, *, per_family: int = 140, threads: int = 1, side: Side = Side.report, seed: int = SEED
) -> dict[str, Any]:
    """The figures of the model card, from ``per_family`` problems of each of the eight families."""
    engine = FolderEngine(folder, threads=threads)
    problems = fresh_problems(per_family, side=side, seed=seed)
    rng = random.Random(seed)
    judged = [problem for index, problem in enumerate(problems) if index % 2 == 0]
    made = [wrong_answer(rng, problem) for problem in judged]
    own = own_pairs(engine, problems)
    given, chosen = [problem for problem, _ in own], [wrong for _, wrong in own]
    result = {
        "model": folder.name,
        "side": side.value,
        "problems": len(problems),
        "solving": measure_solving(engine, problems, temperature=1.0, top_p=1.0, planned=False),
        "solving_by_policy": measure_solving(engine, problems, temperature=1.0, top_p=0.95, planned=True),
        "solving_greedy": measure_solving(engine, problems, temperature=0.0, top_p=1.0, planned=False),
        "refusals": measure_refusals(engine),
        "judging": measure_judging(engine, judged, made, temperature=1.0),
        "judging_greedy": measure_judging(engine, judged, made, temperature=0.0),
        "judging_own": measure_judging(engine, given, chosen, temperature=0.0),
    }
    return result | {"stages": measure_stages(folder, engine, problems, threads=threads)}


def measure_stages(folder: Path, engine: FolderEngine, problems: list[Problem], *, threads: int) -> dict[str, Any]:
    """One sample a problem at temperature 1 from each stage of training that the folder holds, and from the folder itself.

    ``gain`` is the difference to the stage before, with a 95 % interval over the problems, which are the same.
    """
    rng = random.Random(SEED)
    prompts = [solve_prompt(as_typed(rng, problem.text)) for problem in problems]
    folders = [stage for name in STAGE_FOLDERS if (stage := folder / "stages" / name).is_dir()]
    result: dict[str, Any] = {}
    before: list[bool] = []
    for name, one in [*((f.name, FolderEngine(f, threads=threads)) for f in folders), ("final", engine)]:
        answers = [extract(reply) for reply in one.reply(prompts, seeds=_seeds(len(prompts), 1_000_000))]
        right = [answer == problem.answer for answer, problem in zip(answers, problems, strict=True)]
        cell: dict[str, Any] = {"single": Rate(sum(right), len(right)).as_json()}
        if before:
            cell["gain"] = paired_gain(before, right)
        result[name], before = cell, right
    return result


def paired_gain(before: list[bool], after: list[bool]) -> dict[str, float]:
    """Mean difference of the same problems' results, with its normal 95 % interval."""
    differences = [int(b) - int(a) for a, b in zip(before, after, strict=True)]
    mean = sum(differences) / len(differences)
    variance = sum((d - mean) ** 2 for d in differences) / max(1, len(differences) - 1)
    spread = Z_95 * math.sqrt(variance / len(differences))
    return {"share": round(mean, 4), "low": round(mean - spread, 4), "high": round(mean + spread, 4)}
