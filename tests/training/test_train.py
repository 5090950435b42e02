"""A tiny training run, where torch is installed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (extra `train`)")

TOKENS = 4096


def _digest(checkpoint: Path) -> str:
    from k2think.training.mini.train import load_model

    weights = load_model(checkpoint).state_dict()
    joined = b"".join(weights[name].numpy().tobytes() for name in sorted(weights))
    return hashlib.sha256(joined).hexdigest()


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    from k2think.training.mini.curve import draw_curve, read_metrics
    from k2think.training.mini.train import TrainingPlan, train

    # When a run is made twice
    first, second = (train(TrainingPlan(out=tmp_path / name, seed=3, tokens=TOKENS, workers=2)) for name in "ab")
    # Then the weights are equal to the last bit
    digest = _digest(first)
    assert digest == _digest(second)
    # And metrics and curve are written
    rows = read_metrics(tmp_path / "a" / "metrics.jsonl")
    assert rows[-1]["final"] is True
    assert {"arithmetic", "judge", "plan", "refuse"} <= rows[-1]["probe"].keys()
    draw_curve(tmp_path / "a" / "metrics.jsonl", tmp_path / "curve.svg")
    assert (tmp_path / "curve.svg").read_text(encoding="utf-8").startswith("<svg")
    # And a resumed run goes on where the first one ended
    train(TrainingPlan(out=tmp_path / "a", seed=3, tokens=2 * TOKENS, workers=1, resume=True))
    resumed = read_metrics(tmp_path / "a" / "metrics.jsonl")
    assert resumed[-1]["tokens"] >= 2 * TOKENS
    assert _digest(first) != digest
    assert resumed[-1]["step"] > rows[-1]["step"]
    assert json.dumps(resumed[: len(rows)]) == json.dumps(rows)


def test_loss_falls_on_a_repeated_batch() -> None:
    import random

    from k2think.training.mini.model import MiniModel, ModelConfig
    from k2think.training.mini.tokens import VOCABULARY
    from k2think.training.mini.train import Batches, completion_scores

    torch.manual_seed(0)
    model = MiniModel(ModelConfig(vocabulary=len(VOCABULARY), layers=2))
    inputs, targets = Batches(random.Random(1)).next(512)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses: list[float] = []
    for _ in range(8):
        loss = torch.nn.functional.cross_entropy(*completion_scores(model, inputs, targets))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 1.0


def test_the_loss_covers_completions_only() -> None:
    from k2think.training.mini.examples import Example
    from k2think.training.mini.train import IGNORED, to_tensors

    inputs, targets = to_tensors(8, [Example([5, 6, 7], [8, 9, 1])])
    assert inputs.tolist() == [[5, 6, 7, 8, 9, 1, 0, 0]]
    assert targets.tolist() == [[IGNORED, IGNORED, 8, 9, 1, IGNORED, IGNORED, IGNORED]]
