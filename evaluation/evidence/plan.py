"""What is measured: who is asked, which problems, and which figures are held against each other. Declared before it is run."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...agents.backends.openvino_folder import MODELS_DIR
from ...schemas.evaluation import Item
from ...schemas.policy import ANSWER_STOP
from ...training.mini.examples import PLAN_LINES, solve_prompt
from ...training.mini.families import FAMILIES
from ..targets.definition import Definition

PROBLEMS = 2_000
"""Fresh problems of the report side; the issue of a smaller number is an interval that says little."""
REPORT_SEED = 1_000_001
"""Raised with every model that is shipped: what the page said of the last one may have led to the recipe of this one."""
SAMPLES = 3
MODEL = MODELS_DIR / "k2think-mini"
BASE, SFT = MODEL / "stages" / "base", MODEL / "stages" / "sft"
TRAINING_DATA = "procedural problems of training/mini; one underlying problem in twenty is held out, by its hash"

_ALONE: dict[str, Any] = {"n": 1, "plan": "off", "selection": "first", "early_stop": False}
_WHOLE: dict[str, Any] = {**_ALONE, "sampling": {"top_p": 1.0}}
"""From the whole distribution at T = 1, which GRPO's samples are drawn from; served are its most likely 95 %."""
_THREE: dict[str, Any] = {"n": SAMPLES, "plan": "off", "early_stop": False}
_JUDGED: dict[str, Any] = {"selection": "consensus_then_pairwise"}


def _target(policy: dict[str, Any], *, model: Path | None = None) -> Definition:
    alone = policy["n"] == 1 and policy["plan"] == "off"
    return Definition.model_validate(
        {
            "row": "single" if alone else "self_scaffold",
            "policy": policy,
            "model": None if model is None else str(model),
            "training_data": TRAINING_DATA,
        }
    )


def main_targets() -> dict[str, Definition]:
    """Return the targets that are asked the problems as they are."""
    return {
        "base": _target(_ALONE, model=BASE),
        "sft": _target(_ALONE, model=SFT),
        "mini": _target(_ALONE),
        "sft-whole": _target(_WHOLE, model=SFT),
        "mini-whole": _target(_WHOLE),
        "sft-vote": _target({**_THREE, "selection": "vote"}, model=SFT),
        "sft-consensus": _target({**_THREE, **_JUDGED}, model=SFT),
        "plan": _target({**_ALONE, "plan": "shared"}),
        "vote": _target({**_THREE, "selection": "vote"}),
        "pairwise": _target({**_THREE, "selection": "pairwise"}),
        "consensus": _target({**_THREE, **_JUDGED}),
        "both": _target({**_THREE, **_JUDGED, "plan": "shared"}),
        "early": _target({**_THREE, **_JUDGED, "plan": "shared", "early_stop": True}),
    }


def control_targets() -> dict[str, Definition]:
    """Return the target that is given another family's plan: the prompt is sent as it stands, with nothing around it."""
    return {
        "shuffled": Definition.model_validate(
            {
                "row": "single",
                "backend": "openvino",
                "templates": "plain",
                "sampling": {"stop": [ANSWER_STOP]},
                "training_data": TRAINING_DATA,
            }
        )
    }


def with_foreign_plans(items: Sequence[Item]) -> tuple[Item, ...]:
    """Return the same problems with a plan before each that belongs to another family, chosen by the problem's hash."""
    return tuple(
        item.model_copy(
            update={
                "task": item.task.model_copy(
                    update={"prompt": solve_prompt(" ".join(item.task.prompt.split()), _foreign_plan(item))}
                )
            }
        )
        for item in items
    )


def _foreign_plan(item: Item) -> str:
    foreign = [line for line in PLAN_LINES if line not in FAMILIES[item.subset].plans]
    digest = hashlib.sha256(item.task.id.encode()).digest()
    return foreign[int.from_bytes(digest[:8], "big") % len(foreign)]


@dataclass(frozen=True, slots=True)
class Claim:
    """One figure held against another."""

    ours: str
    """Target."""
    theirs: str
    """What it is compared with."""
    about: str
    """The pillar or the question, in words."""
    at_least: float | None = None
    """Gain that is asked for, as a share; None = any gain whose interval is above 0."""
    equal: bool = False
    """Whether it is to make no difference, instead of a gain."""


CLAIMS = (
    Claim("sft", "base", "long chain-of-thought SFT"),
    Claim("mini-whole", "sft-whole", "reinforcement learning (GRPO), whole distribution", at_least=0.05),
    Claim("mini", "sft", "reinforcement learning (GRPO), as served", at_least=0.05),
    Claim("sft-vote", "sft", "best of 3 by a vote, before GRPO"),
    Claim("sft-consensus", "sft-vote", "what the judge adds to the vote, before GRPO"),
    Claim("mini", "sft-vote", "one sample after GRPO against a vote of 3 before it"),
    Claim("plan", "mini", "planning before thinking"),
    Claim("plan", "shuffled", "the right plan against another family's (control)"),
    Claim("vote", "mini", "best of 3 by a vote alone"),
    Claim("pairwise", "mini", "best of 3 by pairwise comparison alone (the paper's)"),
    Claim("consensus", "mini", "best of 3 by consensus, then pairwise comparison"),
    Claim("consensus", "vote", "what the judge adds to the vote"),
    Claim("both", "mini", "plan and best of 3 together"),
    Claim("both", "consensus", "what the plan adds to best of 3"),
    Claim("early", "both", "early stop", equal=True),
)
ROOM_ASKED = 0.5
"""Share of the room between single sample and oracle@3 that best of 3 is asked to close."""
