"""Writes the Parquet samples beside this file, each with the columns and types of its published counterpart.

python tests/training/samples/make_guru.py
"""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

FOLDER = Path(__file__).parent / "guru"

MESSAGES = pa.list_(pa.struct([("content", pa.string()), ("role", pa.string())]))
BASE: list[tuple[str, pa.DataType]] = [
    ("data_source", pa.string()),
    ("prompt", MESSAGES),
    ("ability", pa.string()),
    ("apply_chat_template", pa.bool_()),
    ("qwen2.5_7b_pass_rate", pa.float64()),
    ("qwen3_30b_pass_rate", pa.float64()),
]


def reward(truth: pa.DataType) -> tuple[str, pa.DataType]:
    return "reward_model", pa.struct([("ground_truth", truth), ("style", pa.string())])


def extra(**fields: pa.DataType) -> tuple[str, pa.DataType]:
    return "extra_info", pa.struct(list(fields.items()))


def row(
    source: str,
    prompt: str,
    ability: str,
    truth: Any,
    info: dict[str, Any],
    rates: tuple[float, float] | None,
    **more: Any,
) -> dict[str, Any]:
    easy, hard = rates or (None, None)
    return {
        "data_source": source,
        "prompt": [{"content": prompt, "role": "user"}],
        "ability": ability,
        "apply_chat_template": True,
        "qwen2.5_7b_pass_rate": easy,
        "qwen3_30b_pass_rate": hard,
        "reward_model": {"ground_truth": truth, "style": "rule"},
        "extra_info": info,
        **more,
    }


BOXED = " Please output the final answer within \\boxed{}."
S, N = pa.string(), pa.int64()


def math() -> tuple[list[tuple[str, pa.DataType]], list[dict[str, Any]]]:
    source = "math__merged_deduped_dapo_or1_dataset"
    asked = [
        ("Seven consecutive integers add up to 84. What is the largest of them?", "15", (0.9375, 1.0)),
        ("How many positive divisors of 720 are multiples of 6?", "20", (0.375, 0.9375)),
        ("Let $f(x) = x^2 - 4x + 7$. What is the least value of $f$?", "3", (1.0, 1.0)),
    ]
    rows = [
        row(
            source,
            question + BOXED,
            "math",
            truth,
            {"split": "train", "index": i, "reward_metric": "default", "original_question": question},
            rates,
        )
        for i, (question, truth, rates) in enumerate(asked)
    ]
    return [*BASE, reward(S), extra(split=S, index=N, reward_metric=S, original_question=S)], rows


def stdin_code() -> tuple[list[tuple[str, pa.DataType]], list[dict[str, Any]]]:
    tests = json.dumps({"inputs": ["5\n1 2 3 4 5\n", "1\n-7\n"], "outputs": ["3\n", "-7\n"]})
    prompt = "Solve the programming task below in a Python markdown code block.\nThe first line holds n, the second n integers (n is odd). Print their median."
    info = {
        "split": "train",
        "index": 41,
        "reference": "n = int(input())\nprint(sorted(map(int, input().split()))[n // 2])",
        "prompt": prompt,
        "dataset": "likaixin/TACO-verified",
        "source": "codeforces",
    }
    return [*BASE, reward(S), extra(split=S, index=N, reference=S, prompt=S, dataset=S, source=S)], [
        row("codegen__taco", prompt, "codegen", tests, info, (0.5, 1.0))
    ]


def function_code() -> tuple[list[tuple[str, pa.DataType]], list[dict[str, Any]]]:
    test = "def check(candidate):\n    assert candidate('level') == True\n    assert candidate('river') == False\n\n\ncheck(Solution().isMirror)"
    prompt = "You will be given a question and starter code.\nclass Solution:\n    def isMirror(self, s: str) -> bool:\nReturn whether s reads the same from both ends."
    info = {
        "split": "train",
        "index": 7,
        "reference": "class Solution: ...",
        "prompt": prompt,
        "prefix": "import math",
        "dataset": "LeetCodeDataset",
        "question_title": "Mirror",
        "difficulty": "Easy",
    }
    fields = dict.fromkeys(("reference", "prompt", "prefix", "dataset", "question_title", "difficulty"), S)
    return [*BASE, reward(S), extra(split=S, index=N, **fields)], [
        row("codegen__leetcode2k", prompt, "codegen", json.dumps({"functional": test}), info, (1.0, 1.0))
    ]


def zebra() -> tuple[list[tuple[str, pa.DataType]], list[dict[str, Any]]]:
    truth = {"header": ["Position", "Pet", "Drink"], "rows": [["1", "cat", "tea"], ["2", "dog", "milk"]]}
    prompt = 'Two houses stand in a row. The clues are: The cat lives left of the dog. The dog\'s owner drinks milk. Please return the final answer in <answer> </answer> tags, for example <answer> {"header": ["Position", "Job"], "rows": [["1", "plumber"]]} </answer>.'
    info = {
        "id": "zebra_0",
        "grid_size": "2x2",
        "raw_instruction": "Two houses stand in a row.",
        "raw_input": ["The cat lives left of the dog."],
        "split": "train",
    }
    truth_type = pa.struct([("header", pa.list_(S)), ("rows", pa.list_(pa.list_(S)))])
    return [*BASE, reward(truth_type), extra(id=S, grid_size=S, raw_instruction=S, raw_input=pa.list_(S), split=S)], [
        row("logic__zebra_puzzle_dataset", prompt, "logical_reasoning", truth, info, (0.125, 0.625))
    ]


