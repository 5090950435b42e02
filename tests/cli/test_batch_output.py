"""The output file of a batch: resumed, protected, never left with half a line."""

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from k2think.cli.batch_input import describe_input
from k2think.cli.batch_output import BatchOutput
from k2think.cli.requests import parse_policy
from k2think.schemas.errors import InvalidRequest

POLICY = parse_policy(None)


def answer(line_id: Any, status: str = "succeeded") -> dict[str, Any]:
    return {"id": line_id, "status": status, "error": None}


def begin(output: BatchOutput, source: Path, *, restart: bool = False) -> str:
    return output.begin(str(source), describe_input(source), POLICY, restart=restart).batch_id


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_text('{"id": 1, "problem": "p"}\n')
    return path


def test_a_second_run_knows_what_was_written_and_keeps_the_batchs_name(tmp_path: Path, source: Path) -> None:
    out = tmp_path / "out.jsonl"
    with BatchOutput(out) as output:
        name = begin(output, source)
        output.write(answer(1))
        output.write(answer(2, "failed"))
    with BatchOutput(out) as output:
        assert begin(output, source) == name
        assert (output.counts.done, output.counts.failed) == (2, 1)
        output.write(answer(3))
    assert [json.loads(line)["id"] for line in out.read_text().splitlines()] == [1, 2, 3]


def test_a_torn_last_line_is_cut_off(tmp_path: Path, source: Path) -> None:
    out = tmp_path / "out.jsonl"
    with BatchOutput(out) as output:
        begin(output, source)
        output.write(answer(1))
    whole = out.read_bytes()
    out.write_bytes(whole + b'{"id": 2, "stat')
    with BatchOutput(out) as output:
        begin(output, source)
        assert output.counts.done == 1
    assert out.read_bytes() == whole


def test_an_input_that_has_grown_is_the_same_and_a_changed_one_is_not(tmp_path: Path, source: Path) -> None:
    out = tmp_path / "out.jsonl"
    with BatchOutput(out) as output:
        name = begin(output, source)
        output.write(answer(1))
    with source.open("a") as file:
        file.write('{"id": 2, "problem": "q"}\n')
    with BatchOutput(out) as output:
        assert begin(output, source) == name
    source.write_text('{"id": 9, "problem": "other"}\n' * 3)
    with BatchOutput(out) as output, pytest.raises(InvalidRequest, match="belongs to another input"):
        begin(output, source)
    assert len(out.read_text().splitlines()) == 1
    with BatchOutput(out) as output:
        assert begin(output, source, restart=True) != name
    assert out.read_bytes() == b""


def test_a_file_of_someone_else_is_not_overwritten(tmp_path: Path, source: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text("my notes\n")
    with BatchOutput(out) as output, pytest.raises(InvalidRequest, match="not written by this command"):
        begin(output, source)
    assert out.read_text() == "my notes\n"


def test_two_runs_do_not_share_an_output(tmp_path: Path) -> None:
    with BatchOutput(tmp_path / "out.jsonl"), pytest.raises(InvalidRequest, match="another batch is writing"):
        BatchOutput(tmp_path / "out.jsonl")


@pytest.mark.parametrize("place", ["missing/out.jsonl", "/dev/null", "."])
def test_outputs_that_cannot_be(tmp_path: Path, place: str) -> None:
    with pytest.raises(InvalidRequest, match=r"cannot be written|regular file"):
        BatchOutput(tmp_path / place)


def test_when_there_is_no_room_for_a_line_nothing_of_it_is_left(tmp_path: Path, source: Path) -> None:
    # Given a process that may write files of 1,000 bytes, and a second line that crosses that
    script = f"""
from pathlib import Path
from k2think.cli.batch_input import describe_input
from k2think.cli.batch_output import BatchOutput
from k2think.cli.requests import parse_policy
from k2think.schemas.errors import StoreFull
source = Path({str(source)!r})
with BatchOutput(Path({str(tmp_path / "out.jsonl")!r})) as output:
    output.begin(str(source), describe_input(source), parse_policy(None), restart=False)
    output.write({{"id": 1, "status": "succeeded"}})
    try:
        output.write({{"id": 2, "status": "succeeded", "content": "x" * 2000}})
    except StoreFull as exc:
        print(exc)
"""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, 1_000))

    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True, preexec_fn=limit
    )
    # Then it is told, and the file ends with the first line
    assert "no space is left" in done.stdout
    assert [json.loads(line)["id"] for line in (tmp_path / "out.jsonl").read_text().splitlines()] == [1]
