"""What verl and LLaMA-Factory are given: their own names of keys, and data that their readers take.

The lists in `published/` hold names only. verl-0.9.1.txt: the options of verl 0.9.1's `verl/trainer/config/_generated_ppo_trainer.yaml`
below algorithm, data, actor_rollout_ref, reward and trainer (engines that are not used left out). llamafactory-0.9.5.txt: the fields
of LLaMA-Factory 0.9.5's `src/llamafactory/hparams/*_args.py`, and of `TrainingArguments` in transformers 5.5.4, which it admits.
"""

from __future__ import annotations

import importlib.util
import json
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness.training import grpo_config, need, sft_config, written
from k2think.schemas.errors import GradingError
from k2think.schemas.scores import Domain, Task
from k2think.training.cli import app
from k2think.training.records import SftExample, Turn, write_records
from typer.testing import CliRunner

PUBLISHED = Path(__file__).parent / "published"
CONFIGS = Path(__file__).parents[2] / "configs"
DEEPSPEED_KEYS = {
    *("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping"),
    *("zero_allow_untested_optimizer", "bf16", "zero_optimization"),
    *("stage", "contiguous_gradients", "sub_group_size", "reduce_bucket_size", "stage3_prefetch_bucket_size"),
    *("stage3_param_persistence_threshold", "stage3_max_live_parameters", "stage3_max_reuse_distance"),
    *("stage3_gather_16bit_weights_on_model_save", "enabled"),
}
"""Of DeepSpeed's documentation, "DeepSpeed Configuration JSON"."""
DATASET_KEYS = {"file_name", "formatting", "columns", "tags"}
COLUMNS = {"messages"}
TAGS = {"role_tag", "content_tag", "user_tag", "assistant_tag", "system_tag"}
"""Of LLaMA-Factory 0.9.5's `src/llamafactory/data/parser.py`."""

TASKS = [
    Task(id="t1", domain=Domain.procedural, source="mini:arithmetic", prompt="What is 3+4?", truth="7"),
    Task(
        id="t2",
        domain=Domain.table,
        source="table__hitab",
        prompt="Which?",
        truth=["1", None, 2.5],
        meta={"a": {"b": [1, None]}},
    ),
    Task(id="t3", domain=Domain.procedural, source="mini:arithmetic", prompt="Lost?"),
]


@pytest.fixture(autouse=True)
def parquet_is_there() -> None:
    need("pyarrow", "yaml")


def names(file: str) -> set[str]:
    return set((PUBLISHED / file).read_text(encoding="utf-8").split())


def run(*words: str | Path) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output or result.exception
    return result.stdout


def options(script: Path) -> dict[str, str]:
    """The overrides in a script, as the shell hands them on."""
    shown = script.read_text(encoding="utf-8").replace("exec python3 -m verl.trainer.main_ppo", "printf '%s\\n'")
    printing = script.with_name("print.sh")
    printing.write_text(shown, encoding="utf-8")
    handed = subprocess.run(["bash", printing], capture_output=True, text=True, check=True).stdout
    return dict(line.split("=", 1) for line in handed.splitlines())


def exported(tmp_path: Path, content: dict[str, Any]) -> Path:
    write_records(tmp_path / "tasks.jsonl", TASKS)
    run("export-verl", written(content, tmp_path / "c.yaml"), "--out", tmp_path / "out")
    return tmp_path / "out"


def small_grpo(tmp_path: Path) -> dict[str, Any]:
    content = grpo_config(Path("Qwen/Qwen2.5-0.5B"), tmp_path, tmp_path / "run")
    content["data"] |= {"evaluation": [str(tmp_path / "tasks.jsonl")], "system": 'Say "so".'}
    return content


def test_verls_options_are_its_own(tmp_path: Path) -> None:
    # Given a configuration that uses all there is
    content = small_grpo(tmp_path)
    content["grpo"] |= {"kl": 0.01, "dual_clip": 3.0, "prompts": 2, "update_prompts": 1, "micro_batch": 8}
    content["optimizer"] |= {"warmup_steps": 20}
    content["run"] |= {"save_every": 10, "evaluate_every": 4, "steps": 9}
    content["model"]["lora"] = {"rank": 8, "alpha": 16}
    given = options(exported(tmp_path, content) / "run.sh")
    assert not given.keys() - names("verl-0.9.1.txt")
    # Then counts of steps are in verl's rounds, here two steps each
    assert given["actor_rollout_ref.actor.optim.lr_warmup_steps"] == "10"
    assert (given["trainer.save_freq"], given["trainer.test_freq"], given["trainer.total_training_steps"]) == (
        "5",
        "2",
        "5",
    )
    assert given["reward.custom_reward_function.path"] == str(tmp_path / "out" / "reward.py")
    # And a group whose check failed is replaced, not scored
    assert given["trainer.v1.sampler.sync_refill_failed_groups"] == "True"


