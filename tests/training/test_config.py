"""Configurations of training: those that are shipped, and what is said of those that cannot be used."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from k2think.schemas.errors import ConfigurationError
from k2think.training.config import GrpoConfig, SftConfig
from k2think.training.config_file import load_config

CONFIGS = Path(__file__).parents[2] / "configs"
KINDS = {"sft": SftConfig, "grpo": GrpoConfig}


@pytest.mark.parametrize("name", ["k2think-32b-sft", "k2think-32b-grpo", "mini-sft", "mini-grpo"])
def test_a_shipped_configuration_can_be_used(name: str) -> None:
    load_config(CONFIGS / f"{name}.yaml", KINDS[name.rpartition("-")[2]])


def test_every_shipped_configuration_is_tested() -> None:
    assert len(list(CONFIGS.iterdir())) == 4


def test_the_published_values_of_sft() -> None:
    config = load_config(CONFIGS / "k2think-32b-sft.yaml", SftConfig)
    sft, optimizer = config.sft, config.optimizer
    assert (config.model.name, sft.batch, sft.max_tokens, sft.packing) == ("Qwen/Qwen2.5-32B", 512, 32_768, True)
    assert (optimizer.learning_rate, optimizer.schedule, optimizer.warmup_share) == (1e-4, "cosine", 0.05)
    assert config.run.epochs == 2
    assert sft.micro_batch * config.cluster.nodes * config.cluster.gpus_per_node == sft.batch
    assert config.data.system is not None
    assert config.data.system.endswith("<think> reasoning process here </think> <answer> answer here </answer>.")


def test_the_published_values_of_rl() -> None:
    config = load_config(CONFIGS / "k2think-32b-grpo.yaml", GrpoConfig)
    grpo = config.grpo
    assert (grpo.prompts, grpo.rollouts, grpo.update_prompts) == (512, 16, 64)
    assert (grpo.kl, grpo.entropy, grpo.clip_low, grpo.clip_high, grpo.loss) == (0, 0, 0.2, 0.2, "token_mean")
    assert (grpo.temperature, config.optimizer.learning_rate) == (1.0, 1e-6)


@pytest.mark.parametrize("name", ["k2think-32b-sft", "k2think-32b-grpo"])
def test_every_published_value_names_its_source(name: str) -> None:
    lines = (CONFIGS / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    marks = re.compile(r"#.*(\[(sft|slurm|guru|paper)\]|default of|ours|unknown)")
    for number, line in enumerate(lines):
        key = re.fullmatch(r"  (\w+):(.*)", line)
        if key is None or re.fullmatch(r"\s*", line):
            continue
        # In the line itself, or in the comment right above it.
        above = number - 1
        while above >= 0 and lines[above].startswith("  #"):
            above -= 1
        near = [line, *lines[above + 1 : number], *(lines[number + 1 : number + 2] if not key[2].strip() else [])]
        assert any(marks.search(text) for text in near), line


def small() -> dict[str, Any]:
    return {
        "model": {"name": "somewhere"},
        "data": {"train": ["a.jsonl"]},
        "sft": {"batch": 8, "micro_batch": 4, "max_tokens": 100},
        "optimizer": {"learning_rate": 1e-4},
        "run": {"out": "out", "steps": 1},
    }


def said(text: str, path: Path, kind: Any = SftConfig) -> str:
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        load_config(path, kind)
    return str(caught.value)


@pytest.mark.parametrize(
    ("part", "change", "expected"),
    [
        pytest.param(
            "optimizer",
            {"learning_rat": 1},
            "optimizer.learning_rat is unknown; did you mean learning_rate?",
            id="near",
        ),
        pytest.param(
            "optimizer",
            {"max_tokens": 1},
            "optimizer.max_tokens is unknown here; sft.max_tokens exists",
            id="elsewhere",
        ),
        pytest.param("model", {"zzz": 1}, "model.zzz is unknown; known are name, revision, tokenizer", id="far"),
        pytest.param("sft", {"batch": "many"}, "sft.batch: Input should be a valid integer", id="type"),
        pytest.param("sft", {"batch": 6}, "sft: batch (6) must be a multiple of micro_batch (4)", id="multiple"),
        pytest.param("run", {"epochs": 1}, "run: give epochs or steps, one of the two", id="both_lengths"),
        pytest.param(
            "optimizer", {"warmup_steps": 1, "warmup_share": 0.1}, "give warmup_share or warmup_steps", id="warmup"
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_line(part: str, change: dict[str, Any], expected: str, tmp_path: Path) -> None:
    content = small()
    content[part] |= change
    text = yaml.safe_dump(content, sort_keys=False)
    message = said(text, tmp_path / "c.yaml")
    assert expected in message
    (line,) = re.findall(r"line (\d+):", message)
    named = text.splitlines()[int(line) - 1].strip()
    assert named.partition(":")[0] in (part, *change)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", "is no configuration: it must hold model, data, sft", id="empty"),
        pytest.param("- a\n", "is no configuration", id="list"),
        pytest.param("model: [\n", "c.yaml, line 2 is not YAML", id="broken"),
        pytest.param("model: {name: a}\nmodel: {name: b}\n", "line 2: model stands twice (also in line 1)", id="twice"),
        pytest.param("model: {name: a}\n", "data is missing", id="missing"),
        pytest.param("model: {}\ndata: {train: [a]}\n", "line 1: model.name is missing", id="missing_below"),
        pytest.param("a: !!python/object:os.system {}\n", "not YAML", id="code"),
    ],
)
def test_what_is_no_configuration_is_told(text: str, expected: str, tmp_path: Path) -> None:
    assert expected in said(text, tmp_path / "c.yaml")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        load_config(tmp_path / "none.yaml", SftConfig)


def test_a_checkpoint_never_falls_into_a_round(tmp_path: Path) -> None:
    content = small() | {
        "grpo": {"prompts": 8, "rollouts": 2, "update_prompts": 2, "micro_batch": 4, "max_prompt_tokens": 9, "max_completion_tokens": 9}
    }  # fmt: skip
    del content["sft"]
    content["run"]["save_every"] = 6
    assert "run.save_every (6) must be a multiple of" in said(yaml.safe_dump(content), tmp_path / "c.yaml", GrpoConfig)
