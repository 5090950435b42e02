"""Mixing: shares as asked for, no record twice, an order that a seed reproduces."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from k2think.schemas.errors import InvalidRequest, NotFound
from k2think.training.data.choices import By, Order
from k2think.training.data.manifest import DataManifest
from k2think.training.data.mix import MixOptions, mix

Lines = Callable[[Path], list[dict[str, Any]]]
COUNTS = {"math": 60, "code": 30, "logic": 12}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder of problems in three domains; of every third the difficulty is not known."""
    folder = tmp_path / "data"
    folder.mkdir()
    with (folder / "tasks.jsonl").open("w") as file:
        for domain, count in COUNTS.items():
            for number in range(count):
                meta = {} if number % 3 == 0 else {"difficulty": (number * 7 % count) / count}
                task = {"id": f"{domain}{number}", "domain": domain, "source": f"{domain}_{number % 2}"}
                file.write(json.dumps({**task, "prompt": f"Grüße {number}", "truth": "1", "meta": meta}) + "\n")
    return folder


def run(data: Path, out: Path, weights: dict[str, float] | None = None, **options: Any) -> DataManifest:
    return mix([data], out, MixOptions(weights or {}, quiet=True, **options))


def domains(rows: list[dict[str, Any]]) -> Counter[str]:
    return Counter(row["domain"] for row in rows)


def test_shares_are_as_asked_for(data: Path, tmp_path: Path, lines: Lines) -> None:
    manifest = run(data, tmp_path / "out", {"math": 3, "code": 1}, size=40)
    rows = lines(tmp_path / "out/tasks.jsonl")
    assert domains(rows) == {"math": 30, "code": 10}
    assert len({row["id"] for row in rows}) == 40
    assert (manifest.read, manifest.written, manifest.rejected) == (102, 40, {"not_drawn": 62})
    originals = {row["id"]: row for row in lines(data / "tasks.jsonl")}
    assert all(row == originals[row["id"]] for row in rows)


def test_without_a_size_as_many_as_the_weights_allow(data: Path, tmp_path: Path, lines: Lines) -> None:
    run(data, tmp_path / "out", {"math": 1, "logic": 1})
    assert domains(lines(tmp_path / "out/tasks.jsonl")) == {"math": 12, "logic": 12}
    run(data, tmp_path / "rest", {"math": 2}, rest=1, size=40)
    assert domains(lines(tmp_path / "rest/tasks.jsonl")) == {"math": 20, "code": 10, "logic": 10}
    run(data, tmp_path / "all")
    assert domains(lines(tmp_path / "all/tasks.jsonl")) == COUNTS


def test_the_seed_reproduces_choice_and_order(data: Path, tmp_path: Path) -> None:
    hashes = [
        run(data, tmp_path / str(n), {"math": 1, "code": 1}, size=30, seed=seed).outputs
        for n, seed in enumerate((1, 1, 2))
    ]
    assert hashes[0] == hashes[1] != hashes[2]


def test_every_stretch_has_the_proportions_of_the_whole(data: Path, tmp_path: Path, lines: Lines) -> None:
    run(data, tmp_path / "out", {"math": 2, "code": 1}, size=60, seed=3)
    rows = lines(tmp_path / "out/tasks.jsonl")
    for start in range(0, 60, 20):
        assert 11 <= domains(rows[start : start + 20])["math"] <= 16


def test_a_curriculum_goes_from_easy_to_hard_in_each_domain(data: Path, tmp_path: Path, lines: Lines) -> None:
    run(data, tmp_path / "out", {"math": 1, "code": 1}, order=Order.easy_first)
    rows = lines(tmp_path / "out/tasks.jsonl")
    for domain in ("math", "code"):
        known = [row["meta"]["difficulty"] for row in rows if row["domain"] == domain and "difficulty" in row["meta"]]
        assert known == sorted(known)
    unknown = [place for place, row in enumerate(rows) if "difficulty" not in row["meta"]]
    assert min(unknown) < len(rows) / 4
    assert max(unknown) > len(rows) * 3 / 4


def test_sources_can_be_weighed_as_well(data: Path, tmp_path: Path, lines: Lines) -> None:
    run(data, tmp_path / "out", {"math_0": 1, "code_1": 2}, by=By.source)
    assert Counter(row["source"] for row in lines(tmp_path / "out/tasks.jsonl")) == {"math_0": 7, "code_1": 15}


@pytest.mark.parametrize(
    ("weights", "options", "words"),
    [
        ({"poetry": 1.0}, {}, "there is nothing of poetry"),
        ({"math": 0.0}, {}, "all weights are 0"),
        ({"math": 1.0, "logic": 1.0}, {"size": 50}, "the most is --size 24"),
    ],
    ids=["unknown", "nothing", "too_many"],
)
def test_what_cannot_be_mixed_is_said(
    weights: dict[str, float], options: dict[str, Any], words: str, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(InvalidRequest, match=words):
        run(data, tmp_path / "out", weights, **options)


def test_kinds_of_records_are_not_mixed(data: Path, tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
    (tmp_path / "sft.jsonl").write_text(json.dumps({"id": "a", "source": "s", "messages": turns}) + "\n")
    with pytest.raises(InvalidRequest, match="cannot be mixed"):
        mix([data, tmp_path / "sft.jsonl"], tmp_path / "out", MixOptions({}, quiet=True))
    manifest = mix([tmp_path / "sft.jsonl"], tmp_path / "sft", MixOptions({}, quiet=True))
    assert (manifest.outputs[0].name, manifest.groups) == ("examples.jsonl", {"unchecked s": 1})
    with pytest.raises(NotFound, match="neither"):
        mix([tmp_path / "out"], tmp_path / "other", MixOptions({}, quiet=True))
    (tmp_path / "bad.jsonl").write_text('{"id": 1}\n')
    with pytest.raises(InvalidRequest, match="line 1 is no record of ours"):
        mix([tmp_path / "bad.jsonl"], tmp_path / "other", MixOptions({}, quiet=True))
