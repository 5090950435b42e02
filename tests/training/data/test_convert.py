"""Published sets into typed records: the samples in their true forms, and what becomes of records that do not fit."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.hub import COMMIT, Hub, serving_hub
from k2think.grading import sandbox_problem
from k2think.grading.score import score_task
from k2think.schemas.errors import InvalidRequest, NotFound
from k2think.schemas.evaluation import OverlapKind
from k2think.schemas.scores import Domain
from k2think.training.data.choices import Kind, Verify
from k2think.training.data.convert import ConvertOptions, convert
from k2think.training.data.manifest import MANIFEST_NAME, DataManifest
from k2think.training.data.reading import file_sha256
from k2think.training.data.sources import source_files
from k2think.training.records import read_examples, read_tasks

Lines = Callable[[Path], list[dict[str, Any]]]
THOUGHT = "<think>It adds up.</think>\n<answer>{}</answer>"


def run(kind: Kind, source: Path | str, out: Path, **options: Any) -> DataManifest:
    return asyncio.run(convert(kind, [str(source)], out, ConvertOptions(quiet=True, **options)))


def said(
    question: str = "How many legs have 3 cats?", answer: str = THOUGHT.format("12"), **info: Any
) -> dict[str, Any]:
    turns = [{"from": "human", "value": question}, {"from": "assistant", "value": answer, "info": info}]
    return {"system": "", "conversations": turns}


def written(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def adds_up(manifest: DataManifest) -> bool:
    read = sum(source.records for source in manifest.sources)
    return read == manifest.read == manifest.written + sum(manifest.rejected.values())


# ---- AM-Thinking-v1-Distilled


def test_the_six_subsets_become_conversations(samples: Path, tmp_path: Path) -> None:
    manifest = run(Kind.am, samples / "am", tmp_path / "out", verify=Verify.off)
    examples = {example.source.partition("/")[2]: example for example in read_examples(tmp_path / "out/examples.jsonl")}
    assert set(examples) == {"code", "if", "math", "multiturn", "other", "science"}
    assert {name: example.domain for name, example in examples.items()} == {
        "code": Domain.code,
        "if": None,
        "math": Domain.math,
        "multiturn": None,
        "other": None,
        "science": Domain.science,
    }
    assert [turn.role for turn in examples["multiturn"].messages] == ["user", "assistant", "user", "assistant"]
    assert examples["other"].messages[-1].content.startswith("<think>River, bread")
    assert manifest.written == manifest.read == 12
    assert adds_up(manifest)


def test_truths_of_every_form_become_tasks(samples: Path, tmp_path: Path) -> None:
    run(Kind.am, samples / "am", tmp_path / "out", verify=Verify.off)
    tasks = list(read_tasks(tmp_path / "out/tasks.jsonl"))
    truths = [task.truth for task in tasks]
    assert {"inputs": ["3 4\n", "-2 8\n"], "outputs": ["12\n", "-16\n"]} in truths
    assert {"functional": "assert double_all([1, 2]) == [2, 4]\nassert double_all([]) == []"} in truths
    # A list with one element is that element; a mere id of tests is no truth.
    assert "B" in truths
    assert len(tasks) == 8
    by_id = {example.task_id for example in read_examples(tmp_path / "out/examples.jsonl")}
    assert {task.id for task in tasks} == by_id - {None}


def test_the_answers_are_checked_by_grading(samples: Path, tmp_path: Path) -> None:
    manifest = run(Kind.am, samples / "am", tmp_path / "out")
    programs = {"right": 8} if not sandbox_problem() else {"right": 6, "no_sandbox": 2}
    assert manifest.checked == {**programs, "no_truth": 4}
    assert manifest.rejected == {}
    rewards = [example.reward for example in read_examples(tmp_path / "out/examples.jsonl")]
    assert rewards.count(1.0) == programs["right"]
    assert rewards.count(None) == 12 - programs["right"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ('{"conversations": [', "not_json"),
        ("[1, 2]", "not_an_object"),
        ({"system": "", "conversations": []}, "no_conversation"),
        ({"text": "nothing of the kind"}, "no_conversation"),
        ({"conversations": [{"from": "human", "value": "Q"}, {"from": "tool", "value": "x"}]}, "unknown_speaker"),
        (said(question="  "), "empty_turn"),
        (said(answer="The answer is 12."), "no_reasoning"),
        (said(answer="<think>never ends"), "no_reasoning"),
        (said(answer="<think>a</think>\n<answer></answer>"), "no_answer"),
        (said(answer="<think>a</think>\n<answer>12"), "answer_cut_off"),
        ({"conversations": [*said()["conversations"], {"from": "human", "value": "And 4?"}]}, "not_in_turns"),
        (said(answer=THOUGHT.format("\\boxed{13}"), ground_truth="12"), "wrong_answer"),
    ],
    ids=["json", "list", "empty", "fields", "speaker", "question", "no_think", "open_think", "no_answer", "cut", "turns", "wrong"],
)  # fmt: skip
def test_a_record_that_does_not_fit_is_counted_with_its_reason(
    row: Any, reason: str, tmp_path: Path, lines: Lines
) -> None:
    file = written(
        tmp_path / "math.jsonl", [row, said("A good one?", THOUGHT.format("\\boxed{12}"), ground_truth="12")]
    )
    manifest = run(Kind.am, file, tmp_path / "out")
    assert manifest.rejected == {reason: 1}
    assert (manifest.written, manifest.checked) == (1, {"right": 1})
    assert adds_up(manifest)
    (reject,) = lines(tmp_path / "out/rejects.jsonl")
    assert (reject["place"], reject["reason"]) == (f"{file}, line 1", reason)


def test_a_text_that_is_only_in_info_is_used(tmp_path: Path) -> None:
    file = written(tmp_path / "other.jsonl", [said(answer="", think_content="It adds up.", answer_content="12")])
    run(Kind.am, file, tmp_path / "out")
    (example,) = read_examples(tmp_path / "out/examples.jsonl")
    assert example.messages[-1].content == THOUGHT.format("12")


def test_the_second_answer_counts_where_the_first_was_wrong(tmp_path: Path) -> None:
    rows = [
        said("What is 5 + 7?", THOUGHT.format(f"\\boxed{{{number}}}"), ground_truth="12") for number in (13, 12, 12)
    ]
    rows[2]["conversations"][0]["value"] = "what is 5+7"
    manifest = run(Kind.am, written(tmp_path / "math.jsonl", rows), tmp_path / "out")
    assert manifest.rejected == {"wrong_answer": 1, "duplicate_problem": 1}
    (example,) = read_examples(tmp_path / "out/examples.jsonl")
    assert (example.reward, "12" in example.messages[-1].content) == (1.0, True)


def test_strict_leaves_out_what_nothing_can_check(tmp_path: Path) -> None:
    file = written(tmp_path / "other.jsonl", [said()])
    assert run(Kind.am, file, tmp_path / "known").checked == {"no_truth": 1}
    assert run(Kind.am, file, tmp_path / "strict", verify=Verify.strict).rejected == {"unchecked_no_truth": 1}


def test_evaluation_problems_are_kept_out(tmp_path: Path, lines: Lines) -> None:
    problem = "A lighthouse keeper climbs 120 steps twice a day on weekdays and once on each day of the weekend. How many in a week?"
    held_out = written(tmp_path / "suite.jsonl", [{"task": {"id": "lighthouse", "prompt": problem}, "subset": "s"}])
    rows = [said(f"Please solve: {problem}"), said(problem.replace("120", "95")), said("Something else entirely?")]
    file = written(tmp_path / "other.jsonl", rows)
    manifest = run(Kind.am, file, tmp_path / "out", against=(held_out,))
    assert manifest.rejected == {"evaluation_problem": 2}
    assert [row["detail"].partition(":")[0] for row in lines(tmp_path / "out/rejects.jsonl")] == ["exact", "ngram13"]
    assert [source.name for source in manifest.against] == [str(held_out)]
    exact = run(Kind.am, file, tmp_path / "exact", against=(held_out,), weakest=OverlapKind.exact)
    assert exact.rejected == {"evaluation_problem": 1}
    # A set that cannot be read in full keeps nothing out.
    with pytest.raises(InvalidRequest, match="must be read in full"):
        run(Kind.am, file, tmp_path / "bad", against=(written(tmp_path / "bad.jsonl", ["{"]),))
    assert not (tmp_path / "bad" / "manifest.json").exists()


# ---- Guru


@pytest.fixture
def guru(samples: Path) -> Path:
    """The Parquet samples."""
    pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra `train`)")
    return samples / "guru"


def test_each_source_of_guru_becomes_a_task_of_its_domain(guru: Path, tmp_path: Path) -> None:
    manifest = run(Kind.guru, guru / "train", tmp_path / "out")
    tasks = {task.source: task for task in read_tasks(tmp_path / "out/tasks.jsonl")}
    assert {source: task.domain.value for source, task in tasks.items()} == {
        "codegen__leetcode2k": "code",
        "codegen__taco": "code",
        "graph_logical_dataset": "logic",
        "logic__zebra_puzzle_dataset": "logic",
        "math__merged_deduped_dapo_or1_dataset": "math",
        "ordering_puzzle_dataset": "logic",
        "simulation__arcagi1": "logic",
        "simulation__codeio": "simulation",
        "stem_web": "science",
        "table__hitab": "table",
    }
    assert tasks["logic__zebra_puzzle_dataset"].truth == {
        "header": ["Position", "Pet", "Drink"],
        "rows": [["1", "cat", "tea"], ["2", "dog", "milk"]],
    }
    assert tasks["simulation__arcagi1"].truth == [[0, 2]]
    assert tasks["codegen__taco"].truth == {"inputs": ["5\n1 2 3 4 5\n", "1\n-7\n"], "outputs": ["3\n", "-7\n"]}
    assert tasks["math__merged_deduped_dapo_or1_dataset"].prompt.endswith("within \\boxed{}.")
    assert adds_up(manifest)
    assert (manifest.written, manifest.checked) == (12, {})


ANSWERS = {
    # It needs the import that the problem gives.
    "codegen__leetcode2k": "```python\nclass Solution:\n    def isMirror(self, s):\n        return s[: math.ceil(len(s) / 2)] == s[::-1][: math.ceil(len(s) / 2)]\n```",
    "codegen__taco": "```python\nn = int(input())\nprint(sorted(map(int, input().split()))[n // 2])\n```",
    "graph_logical_dataset": "<answer> ef </answer>",
    "logic__zebra_puzzle_dataset": '<answer>{"header": ["Position", "Pet", "Drink"], '
    '"rows": [["1", "cat", "tea"], ["2", "dog", "milk"]]}</answer>',
    "ordering_puzzle_dataset": "<answer>['heron', 'wren', 'finch']</answer>",
    "simulation__arcagi1": "<answer>[[0, 2]]</answer>",
    "simulation__codeio": '\\boxed{"output": 4}',
    "stem_web": "\\boxed{1}",
    "table__hitab": "\\boxed{6}",
}


def test_every_converted_task_can_be_scored(guru: Path, tmp_path: Path) -> None:
    async def scored() -> dict[str, tuple[bool, bool]]:
        found: dict[str, tuple[bool, bool]] = {}
        for task in read_tasks(tmp_path / "out/tasks.jsonl"):
            if task.domain is Domain.code and sandbox_problem():
                continue
            right = ANSWERS.get(task.source, f"\\boxed{{{task.truth}}}")
            good, bad = [await score_task(task, f"<think>So.</think>\n{text}") for text in (right, "\\boxed{-99}")]
            found[task.source] = (good.correct, bad.correct)
        return found

    run(Kind.guru, guru / "train", tmp_path / "out")
    assert set(asyncio.run(scored()).values()) == {(True, False)}


def test_difficulty_is_how_often_models_fail(guru: Path, tmp_path: Path) -> None:
    run(Kind.guru, guru / "train", tmp_path / "out")
    metas = {task.source: task.meta for task in read_tasks(tmp_path / "out/tasks.jsonl")}
    assert metas["logic__zebra_puzzle_dataset"]["difficulty"] == 1 - (0.125 + 0.625) / 2
    assert "difficulty" not in metas["stem_web"]
    assert metas["stem_web"]["difficulty_label"] == "University"
    # A reference solution does not travel with the problem.
    assert not any("reference" in meta or "solution" in meta for meta in metas.values())


def test_the_packed_form_is_the_same_problem(guru: Path, tmp_path: Path) -> None:
    run(Kind.guru, guru / "packed", tmp_path / "out")
    (task,) = read_tasks(tmp_path / "out/tasks.jsonl")
    assert (task.truth, task.meta["index"], task.meta["difficulty"]) == ("78", 77, 0.375)


def test_the_shipped_parquet_is_what_the_script_writes(guru: Path, tmp_path: Path) -> None:
    from pyarrow import parquet

    spec = importlib.util.spec_from_file_location("make_guru", guru.parent / "make_guru.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.write(tmp_path)
    for name in module.FILES:
        assert parquet.read_table(guru / name).equals(parquet.read_table(tmp_path / name)), name


ROW: dict[str, Any] = {
    "data_source": "math__x",
    "prompt": [{"role": "user", "content": "What is 2 + 2?"}],
    "reward_model": {"style": "rule", "ground_truth": "4"},
    "extra_info": {"index": 1},
}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"data_source": None}, "no_source"),
        ({"data_source": "poetry"}, "unknown_source"),
        ({"prompt": [], "raw_prompt": None}, "no_prompt"),
        ({"prompt": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]}, "several_turns"),
        ({"reward_model": None}, "no_truth"),
        ({"reward_model": {"ground_truth": ""}}, "no_truth"),
        ({"data_source": "codegen__taco", "reward_model": {"ground_truth": "{"}}, "bad_tests"),
        ({"reward_model": {"ground_truth": {"compressed": "AAAA"}}}, "bad_packing"),
    ],
    ids=["source", "unknown", "prompt", "turns", "reward", "truth", "tests", "packing"],
)
def test_a_row_that_does_not_fit_is_counted_with_its_reason(
    changes: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    file = written(tmp_path / "guru.jsonl", [{**ROW, **changes}, ROW])
    manifest = run(Kind.guru, file, tmp_path / "out")
    assert (manifest.rejected, manifest.written) == ({reason: 1}, 1)
    assert adds_up(manifest)


def test_a_raw_prompt_loses_the_template_around_it(tmp_path: Path) -> None:
    raw = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhat is 2 + 2?<|im_end|>\n<|im_start|>assistant\n"
    file = written(tmp_path / "guru.jsonl", [{**ROW, "prompt": [], "raw_prompt": raw}])
    run(Kind.guru, file, tmp_path / "out")
    (task,) = read_tasks(tmp_path / "out/tasks.jsonl")
    assert task.prompt == "What is 2 + 2?"


# ---- The folder


def test_the_same_source_gives_the_same_files(samples: Path, tmp_path: Path) -> None:
    hashes = [
        {
            output.name: output.sha256
            for output in run(Kind.am, samples / "am", tmp_path / name, verify=Verify.off).outputs
        }
        for name in ("a", "b")
    ]
    assert hashes[0] == hashes[1]
    assert hashes[0]["examples.jsonl"] == file_sha256(tmp_path / "a/examples.jsonl")
    manifest = DataManifest.model_validate_json((tmp_path / "a" / MANIFEST_NAME).read_bytes())
    assert manifest.sources[0].sha256 == file_sha256(samples / "am/code.jsonl")


def test_data_is_not_replaced_unasked(samples: Path, tmp_path: Path) -> None:
    run(Kind.am, samples / "am", tmp_path / "out", verify=Verify.off)
    with pytest.raises(InvalidRequest, match="--overwrite"):
        run(Kind.am, samples / "am", tmp_path / "out")
    manifest = run(Kind.guru, written(tmp_path / "guru.jsonl", [ROW]), tmp_path / "out", overwrite=True)
    # What the earlier run left is gone.
    assert not (tmp_path / "out/examples.jsonl").exists()
    assert {output.name for output in manifest.outputs} == {"tasks.jsonl", "rejects.jsonl"}


def test_a_run_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    written(tmp_path / "in/a.jsonl", [ROW])
    (tmp_path / "in/b.parquet").write_bytes(b"torn")
    with pytest.raises(InvalidRequest, match="Parquet"):
        run(Kind.guru, tmp_path / "in", tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


# ---- The hub


@pytest.fixture
def hub(tmp_path: Path, samples: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that has the samples of AM under the name of team/am, which this process's library asks."""
    pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed (extra `models`)")
    folder = tmp_path / "served"
    shutil.copytree(samples / "am", folder)
    (folder / "README.md").write_text("# About\n")
    with serving_hub(Hub({"team/am": folder})) as served:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", served.url)
        template = served.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
        yield served