def test_the_published_recipe_becomes_a_command(tmp_path: Path) -> None:
    content = yaml.safe_load((CONFIGS / "k2think-32b-grpo.yaml").read_text(encoding="utf-8"))
    write_records(tmp_path / "many.jsonl", [TASKS[0].model_copy(update={"id": str(n)}) for n in range(512)])
    content["data"] = {"train": [str(tmp_path / "many.jsonl")], "evaluation": [str(tmp_path / "many.jsonl")]}
    given = options(exported(tmp_path, content) / "run.sh")
    assert not given.keys() - names("verl-0.9.1.txt")
    published = {
        "data.train_batch_size": "512", "data.max_response_length": "8192", "actor_rollout_ref.rollout.n": "16",
        "actor_rollout_ref.actor.ppo_mini_batch_size": "64", "actor_rollout_ref.actor.optim.lr": "1e-06",
        "actor_rollout_ref.actor.optim.lr_warmup_steps": "10", "actor_rollout_ref.actor.clip_ratio_c": "10.0",
        "actor_rollout_ref.actor.loss_agg_mode": "token-mean", "trainer.save_freq": "20", "trainer.test_freq": "10",
        "trainer.total_epochs": "4", "trainer.nnodes": "16",
    }  # fmt: skip
    assert published.items() <= given.items()


