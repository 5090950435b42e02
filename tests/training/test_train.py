"""A few real steps of base, SFT and GRPO, where torch is installed."""

# ruff: noqa: E402

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (extra `train`)")

from k2think.schemas.errors import ConfigurationError
from k2think.training.mini import batches, grpo, probe, supervised, trial
from k2think.training.mini.checkpoint import load_model, new_model, save
from k2think.training.mini.curve import draw_curve
from k2think.training.mini.examples import STRESS, Example
from k2think.training.mini.families import Side, side_of
from k2think.training.mini.grpo import GrpoPlan, Scales, accumulate, advantages
from k2think.training.mini.journal import read_metrics
from k2think.training.mini.model import MiniModel, ModelConfig
from k2think.training.mini.parallel import Exchange
from k2think.training.mini.recipe import SFT_PHASES, Recipe, make
from k2think.training.mini.sample import sample
from k2think.training.mini.tokens import EOS_ID, VOCABULARY, encode_completion, encode_prompt


@pytest.fixture(autouse=True)
def _short_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Probes and trials of a few examples."""
    for module, name in ((probe, "PROBE_EXAMPLES"), (trial, "PROBLEMS"), (trial, "JUDGED"), (trial, "OUTSIDE")):
        monkeypatch.setattr(module, name, 1)
    monkeypatch.setattr(trial, "LIMIT", 8)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Beside other tests, the threads of one small product would wait for each other longer than they work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class KilledError(Exception):
    """Stands for the end of the process."""


class Mortal(Exchange):
    """The exchange of a single worker, which is killed in the middle of a step."""

    def __init__(self, steps: int, size: int = 0) -> None:
        super().__init__(
            1, size or sum(parameter.numel() for parameter in new_model().parameters()), threading.Barrier(1)
        )
        self._left = steps

    def average(self, rank: int, parameters: Any, weight: float) -> float:
        if self._left == 0:
            raise KilledError
        self._left -= 1
        return super().average(rank, parameters, weight)


def digest(checkpoint: Path) -> str:
    weights = load_model(checkpoint).state_dict()
    joined = b"".join(weights[name].numpy().tobytes() for name in sorted(weights))
    return hashlib.sha256(joined).hexdigest()


def generator(seed: int) -> Any:
    made = torch.Generator()
    made.manual_seed(seed)
    return made


def small_model(layers: int = 2) -> MiniModel:
    torch.manual_seed(0)
    return MiniModel(ModelConfig(vocabulary=len(VOCABULARY), layers=layers))


# ---- The recipe


@pytest.fixture(params=["in_process", "processes"])
def workers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """The number of workers: one in this process, with less to look at and to sample, or two real processes."""
    if request.param == "processes":
        return 2

    def run_here(work: Callable[..., None], workers: int, size: int, *arguments: Any) -> None:
        work(0, Mortal(-1, size), *arguments)

    for module in (supervised, grpo):
        monkeypatch.setattr(module, "run_workers", run_here)
    monkeypatch.setattr(supervised, "BATCH_TOKENS", 512)
    monkeypatch.setattr("k2think.training.mini.recipe.GrpoPlan", partial(GrpoPlan, asks=2, samples=2, limit=8))
    return 1


def test_the_three_stages_follow_each_other_and_can_be_resumed(tmp_path: Path, workers: int) -> None:
    tokens = supervised.BATCH_TOKENS * workers
    recipe = Recipe(seed=3, workers=workers, base_tokens=tokens, sft_tokens=tokens, grpo_steps=1)
    # Given a run that lost its last two stages
    made = make(recipe, tmp_path, resume=False)
    digests = {stage: digest(path) for stage, path in made.items()}
    assert digests["base"] != digests["sft"]
    made["sft"].unlink()
    made["grpo"].unlink()
    # When it is to begin anew, it is refused; so is another recipe
    with pytest.raises(ConfigurationError, match="--resume"):
        make(recipe, tmp_path, resume=False)
    with pytest.raises(ConfigurationError, match="seed"):
        make(replace(recipe, seed=4), tmp_path, resume=True)
    # When it is resumed, the weights are those of before, to the last bit
    make(recipe, tmp_path, resume=True)
    assert {stage: digest(path) for stage, path in made.items()} == digests
    # And curves are drawn
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert {row["stage"] for row in rows} == {"base", "sft", "grpo"}
    draw_curve(tmp_path / "metrics.jsonl", tmp_path / "curve.svg")
    assert (tmp_path / "curve.svg").read_text(encoding="utf-8").startswith("<svg")


# ---- Base and SFT


def test_supervised_training_that_was_killed_equals_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a checkpoint every second step, and a lesson of four steps in two phases
    monkeypatch.setattr(supervised, "BATCH_TOKENS", 512)
    monkeypatch.setattr(supervised, "CHECKPOINT_EVERY_TOKENS", 1024)
    phases = tuple(replace(phase, share=0.5, early_share=0.0) for phase in SFT_PHASES)
    lesson = supervised.Lesson("sft", 2048, phases)

    def run(name: str, steps: int) -> None:
        (tmp_path / name).mkdir(exist_ok=True)
        supervised.work(0, Mortal(steps), lesson, tmp_path / name, 5, 1)

    run("whole", 100)
    # When a run is killed in its fourth step and gone on with
    with pytest.raises(KilledError):
        run("cut", 3)
    run("cut", 100)
    # Then the weights are those of the whole run, to the last bit
    assert digest(tmp_path / "cut" / "sft.pt") == digest(tmp_path / "whole" / "sft.pt")


def test_loss_falls_on_a_repeated_batch() -> None:
    model = small_model()
    batch = batches.Batches(random.Random(1), SFT_PHASES[0].draw).next(512)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses: list[float] = []
    for _ in range(8):
        loss = supervised.completion_loss(model, *batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 1.0


def test_the_loss_covers_completions_only_and_stresses_their_end() -> None:
    inputs, targets, weights = batches.to_tensors(8, [Example([5, 6, 7], [8, 9, 1], stressed=2)])
    assert inputs.tolist() == [[5, 6, 7, 8, 9, 1, 0, 0]]
    ignored = batches.IGNORED
    assert targets.tolist() == [[ignored, ignored, 8, 9, 1, ignored, ignored, ignored]]
    assert weights[0, 2:5].tolist() == [1.0, STRESS, STRESS]


# ---- Sampling


def test_greedy_samples_are_what_the_network_finds_best() -> None:
    # Given prompts of several lengths in one padded batch
    model = small_model()
    prompts = [encode_prompt(text) for text in ("<solve>1+1", "<plan>what is 347+58", "<judge>2+2<a>4<b>5")]
    texts = sample(model, prompts, limit=12, temperature=0.0, generator=generator(1))
    # Then each token is the best one after those before it, computed without cache and padding
    for prompt, text in zip(prompts, texts, strict=True):
        assert 1 <= len(text) <= 12
        ids = torch.tensor([prompt + text])
        best = model.logits(ids)[0].argmax(-1).tolist()
        assert best[len(prompt) - 1 : -1] == text


def test_samples_follow_the_scores_and_repeat_with_the_seed() -> None:
    model = small_model(layers=1)
    prompt = encode_prompt("<solve>1+1")
    with torch.no_grad():
        model.embedding.weight.mul_(2.0)
        chances = torch.softmax(model.logits(torch.tensor([prompt]))[0, -1], -1)
    first = [
        text[0] for text in sample(model, [prompt] * 4000, limit=1, temperature=1.0, generator=generator(2), batch=4000)
    ]
    best = int(chances.argmax())
    share, expected = first.count(best) / len(first), float(chances[best])
    assert abs(share - expected) < 5 * (expected * (1 - expected) / len(first)) ** 0.5 + 1e-9
    twice = [sample(model, [prompt] * 3, limit=9, temperature=1.0, generator=generator(3)) for _ in range(2)]
    assert twice[0] == twice[1]


# ---- What is looked at


def test_what_is_looked_at_while_training_is_never_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(side_of(ask.problem) is Side.development for ask in trial.trial_asks() if ask.problem)
    sides: list[Side] = []
    drawn = probe.draw_example

    def noting(rng: random.Random, *, side: Side, **more: Any) -> Example:
        sides.append(side)
        return drawn(rng, side=side, **more)

    monkeypatch.setattr(probe, "draw_example", noting)
    probe.probe_set()
    assert set(sides) == {Side.development}


# ---- GRPO


def test_a_token_is_credited_with_what_it_changed_in_the_group() -> None:
    # Given four samples of which one leaves the others at its second token, and is wrong
    right, wrong, other = [1, 2, 3], [1, 4, 5], [1, 2, 6]
    changes = advantages([right, right, wrong, other], [1.0, 1.0, 0.0, 1.0])
    # Then only the fork counts, in standard deviations of the group
    spread = (0.75 * 0.25) ** 0.5
    assert changes[0] == changes[1] == pytest.approx([0.0, 0.25 / spread, 0.0])
    assert changes[2] == pytest.approx([0.0, -0.75 / spread, 0.0])
    assert changes[3] == pytest.approx([0.0, 0.25 / spread, 0.0])
    # And what a sample's tokens changed adds up to what the whole sample is better than its group
    assert sum(changes[2]) == pytest.approx((0.0 - 0.75) / spread)
    # And a group whose samples are worth the same says nothing
    assert advantages([right, wrong], [1.0, 1.0]) == [[0.0] * 3, [0.0] * 3]


def test_a_step_makes_better_samples_likelier_and_worse_ones_less_likely() -> None:
    model = small_model()
    prompt, good, bad = (
        encode_prompt("<solve>1+1"),
        encode_completion("<answer>2</answer>"),
        encode_completion("<answer>3</answer>"),
    )

    def chance(text: list[int]) -> float:
        chances = torch.log_softmax(model.logits(torch.tensor([prompt + text])), -1)[0, len(prompt) - 1 : -1]
        return float(chances.gather(-1, torch.tensor(text)[:, None]).sum().detach())

    before = chance(good), chance(bad)
    accumulate(model, [(prompt, good, [1.0] * len(good)), (prompt, bad, [-1.0] * len(bad))])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 1e-3 * parameter.grad
    assert chance(good) > before[0]
    assert chance(bad) < before[1]


def test_the_gradient_is_that_of_advantage_times_log_probability() -> None:
    model = small_model(layers=1)
    rows = [([5, 6], [7, 8, EOS_ID], [0.5, 0.0, -1.0]), ([5], [9, EOS_ID], [-2.0, 1.0]), ([5, 6, 7, 8], [9], [1.5])]
    expected = torch.zeros(())
    for prompt, text, changes in rows:
        chances = torch.log_softmax(model.logits(torch.tensor([prompt + text])), -1)[0, len(prompt) - 1 : -1]
        expected = expected - (torch.tensor(changes) * chances.gather(-1, torch.tensor(text)[:, None])[:, 0]).sum()
    wanted = torch.autograd.grad(expected, list(model.parameters()))
    accumulate(model, rows)
    for parameter, gradient in zip(model.parameters(), wanted, strict=True):
        assert torch.allclose(parameter.grad, gradient, atol=1e-4)


def test_the_factors_of_the_gains_follow_the_slope_of_the_loss_and_the_last_is_a_temperature() -> None:
    # Given a loss of a small network
    model, ids, target = small_model(), torch.tensor([[3, 4, 5, 6]]), torch.tensor([4, 5, 6, 7])

    def loss() -> Any:
        return torch.nn.functional.cross_entropy(model.logits(ids)[0], target)

    scales = Scales(model)
    loss().backward()
    scales.take_gradients()
    before = model.logits(ids).detach()
    for factor in scales.parameters:
        # Then a factor's gradient is how the loss changes with its logarithm
        slope, losses = float(factor.grad), []
        for step in (0.02, -0.04):
            factor.data.fill_(step)
            scales.move_into_gains()
            losses.append(float(loss().detach()))
        factor.data.fill_(0.02)
        scales.move_into_gains()
        assert (losses[0] - losses[1]) / 0.04 == pytest.approx(slope, rel=0.05, abs=1e-4)
    # And the last one multiplies all scores
    scales.parameters[-1].data.fill_(0.5)
    scales.move_into_gains()
    assert torch.allclose(model.logits(ids), before * torch.tensor(0.5).exp(), atol=1e-4)
    assert all(float(factor.detach()) == 0 for factor in scales.parameters)


def test_grpo_that_was_killed_equals_one_that_was_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a model to begin with, whose groups differ in reward, and a checkpoint every second step
    monkeypatch.setattr(grpo, "CHECKPOINT_EVERY_STEPS", 2)
    monkeypatch.setattr(grpo, "TRIAL_EVERY_STEPS", 100)
    monkeypatch.setattr(grpo, "run_trial", lambda model, asks: {})
    monkeypatch.setattr(grpo, "reward", lambda ask, text: float(len(text) > 2 and text[0] % 2))
    torch.manual_seed(4)
    save(tmp_path / "start.pt", new_model())
    plan = GrpoPlan(tmp_path / "start.pt", steps=4, asks=3, samples=4, limit=6)

    def run(name: str, steps: int) -> None:
        (tmp_path / name).mkdir(exist_ok=True)
        grpo.work(0, Mortal(steps), plan, tmp_path / name, 5, 1)

    run("whole", 100)
    assert digest(tmp_path / "whole" / "grpo.pt") != digest(tmp_path / "start.pt")
    # When a run is killed in its fourth step and gone on with
    with pytest.raises(KilledError):
        run("cut", 3)
    run("cut", 100)
    # Then the weights are those of the whole run, to the last bit
    assert digest(tmp_path / "cut" / "grpo.pt") == digest(tmp_path / "whole" / "grpo.pt")
    assert [row["step"] for row in read_metrics(tmp_path / "cut" / "metrics.jsonl")] == [0, 1, 2, 3, 4]


def test_workers_add_up_their_gradients_by_their_weights() -> None:
    weight = torch.nn.Parameter(torch.zeros(2))
    silent = torch.nn.Parameter(torch.zeros(1))
    exchange = Exchange(2, 3, threading.Barrier(2))
    totals: list[float] = []

    def worker(rank: int, gradient: list[float], count: float, parameters: list[Any]) -> None:
        parameters[0].grad = torch.tensor(gradient)
        totals.append(exchange.average(rank, parameters, count))

    theirs = [torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(1))]
    other = threading.Thread(target=worker, args=(1, [3.0, 0.0], 1.0, theirs))
    other.start()
    worker(0, [1.0, 4.0], 3.0, [weight, silent])
    other.join()
    assert totals == [4.0, 4.0]
    assert weight.grad.tolist() == [1.0, 1.0]
    assert torch.equal(theirs[0].grad, weight.grad)
    assert silent.grad.tolist() == [0.0]
