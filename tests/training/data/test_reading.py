"""Records of files: each is handed out or said to be bad, and a file that is not what it says is refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from k2think.schemas.errors import InvalidRequest, NotFound
from k2think.training.data import reading
from k2think.training.data.reading import files_of, passed_over, rows_of
from k2think.training.data.texts import texts_of


def test_good_and_bad_lines_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "LINE_BYTES_MAX", 40)
    file = tmp_path / "x.jsonl"
    file.write_bytes(b'{"a": 1}\n\n{"a"\n[1]\n{"b": "' + b"x" * 100 + b'"}\n\xff\xfe\n{"a": 2}')
    told = [(read.place, read.row, read.reason) for read in rows_of(file)]
    assert told == [
        ("line 1", {"a": 1}, ""),
        ("line 3", None, "not_json"),
        ("line 4", None, "not_an_object"),
        ("line 5", None, "line_too_long"),
        ("line 6", None, "not_json"),
        ("line 7", {"a": 2}, ""),
    ]


def test_lines_are_read_one_by_one(tmp_path: Path) -> None:
    # Given a file that goes on for ever, as far as its reader can tell
    file = tmp_path / "x.jsonl"
    file.write_text('{"a": 1}\n' * 100_000)
    rows = rows_of(file)
    # When only the first is asked for, then the file is still at its beginning
    assert next(rows).place == "line 1"
    rows.close()  # type: ignore[attr-defined]


def test_a_csv_record_with_too_many_fields_is_a_bad_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "x.csv"
    file.write_text('a,b\n1,2\n1,2,3\n"long\nand broken",2\n')
    told = [(read.place, read.row, read.reason) for read in rows_of(file)]
    assert told[0] == ("record 1", {"a": "1", "b": "2"}, "")
    assert told[1] == ("record 2", None, "too_many_fields")
    assert told[2] == ("record 3", {"a": "long\nand broken", "b": "2"}, "")
    monkeypatch.setattr(reading, "LINE_BYTES_MAX", 4)
    with pytest.raises(InvalidRequest, match="no CSV"):
        list(rows_of(file))


def test_other_forms_are_read_alike(tmp_path: Path) -> None:
    rows = [{"problem": "one"}, {"problem": "two"}]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    with gzip.open(tmp_path / "b.jsonl.gz", "wt") as packed:
        packed.writelines(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "c.txt").write_text("one\nmore of it\n\n\ntwo\n")
    (tmp_path / "d.csv").write_text('problem\n"one"\ntwo\n')
    found = {file.name: [read.row for read in rows_of(file)] for file in files_of([tmp_path])}
    paragraphs = [{"text": "one\nmore of it\n"}, {"text": "two\n"}]
    assert found == {"a.json": rows, "b.jsonl.gz": rows, "c.txt": paragraphs, "d.csv": rows}
    assert [read.place for read in rows_of(tmp_path / "c.txt")] == ["line 1", "line 5"]


def test_parquet_is_read_row_by_row(samples: Path) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra `train`)")
    reads = list(rows_of(samples / "guru" / "train" / "math__combined_54.4k.parquet"))
    assert [read.place for read in reads] == ["row 1", "row 2", "row 3"]
    assert reads[1].row is not None
    assert reads[1].row["reward_model"] == {"ground_truth": "20", "style": "rule"}


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.parquet", b"PAR1 and nothing more", "no whole Parquet file"),
        ("x.jsonl.gz", b"not gzip", "cannot be read"),
        ("x.json", b"{", "is no JSON"),
        ("x.xlsx", b"PK", "files must end in"),
    ],
    ids=["parquet", "gzip", "json", "ending"],
)
def test_a_file_that_is_not_what_it_says_is_refused(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(InvalidRequest, match=words):
        list(rows_of(files_of([file])[0]))


def test_a_torn_parquet_file_is_refused(tmp_path: Path, samples: Path) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra `train`)")
    whole = (samples / "guru" / "train" / "stem__web_3.6k.parquet").read_bytes()
    torn = tmp_path / "torn.parquet"
    torn.write_bytes(whole[:200] + b"\0" * 400 + whole[600:])
    with pytest.raises(InvalidRequest, match="torn"):
        list(rows_of(torn))


def test_what_lies_beside_data_is_not_data(tmp_path: Path) -> None:
    for name in ("tasks.jsonl", "rejects.jsonl", "manifest.json", "README.md", ".cache/x.jsonl", "deep/more.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}\n")
    assert [file.name for file in files_of([tmp_path])] == ["more.jsonl", "tasks.jsonl"]
    with pytest.raises(NotFound, match="no such file or folder"):
        files_of([tmp_path / "nowhere"])
    assert passed_over(tmp_path) == []
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InvalidRequest, match="holds no file that can be read"):
        files_of([empty])


def test_what_is_passed_over_in_a_folder_is_told(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    for file in (folder / "a.jsonl", folder / "deep" / "b.jsonl.zst", folder / "license.jsonl", elsewhere / "c.jsonl"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("{}\n")
    (folder / "linked").symlink_to(elsewhere)
    (folder / "lost.jsonl").symlink_to(elsewhere / "gone.jsonl")
    assert [file.name for file in files_of([folder])] == ["a.jsonl", "license.jsonl"]
    assert [entry.name for entry in passed_over(folder)] == ["b.jsonl.zst", "linked", "lost.jsonl"]


def test_the_texts_of_all_kinds_of_records() -> None:
    asked = [
        ({"prompt": "P", "truth": 1}, ["P"]),
        ({"task": {"prompt": "P"}, "subset": "s"}, ["P"]),
        ({"messages": [{"role": "user", "content": "U"}, {"role": "assistant", "content": "A"}]}, ["U"]),
        ({"conversations": [{"from": "human", "value": "U"}, {"from": "assistant", "value": "A"}]}, ["U"]),
        ({"prompt": [{"role": "user", "content": "U"}], "raw_prompt": "R"}, ["U", "R"]),
        ({"instruction": "Solve this.", "input": "P", "output": "A"}, ["Solve this.", "P"]),
        ({"chosen": [{"role": "user", "content": "U"}, {"role": "assistant", "content": "A"}]}, ["U"]),
        ({"my_column": "M", "n": 3}, ["M"]),
        ({"n": 3}, []),
    ]
    for row, problems in asked:
        assert [text for _, text in texts_of(row, problems_only=True)] == problems


def test_every_text_of_a_record_is_handed_out_unless_problems_alone_are_wanted() -> None:
    row = {
        "prompt": "P",
        "generations": ["G", " "],
        "chosen": [{"role": "assistant", "content": "C"}],
        "info": {"n": 3, "value": "V", "pairs": [("k", {"deep": "D"})]},
    }
    assert list(texts_of(row, problems_only=False)) == [
        ("prompt", "P"),
        ("generations 1", "G"),
        ("chosen 1 role", "assistant"),
        ("chosen 1", "C"),
        ("info", "V"),
        ("info pairs 1 1", "k"),
        ("info pairs 1 2 deep", "D"),
    ]
    nested: dict[str, object] = {"text": "T"}
    for _ in range(5000):
        nested = {"a": nested}
    assert [text for _, text in texts_of(nested, problems_only=False)] == ["T"]