def test_verls_rows_are_in_its_schema_and_its_reward_is_the_score(tmp_path: Path) -> None:
    from pyarrow import parquet

    out = exported(tmp_path, small_grpo(tmp_path))
    rows = parquet.read_table(out / "train.parquet").to_pylist()
    assert len(rows) == len(parquet.read_table(out / "val.parquet")) == 3
    for index, (row, task) in enumerate(zip(rows, TASKS, strict=True)):
        assert row.keys() == {"data_source", "prompt", "ability", "reward_model", "extra_info"}
        assert row["prompt"] == [{"role": "system", "content": 'Say "so".'}, {"role": "user", "content": task.prompt}]
        assert row["reward_model"] == {"style": "rule", "ground_truth": json.dumps(task.truth)}
        assert (row["data_source"], row["ability"], row["extra_info"]["index"]) == (task.source, task.domain, index)
        assert json.loads(row["extra_info"]["meta"]) == task.meta
    # When verl loads the entry point by its path and calls it by keyword
    spec = importlib.util.spec_from_file_location("reward", out / "reward.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def score(row: dict[str, Any], text: str) -> dict[str, float]:
        more = {"num_turns": 2, "rollout_reward_scores": {}}
        return module.compute_score(
            data_source=row["data_source"], solution_str=text, ground_truth=row["reward_model"]["ground_truth"],
            extra_info=row["extra_info"] | more, reward_router_address=None,
        )  # fmt: skip

    # Then it is the score, and a check that fails is raised
    assert score(rows[0], "<think>3+4</think><answer>7</answer>") == {"score": 1.0, "acc": 1.0}
    assert score(rows[0], "<think>3+4</think><answer>8</answer>") == {"score": 0.0, "acc": 0.0}
    with pytest.raises(GradingError):
        score(rows[2], "<answer>7</answer>")


CONVERSATION = SftExample(
    id="c1",
    source="s",
    messages=(
        Turn(role="user", content="Hi"),
        Turn(role="assistant", content="<think>a</think><answer>ja\u2028, é</answer>"),
        Turn(role="user", content="And?"),
        Turn(role="assistant", content="No."),
    ),
)


def test_llamafactorys_files_are_in_its_forms(tmp_path: Path) -> None:
    write_records(tmp_path / "examples.jsonl", [CONVERSATION])
    content = sft_config(Path("Qwen/Qwen2.5-0.5B"), tmp_path, tmp_path / "run")
    content["data"] |= {"evaluation": [str(tmp_path / "examples.jsonl")], "system": "Think.", "shuffle": False}
    content["model"] |= {"revision": "abc", "lora": {"rank": 8, "alpha": 16, "targets": ["q_proj", "v_proj"]}}
    content["optimizer"] |= {"warmup_steps": 3}
    content["cluster"] = {"nodes": 1, "gpus_per_node": 2}
    told = run("export-llamafactory", written(content, tmp_path / "c.yaml"), "--out", tmp_path / "out")
    assert "llamafactory-cli train sft.yaml" in told
    out = tmp_path / "out"
    keys = yaml.safe_load((out / "sft.yaml").read_text(encoding="utf-8"))
    assert not keys.keys() - names("llamafactory-0.9.5.txt")
    assert (keys["lora_target"], keys["gradient_accumulation_steps"]) == ("q_proj,v_proj", 1)
    # Every set that is named is described, and its file is there
    described = json.loads((out / "dataset_info.json").read_text(encoding="utf-8"))
    for name in (keys["dataset"], keys["eval_dataset"]):
        assert described[name].keys() == DATASET_KEYS
        assert described[name]["columns"].keys() == COLUMNS
        assert described[name]["tags"].keys() == TAGS
        (line,) = (out / described[name]["file_name"]).read_bytes().splitlines()
        turns = json.loads(line)["conversations"]
        assert [turn["from"] for turn in turns] == ["system", "human", "assistant", "human", "assistant"]
        assert turns[2]["value"] == CONVERSATION.messages[1].content
    zero = json.loads((out / keys["deepspeed"]).read_text(encoding="utf-8"))
    assert zero["zero_optimization"]["stage"] == 3
    assert not {*zero, *zero["zero_optimization"], *zero["bf16"]} - DEEPSPEED_KEYS


def test_the_published_sft_becomes_llamafactorys_file(tmp_path: Path) -> None:
    content = yaml.safe_load((CONFIGS / "k2think-32b-sft.yaml").read_text(encoding="utf-8"))
    write_records(tmp_path / "examples.jsonl", [CONVERSATION])
    content["data"]["train"] = [str(tmp_path / "examples.jsonl")]
    run("export-llamafactory", written(content, tmp_path / "c.yaml"), "--out", tmp_path / "out")
    keys = yaml.safe_load((tmp_path / "out" / "sft.yaml").read_text(encoding="utf-8"))
    assert not keys.keys() - names("llamafactory-0.9.5.txt")
    published = {
        "model_name_or_path": "Qwen/Qwen2.5-32B", "finetuning_type": "full", "enable_liger_kernel": True, "packing": True,
        "neat_packing": True, "cutoff_len": 32768, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 1,
        "learning_rate": 1e-4, "num_train_epochs": 2, "lr_scheduler_type": "cosine", "warmup_ratio": 0.05, "bf16": True,
        "save_steps": 100, "logging_steps": 1, "preprocessing_num_workers": 100,
    }  # fmt: skip
    assert published.items() <= keys.items()


@pytest.mark.parametrize(
    ("command", "part", "change", "expected"),
    [
        pytest.param("export-verl", "optimizer", {"schedule": "linear"}, "knows constant and cosine", id="schedule"),
        pytest.param(
            "export-verl", "data", {"evaluation": []}, "name held-out problems in data.evaluation", id="no_validation"
        ),
        pytest.param(
            "export-verl",
            "grpo",
            {"prompts": 8, "update_prompts": 8},
            "holds 3 problems, one round takes 8",
            id="too_few",
        ),
        pytest.param("export-verl", "model", {"revision": "abc"}, "model.revision: verl reads", id="revision"),
        pytest.param("export-verl", "grpo", {"mask_truncated": True}, "grpo.mask_truncated: verl takes", id="cut"),
        pytest.param("export-verl", "run", {"steps": None, "epochs": 1.5}, "run.epochs: verl makes whole", id="epochs"),
        pytest.param(
            "export-verl",
            "model",
            {"lora": {"rank": 8, "alpha": 16, "dropout": 0.1}},
            "model.lora.dropout: verl's FSDP trainer has none",
            id="dropout",
        ),
        pytest.param(
            "export-llamafactory",
            "model",
            {"tokenizer": "/some/tokenizer"},
            "beside the model's configuration alone; put the files of /some/tokenizer",
            id="tokenizer",
        ),
        pytest.param(
            "export-llamafactory",
            "model",
            {"lora": {"rank": 8, "alpha": 16.5}},
            "model.lora.alpha: LLaMA-Factory takes whole numbers",
            id="alpha",
        ),
        pytest.param(
            "export-llamafactory", "cluster", {"nodes": 3}, "sft.batch (4) must be a multiple of", id="uneven"
        ),
    ],
)
def test_what_a_cluster_cannot_do_is_told(
    command: str, part: str, change: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    write_records(tmp_path / "tasks.jsonl", TASKS)
    content = sft_config(Path("a/b"), tmp_path, tmp_path) if "llama" in command else small_grpo(tmp_path)
    content.setdefault(part, {}).update(change)
    result = CliRunner().invoke(
        app, [command, str(written(content, tmp_path / "c.yaml")), "--out", str(tmp_path / "out")]
    )
    assert expected in str(result.exception)
    assert not (tmp_path / "out").exists(), "nothing is begun"


def test_a_tokenizer_that_stands_elsewhere_is_handed_to_verl(tmp_path: Path) -> None:
    content = small_grpo(tmp_path)
    option = "actor_rollout_ref.model.tokenizer_path"
    assert option not in options(exported(tmp_path, content) / "run.sh")
    # Given one in the model's own folder, and then one that is named
    folder = tmp_path / "model"
    (folder / "tokenizer").mkdir(parents=True)
    content["model"]["name"] = str(folder)
    assert options(exported(tmp_path, content) / "run.sh")[option] == str(folder / "tokenizer")
    content["model"]["tokenizer"] = str(tmp_path / "tok")
    assert options(exported(tmp_path, content) / "run.sh")[option] == str(tmp_path / "tok")
    assert option in names("verl-0.9.1.txt")


def test_names_with_spaces_survive_the_shell(tmp_path: Path) -> None:
    folder = tmp_path / "my model's"
    folder.mkdir()
    content = small_grpo(tmp_path)
    content["model"]["name"] = str(folder)
    script = exported(tmp_path, content) / "run.sh"
    assert options(script)["actor_rollout_ref.model.path"] == str(folder)
    assert shlex.quote(str(folder)) in script.read_text(encoding="utf-8")
