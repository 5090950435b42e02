"""A few real steps of SFT and GRPO with TRL, on the bundled model and its own problems."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from harness.training import TRL, grpo_config, mini_checkpoint, need, sft_config, typed_sets, written
from k2think.grading.score import score_sync
from k2think.schemas.errors import ConfigurationError, UserError
from k2think.schemas.scores import Task
from k2think.training.cli import app
from k2think.training.config import GrpoConfig, Model, SftConfig
from k2think.training.config_file import load_config
from k2think.training.conversations import IGNORED, tokenise_example
from k2think.training.mini.curve import read_metrics
from k2think.training.mini.tokens import encode_prompt
from k2think.training.model_folder import load_tokenizer
from k2think.training.records import SftExample, Turn, read_tasks, write_records
from typer.testing import CliRunner

pytestmark = pytest.mark.timeout(400)
"""The first of them imports PyTorch, transformers and TRL, which takes long where others work beside."""


@pytest.fixture(autouse=True)
def trl_is_there() -> None:
    need(*TRL)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need(*TRL)
    return mini_checkpoint(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return typed_sets(tmp_path_factory.mktemp("sets"))


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.numpy import load_file

    return load_file(folder / "model.safetensors")


def same(left: dict[str, Any], right: dict[str, Any]) -> bool:
    assert left.keys() == right.keys()
    return all((left[name] == right[name]).all() for name in left)


def untimed(metrics: Path) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "wall_s"} for row in read_metrics(metrics)]


def killed_after_first_step(run: Path, copy: Path) -> None:
    """Make the folder that a kill leaves which comes while the second checkpoint is being written."""
    shutil.copytree(run, copy)
    shutil.rmtree(copy / "final")
    (copy / "checkpoint-2" / "trainer_state.json").unlink()
    with (copy / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 2, "lo')


def test_sft_learns_and_goes_on_where_it_was_killed(sets: Path, tmp_path: Path) -> None:
    need(*TRL)
    from k2think.training.sft import train_sft

    # Given a run with held-out conversations, of a model that has much to learn
    model = mini_checkpoint(tmp_path / "base", stage="base")
    content = sft_config(model, sets, tmp_path / "a")
    content["data"]["evaluation"] = [str(sets / "examples-held-out.jsonl")]
    content["run"]["evaluate_every"] = 2
    final = train_sft(load_config(written(content, tmp_path / "a.yaml"), SftConfig))
    # Then the weights have changed, and every step is in the metrics
    assert not same(weights(final), weights(model))
    rows = untimed(tmp_path / "a" / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 2]
    assert rows[0]["loss"] > 0
    assert rows[2]["evaluation"]["loss"] > 0
    assert (tmp_path / "a" / "metrics.svg").read_text(encoding="utf-8").count("<polyline") >= 3
    # When the same run is killed in the middle and gone on with
    killed_after_first_step(tmp_path / "a", tmp_path / "b")
    content["run"]["out"] = str(tmp_path / "b")
    again = train_sft(load_config(written(content, tmp_path / "b.yaml"), SftConfig), resume=True)
    # Then it makes the same weights of the same data, and the metrics are those of one run
    assert same(weights(again), weights(final))
    assert untimed(tmp_path / "b" / "metrics.jsonl") == rows


@pytest.fixture
def graded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Task, str, float | None]]:
    """Every answer that GRPO had graded: its task, its text, its reward."""
    from k2think.training.rewards import Rewards

    seen: list[tuple[Task, str, float | None]] = []
    call = Rewards.__call__

    def spy(self: Any, *, completions: Any, index: Any, **kwargs: Any) -> list[float | None]:
        values = call(self, completions=completions, index=index, **kwargs)
        texts = [completion[0]["content"] for completion in completions]
        seen.extend(zip([self._tasks[place] for place in index], texts, values, strict=True))
        return values

    monkeypatch.setattr(Rewards, "__call__", spy)
    return seen


def test_grpo_learns_from_grading_and_goes_on_where_it_was_killed(
    model: Path, sets: Path, tmp_path: Path, graded: list[tuple[Task, str, float | None]]
) -> None:
    from k2think.training.grpo import train_grpo

    # Given three problems, and one whose truth is missing, so that its check must fail
    tasks = list(read_tasks(sets / "tasks.jsonl"))[:4]
    write_records(tmp_path / "tasks.jsonl", [*tasks[:3], tasks[3].model_copy(update={"truth": None})])
    content = grpo_config(model, tmp_path, tmp_path / "a")
    final = train_grpo(load_config(written(content, tmp_path / "a.yaml"), GrpoConfig))
    # Then every reward is what the score says, and what cannot be checked has none
    assert len(graded) == 32
    for task, text, value in graded:
        assert value == (
            None if task.truth is None else score_sync("procedural", text, task.truth, {"source": task.source}).value
        )
    valued = [value for _, _, value in graded if value is not None]
    assert len(valued) == 24
    assert {0.0, 1.0} <= set(valued), "with one kind of reward nothing can be learnt"
    # And the metrics tell the same
    rows = untimed(tmp_path / "a" / "metrics.jsonl")
    assert sum(row["grading_errors"] for row in rows) == 8
    assert sum(row["answers"] for row in rows) == 32
    for row, part in zip(rows, (graded[:16], graded[16:]), strict=True):
        checked = [value for _, _, value in part if value is not None]
        assert row["reward"] == pytest.approx(sum(checked) / len(checked), abs=1e-5)
        assert row["correct_share"] == pytest.approx(row["reward"], abs=1e-4)
        assert 0 <= row["no_signal_share"] <= 1
    # And the weights have changed
    assert not same(weights(final), weights(model))
    # When the same run is killed in the middle and gone on with
    killed_after_first_step(tmp_path / "a", tmp_path / "b")
    content["run"]["out"] = str(tmp_path / "b")
    again = train_grpo(load_config(written(content, tmp_path / "b.yaml"), GrpoConfig), resume=True)
    # Then it samples the same answers to the same problems, and makes the same weights
    assert graded[32:] == graded[16:32]
    assert same(weights(again), weights(final))
    assert json.dumps(untimed(tmp_path / "b" / "metrics.jsonl")) == json.dumps(rows)


# ---- What a run is told before it begins


def command(*words: str | Path) -> tuple[str, BaseException | None]:
    result = CliRunner().invoke(app, [str(word) for word in words])
    return result.output, None if result.exit_code == 0 else result.exception


def test_a_check_counts_and_trains_nothing(model: Path, sets: Path, tmp_path: Path) -> None:
    content = sft_config(model, sets, tmp_path / "run")
    content["sft"]["max_tokens"] = 100
    said, failure = command("sft", written(content, tmp_path / "c.yaml"), "--check")
    assert failure is None
    kept, left_out = map(int, re.findall(r"conversations: (\d+).*left out as longer than 100 tokens: (\d+)", said)[0])
    assert kept + left_out == 16
    assert min(kept, left_out) > 0
    assert "steps: 2 of 4 sequences" in said
    grpo = grpo_config(model, sets, tmp_path / "run")
    said, failure = command("grpo", written(grpo, tmp_path / "g.yaml"), "--check")
    assert failure is None
    assert "problems: 8 (procedural 8); left out as longer than 160 tokens: 0" in said
    assert "checks that fail, so that no answer gets a reward: 0" in said
    grpo["grpo"]["opens_thinking"] = True
    _, failure = command("grpo", written(grpo, tmp_path / "g.yaml"), "--check")
    assert "grpo.opens_thinking must be false: the chat template of" in str(failure)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("part", "change", "expected"),
    [
        pytest.param(
            "model",
            {"name": "no-such-folder"},
            "there is no folder no-such-folder, nor does it read OWNER/NAME",
            id="model",
        ),
        pytest.param(
            "model",
            {"name": str(Path(__file__).parent)},
            "is no model in Hugging Face's form: it has no config.json",
            id="folder",
        ),
        pytest.param("model", {"tokenizer": "no-such-folder"}, "model.tokenizer: there is no folder", id="tokenizer"),
        pytest.param(
            "data", {"train": ["no-such-file.jsonl"]}, "no-such-file.jsonl cannot be read: No such file", id="data"
        ),
        pytest.param(
            "sft",
            {"max_tokens": 2},
            "data.train holds no conversation of at most 2 tokens (16 are longer)",
            id="lengths",
        ),
        pytest.param("sft", {"packing": True}, "sft.packing needs FlashAttention on a GPU", id="packing"),
        pytest.param("run", {"device": "gpu"}, "run.device is gpu, but PyTorch finds none", id="gpu"),
        pytest.param("model", {"liger": True}, "model.liger needs a GPU", id="liger"),
    ],
)
def test_what_cannot_be_run_is_told(
    part: str, change: dict[str, Any], expected: str, model: Path, sets: Path, tmp_path: Path
) -> None:
    import torch

    if torch.cuda.is_available() and part != "data":
        pytest.skip("there is a GPU here")
    content = sft_config(model, sets, tmp_path / "run")
    content[part] |= change
    _, failure = command("sft", written(content, tmp_path / "c.yaml"))
    assert isinstance(failure, UserError), failure
    assert expected in str(failure)
    assert not (tmp_path / "run").exists(), "nothing is begun"


def test_a_line_of_data_that_is_wrong_is_named(model: Path, sets: Path, tmp_path: Path) -> None:
    lines = (sets / "examples.jsonl").read_text(encoding="utf-8").splitlines()
    turned = json.loads(lines[1])
    turned["messages"].reverse()
    (tmp_path / "examples.jsonl").write_text("\n".join([lines[0], "", json.dumps(turned)]), encoding="utf-8")
    _, failure = command("sft", written(sft_config(model, tmp_path, tmp_path / "run"), tmp_path / "c.yaml"), "--check")
    assert "examples.jsonl, line 3 is no SftExample: user and assistant must speak in turns" in str(failure)


# ---- Token ids


def test_the_tokenizer_is_the_one_that_the_model_was_trained_with(model: Path, tmp_path: Path) -> None:
    # Given a Qwen2 model whose tokenizer is not Qwen's, and no folder with the tokenizer alone
    shutil.copytree(model, tmp_path / "model", ignore=shutil.ignore_patterns("tokenizer"))
    folder = Model(name=str(tmp_path / "model"))
    tokenizer = load_tokenizer(tmp_path / "model", folder)
    # Then its ids are those of training
    text = "<think>12 * 3 two words</think><answer>x</answer>"
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == encode_prompt(text)
    # When its settings ask for the class that transformers would put there
    settings = tmp_path / "model" / "tokenizer_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"tokenizer_class": "Qwen2Tokenizer"}))
    # Then other ids are noticed
    with pytest.raises(ConfigurationError, match=r"transformers gives other token ids than tokenizer\.json does"):
        load_tokenizer(tmp_path / "model", folder)


CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
FORGETFUL = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + (m.content if loop.last else m.content.split('</think>')[-1])"
    " + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""Drops the reasoning of earlier turns, as Qwen3's does."""


