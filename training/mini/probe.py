"""A quick look at a model in training, on development problems only."""

# pyright: reportMissingImports=false, reportUntypedFunctionDecorator=false
# (torch belongs to the extra `train`; where it is missing, only its names go unchecked)

from __future__ import annotations

import random

import torch

from .batches import IGNORED, to_tensors
from .examples import FAMILY_WEIGHTS, Example, draw_example
from .families import Side
from .model import MiniModel

PROBE_EXAMPLES = 24
"""Development examples of each family in a probe."""
PROBE_SEED = 777


def probe_set() -> dict[str, list[Example]]:
    """Development examples by family, and of the judge, planner and refusal roles."""
    rng = random.Random(PROBE_SEED)
    sets = {
        name: [draw_example(rng, side=Side.development, role="solve", family=name) for _ in range(PROBE_EXAMPLES)]
        for name in FAMILY_WEIGHTS
    }
    for role in ("judge", "plan", "refuse"):
        sets[role] = [draw_example(rng, side=Side.development, role=role) for _ in range(PROBE_EXAMPLES)]
    return sets


@torch.inference_mode()
def probe(model: MiniModel, sets: dict[str, list[Example]]) -> dict[str, dict[str, float]]:
    """Share of completions that greedy decoding would write exactly, and the mean chance of sampling them at temperature 1.

    One forward pass does it: greedy decoding writes the reference exactly when every reference token is the best one
    after the reference prefix. Both figures are lower bounds of accuracy, for a right answer may come by another trace.
    """
    result: dict[str, dict[str, float]] = {}
    for name, examples in sets.items():
        longest = max(len(e.prompt) + len(e.completion) for e in examples) - 1
        inputs, targets, _ = to_tensors(longest, examples)
        chances = torch.log_softmax(model.logits(inputs), -1)
        counted = targets != IGNORED
        known = targets.clamp_min(0)
        exact = ((chances.argmax(-1) == known) | ~counted).all(-1).float().mean().item()
        sampled = (chances.gather(-1, known[..., None])[..., 0] * counted).sum(-1).exp().mean().item()
        result[name] = {"greedy": round(exact, 4), "sampled": round(sampled, 4)}
    return result