def ordering() -> tuple[list[tuple[str, pa.DataType]], list[dict[str, Any]]]:
    prompt = "Three birds stand in a queue. The constraints are: the heron is ahead of the wren; the finch is last. Please put your answer within <answer> and </answer> tags, for example <answer> ['pigeon', 'sparrow', 'quail'] </answer>."
    info = {
        "id": "3",
        "raw_instruction": "Three birds stand in a queue",
        "raw_input": ["the heron is ahead of the wren"],
        "num_objects": 3,
        "split": "train",
    }
    fields = extra(id=S, raw_instruction=S, raw_input=pa.list_(S), num_objects=N, split=S)
    return [*BASE, reward(pa.list_(S)), fields], [
        row("ordering_puzzle_dataset", prompt, "logical_reasoning", ["heron", "wren", "finch"], info, (0.75, 1.0))
    ]


def graph() -> tuple[list[tuple[str, pa.DataType]], list[dict[str, Any]]]:
    prompt = "Edges: ab -> cd, cd -> ef, ab -> gh. Starting at ab, which node is reached by two steps? Please put your answer within <answer> and </answer> tags, for example <answer> fdebme </answer>."
    return [*BASE, reward(S), extra(id=S, lookahead=N, split=S)], [
        row(
            "graph_logical_dataset",
            prompt,
            "logical_reasoning",
            "ef",
            {"id": "0", "lookahead": 2, "split": "train"},
            (0.625, 1.0),
        )
    ]


def arc() -> tuple[list[tuple[str, pa.DataType]], list[dict[str, Any]]]:
    prompt = "Here are the example input and output pairs: [{'input': [[1, 0]], 'output': [[0, 1]]}] Now solve: ['input': [[2, 0]], 'output': [[]]] Please put your answer within <answer> and </answer> tags."
    return [*BASE, reward(pa.list_(pa.list_(N))), extra(split=S, index=N)], [
        row("simulation__arcagi1", prompt, "reasoning", [[0, 2]], {"split": "train", "index": 12}, (0.25, 0.875))
    ]


def codeio() -> tuple[list[tuple[str, pa.DataType]], list[dict[str, Any]]]:
    prompt = 'A function counts vowels. Given the following input: \n{"text": "queue"}\nCan you predict the output without writing any code? Please reason and put your final answer in the following json format: "output": <your output>. Please put your answer in \\boxed{} tags.'
    return [*BASE, reward(S), extra(split=S, index=N)], [
        row(
            "simulation__codeio",
            prompt,
            "coding-inference",
            '"output": 4',
            {"split": "train", "index": 90},
            (0.6875, 1.0),
        )
    ]


def table() -> tuple[list[tuple[str, pa.DataType]], list[dict[str, Any]]]:
    prompt = "You are given one or more tables. Use the information in the table to answer the following question.\n| year | boats |\n|---|---|\n| 2001 | 12 |\n| 2002 | 18 |\nThe question is:\nBy how many did the boats grow?\nPlease output the final answer within \\boxed{}. If there are multiple answers, please output them separated by |."
    return [*BASE, reward(S), extra(split=S, index=N)], [
        row("table__hitab", prompt, "table", "6", {"split": "train", "index": 5}, (0.8125, 1.0))
    ]


def stem() -> tuple[list[tuple[str, pa.DataType]], list[dict[str, Any]]]:
    question = "A spring of constant 200 N/m is stretched by 0.1 m. How much energy does it store, in joules?"
    prompt = (
        "You are a knowledgeable assistant. Answer the following questions and think step by step. Please output the final answer within \\boxed{}. "
        + question
    )
    info = {"idx": 3301, "category": "Physics", "difficulty": "University", "answer_type": "Float", "token_length": 1}
    columns = [
        *BASE,
        ("raw_prompt", S),
        ("response", S),
        reward(S),
        extra(idx=N, category=S, difficulty=S, answer_type=S, token_length=N),
    ]
    return columns, [row("stem_web", prompt, "QA", "1", info, None, raw_prompt=question, response="1")]


def packed() -> tuple[list[tuple[str, pa.DataType]], list[dict[str, Any]]]:
    """As in guru-RL-92k-extra-info-compressed: truth and extra_info are JSON, gzip, base64; the latter in parts."""

    def pack(value: Any) -> str:
        return base64.b64encode(gzip.compress(json.dumps(value).encode(), mtime=0)).decode()

    question = "A clock strikes as many times as the hour. How many strokes are heard from 1 to 12 o'clock?"
    info = pack({"split": "train", "index": 77, "reward_metric": "default", "original_question": question})
    half = len(info) // 2
    columns = [
        *BASE,
        ("reward_model", pa.struct([("ground_truth", pa.struct([("compressed", S)])), ("style", S)])),
        ("extra_info", pa.struct([("part_1", S), ("part_2", S)])),
    ]
    truth = {"compressed": pack("78")}
    return columns, [
        row(
            "math__merged_deduped_dapo_or1_dataset",
            question + BOXED,
            "math",
            truth,
            {"part_1": info[:half], "part_2": info[half:]},
            (0.5, 0.75),
        )
    ]


FILES = {
    "train/math__combined_54.4k.parquet": math,
    "train/codegen__taco_8.8k.parquet": stdin_code,
    "train/codegen__leetcode2k_1.3k.parquet": function_code,
    "train/logic__zebra_puzzle_1.3k.parquet": zebra,
    "train/logic__ordering_puzzle_1.9k.parquet": ordering,
    "train/logic__graph_logical_1.2k.parquet": graph,
    "train/logic__arcagi1_111.parquet": arc,
    "train/simulation__codeio_3.7k.parquet": codeio,
    "train/table__hitab_4.3k.parquet": table,
    "train/stem__web_3.6k.parquet": stem,
    "packed/math__combined_54.4k.parquet": packed,
}


def write(folder: Path) -> None:
    for name, made in FILES.items():
        columns, rows = made()
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema(columns)), path)


if __name__ == "__main__":
    write(FOLDER)
