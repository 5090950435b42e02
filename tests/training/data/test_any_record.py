"""Whatever a record holds, it is converted or rejected with a reason; nothing else is raised."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from k2think.training.data.am import convert_am
from k2think.training.data.choices import Kind, Verify
from k2think.training.data.convert import ConvertOptions, convert
from k2think.training.data.converted import Converted, Rejected
from k2think.training.data.guru import convert_guru
from k2think.training.data.reading import Read
from k2think.training.data.texts import texts_of

LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
WORDS = st.sampled_from(
    ["<think>a</think>b", "human", "assistant", "{", '{"inputs": [1]}', "assert x", "math__x", "codegen__t", ""]
)
KEYS = st.sampled_from(
    [
        *("from", "value", "info", "conversations", "ground_truth", "test_case", "think_content", "messages", "task"),
        *("data_source", "prompt", "role", "content", "reward_model", "extra_info", "compressed", "part_1", "part_x"),
        *("index", "style", "qwen3_30b_pass_rate", "functional", "inputs", "outputs"),
    ]
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    LEAVES | WORDS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=14
)
TURNS = st.lists(
    st.fixed_dictionaries({"from": WORDS, "value": WORDS | VALUES, "info": VALUES | st.dictionaries(KEYS, VALUES)}),
    min_size=1,
    max_size=4,
)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(KEYS, VALUES, max_size=6), TURNS | VALUES)
def test_any_object(row: dict[str, Any], turns: Any) -> None:
    for convert_one, more in ((convert_am, {"conversations": turns}), (convert_guru, {"data_source": "codegen__t"})):
        read = Read(Path("code.jsonl"), "line 1", {**row, **more})
        try:
            made: Converted | Rejected = convert_one(read)
        except Rejected as exc:
            made = exc
        assert made.reason if isinstance(made, Rejected) else made.problem.strip()
    list(texts_of({**row, "messages": turns}, problems_only=False))


def deep(levels: int) -> str:
    return "[" * levels + "]" * levels


@pytest.mark.parametrize(
    ("kind", "row", "reason"),
    [
        ("am", '{"conversations": [{"from": "human", "value": "\\ud800"}, {"from": "assistant", "value": "<think>a</think>b"}]}', "half_characters"),
        ("am", '{"conversations": ' + deep(100_000) + "}", "not_json"),
        ("guru", json.dumps({"data_source": "codegen__t", "prompt": [{"role": "user", "content": "?"}], "reward_model": {"ground_truth": deep(100_000)}}), "bad_tests"),
    ],
    ids=["half_characters", "deep", "deep_inside"],
)  # fmt: skip
def test_what_breaks_readers_is_one_bad_record(kind: str, row: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(row + "\n")
    options = ConvertOptions(verify=Verify.off, quiet=True)
    manifest = asyncio.run(convert(Kind(kind), [str(tmp_path / "x.jsonl")], tmp_path / "out", options))
    assert (manifest.rejected, manifest.written) == ({reason: 1}, 0)