def characters(template: str) -> Any:
    from tokenizers import AddedToken, Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    letters = [chr(code) for code in (10, *range(32, 127))]
    tokenizer = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(letters)}, merges=[]))
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in ("<|im_start|>", "<|im_end|>")])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>")
    fast.chat_template = template
    return fast


def counted(tokenizer: Any, messages: list[tuple[str, str]], *, system: str | None = None) -> list[str]:
    """The stretches of text on which loss is taken."""
    turns = tuple(Turn.model_validate({"role": role, "content": content}) for role, content in messages)
    ids, labels = tokenise_example(tokenizer, SftExample(id="1", source="s", messages=turns), system=system)
    assert all(label in (IGNORED, token) for token, label in zip(ids, labels, strict=True))
    marks = "".join(
        tokenizer.decode([token]) if label != IGNORED else "\0" for token, label in zip(ids, labels, strict=True)
    )
    return [part for part in marks.split("\0") if part]


TWO_TURNS = [("user", "a"), ("assistant", "<think>b</think>c"), ("user", "d"), ("assistant", "<think>e</think>f")]


def test_loss_is_taken_on_what_the_assistant_says(model: Path) -> None:
    assert counted(characters(CHATML), TWO_TURNS, system="s") == [
        "<think>b</think>c<|im_end|>\n",
        "<think>e</think>f<|im_end|>\n",
    ]
    # A template that rewrites earlier turns leaves the last.
    assert counted(characters(FORGETFUL), TWO_TURNS) == ["<think>e</think>f<|im_end|>\n"]
    # One that leaves the end to the engine gets an end.
    mini = load_tokenizer(model, Model(name=str(model)))
    assert counted(mini, [("user", "3+4"), ("assistant", "<think>7</think>")]) == ["<think>7</think><eos>"]