def test_a_data_set_at_the_hub_is_named_by_its_commit(hub: Hub, tmp_path: Path) -> None:
    manifest = run(Kind.am, f"team/am@{COMMIT}", tmp_path / "out", verify=Verify.off)
    assert (manifest.revision, manifest.written) == (COMMIT, 12)
    assert manifest.sources[0].name == f"team/am@{COMMIT}/code.jsonl"
    assert not any(name == "README.md" for name, _range in hub.ranges)
    asked = len(hub.ranges)
    run(Kind.am, "team/am", tmp_path / "again", verify=Verify.off)
    assert len(hub.ranges) == asked, "what is there is not downloaded again"


def test_what_is_not_fetched_of_a_data_set_is_told(hub: Hub) -> None:
    (hub.models["team/am"] / "more").mkdir()
    (hub.models["team/am"] / "more" / "train.arrow").write_bytes(b"ARROW1")
    fetched = source_files(["team/am"], patterns=("*.jsonl",))
    assert fetched.passed_over == [f"team/am@{COMMIT}/more/train.arrow"]


def test_what_the_hub_does_not_have_is_explained(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no data set 'team/other'"):
        run(Kind.am, "team/other", tmp_path / "out")
    with pytest.raises(NotFound, match="are named like"):
        run(Kind.guru, "team/am", tmp_path / "out")
    with pytest.raises(NotFound, match="no such file or folder"):
        run(Kind.am, "team/typo.jsonl", tmp_path / "out")
