"""Reading and writing a run's folder: torn, damaged, asked again, written by two at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness.evaluations import MadeUp, items, outcome, sample
from k2think.evaluation.records import (
    ITEMS_NAME,
    MANIFEST_NAME,
    OUTCOMES_NAME,
    OutcomeLog,
    data_sha256,
    key_of,
    read_run,
)
from k2think.schemas.errors import InvalidRequest, NotFound
from k2think.schemas.evaluation import Row, Status


@pytest.fixture
def run() -> MadeUp:
    made = MadeUp(items({"a": 3, "b": 2}), {"single": {"row": Row.single}})
    made.ask("single", lambda item, repeat: outcome(item, "single", sample("42", right=True), repeat=repeat))
    return made


def test_what_was_written_is_read(run: MadeUp, tmp_path: Path) -> None:
    found = read_run(run.write(tmp_path / "run"))
    assert found.items == tuple(run.items)
    assert found.outcomes == tuple(run.outcomes)
    assert found.faults == ()
    assert found.manifest is not None
    assert found.manifest.data_sha256 == data_sha256(run.items)
    assert ("a-0", "single", 0) in found.done
    assert len(found.done) == 5


def test_the_hash_of_the_data_knows_truths_but_no_order(run: MadeUp) -> None:
    first = run.items[0]
    other = first.model_copy(update={"task": first.task.model_copy(update={"truth": "another"})})
    assert data_sha256(run.items) == data_sha256(run.items[::-1])
    assert data_sha256(run.items) != data_sha256([other, *run.items[1:]])


def test_a_torn_line_is_told_and_cut_off_by_the_next_writer(run: MadeUp, tmp_path: Path) -> None:
    folder = run.write(tmp_path / "run")
    log = folder / OUTCOMES_NAME
    log.write_bytes(log.read_bytes()[:-40])
    found = read_run(folder)
    assert len(found.outcomes) == 4
    assert found.faults == (f"the last line of {OUTCOMES_NAME} is torn, as a kill leaves it: it is not counted",)
    with OutcomeLog(folder) as again:
        again.append(run.outcomes[-1])
    assert read_run(folder).outcomes == tuple(run.outcomes)
    assert read_run(folder).faults == ()


def test_a_last_line_that_only_lacks_its_end_is_kept(run: MadeUp, tmp_path: Path) -> None:
    folder = run.write(tmp_path / "run")
    log = folder / OUTCOMES_NAME
    log.write_bytes(log.read_bytes()[:-1])
    assert read_run(folder).outcomes == tuple(run.outcomes)
    with OutcomeLog(folder) as again:
        again.append(outcome(run.items[0], "single", sample("42"), repeat=1))
    assert len(read_run(folder).outcomes) == 6


def test_a_damaged_line_in_between_is_left_out_with_its_number(run: MadeUp, tmp_path: Path) -> None:
    folder = run.write(tmp_path / "run")
    log = folder / OUTCOMES_NAME
    lines = log.read_text().splitlines()
    lines[1] = '{"item": "a-1"'
    log.write_text("\n".join(lines) + "\n")
    found = read_run(folder)
    assert len(found.outcomes) == 4
    assert "1 of 5 lines of outcomes.jsonl cannot be understood (line 2)" in found.faults[0]


def test_the_first_answer_stands_whatever_comes_later(run: MadeUp, tmp_path: Path) -> None:
    run.outcomes[0] = outcome(run.items[0], "single", sample("7"))
    run.outcomes.append(outcome(run.items[0], "single", sample("42", right=True)))
    found = read_run(run.write(tmp_path / "run"))
    assert found.outcomes[0].final.answer == "7"
    assert [one.final.answer for one in found.ignored] == ["42"]
    assert found.replaced == ()
    assert "1 outcomes answer a question that had been answered before" in found.faults[0]


def test_all_outcomes_can_be_written_again_and_the_same_ones_stand(run: MadeUp, tmp_path: Path) -> None:
    # Given a question that was tried again, one that was answered twice, and one with both
    first, second, third, *_ = run.items
    run.outcomes = [
        *run.outcomes,
        outcome(first, "single", sample("7")),
        *(outcome(second, "single", one, repeat=1) for one in (sample(None, status=Status.errored), sample("8"))),
        *(
            outcome(third, "single", one, repeat=1)
            for one in (sample(None, status=Status.ungraded), sample("9"), sample("42", right=True))
        ),
    ]
    found = read_run(run.write(tmp_path / "run"))
    run.outcomes = list(found.everything)
    again = read_run(run.write(tmp_path / "again"))
    assert {key_of(one): one for one in again.outcomes} == {key_of(one): one for one in found.outcomes}
    assert (again.replaced, again.ignored) == (found.replaced, found.ignored)
    assert (len(found.replaced), len(found.ignored)) == (2, 2)


@pytest.mark.parametrize("status", [Status.errored, Status.ungraded])
def test_what_has_no_verdict_may_be_tried_again_and_is_still_paid_for(
    run: MadeUp, status: Status, tmp_path: Path
) -> None:
    run.outcomes[0] = outcome(run.items[0], "single", sample(None, status=status))
    run.outcomes.append(outcome(run.items[0], "single", sample("42", right=True)))
    found = read_run(run.write(tmp_path / "run"))
    assert {one.final.status for one in found.outcomes} == {Status.graded}
    assert [one.final.status for one in found.replaced] == [status]
    assert found.faults == ()


def test_problems_that_are_not_the_manifests_are_told(run: MadeUp, tmp_path: Path) -> None:
    folder = run.write(tmp_path / "run")
    lines = (folder / ITEMS_NAME).read_text().splitlines()
    (folder / ITEMS_NAME).write_text("\n".join(lines[:-1]) + "\n")
    assert "not what the manifest was written for (4 problems, 5 expected" in read_run(folder).faults[0]


@pytest.mark.parametrize("name", [MANIFEST_NAME, ITEMS_NAME, OUTCOMES_NAME])
def test_a_missing_file_is_told(run: MadeUp, name: str, tmp_path: Path) -> None:
    folder = run.write(tmp_path / "run")
    (folder / name).unlink()
    assert any(fault.startswith(f"{name} is missing") for fault in read_run(folder).faults)


def test_a_damaged_manifest_is_told(run: MadeUp, tmp_path: Path) -> None:
    folder = run.write(tmp_path / "run")
    (folder / MANIFEST_NAME).write_text('{"suite": 1}')
    found = read_run(folder)
    assert found.manifest is None
    assert found.faults[0].startswith("manifest.json cannot be understood (suite:")


def test_no_folder_is_a_designed_error(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no such folder"):
        read_run(tmp_path / "nowhere")


def test_two_writers_are_one_too_many(run: MadeUp, tmp_path: Path) -> None:
    folder = run.write(tmp_path / "run")
    with OutcomeLog(folder), pytest.raises(InvalidRequest, match="being written by another process"):
        OutcomeLog(folder)
    with OutcomeLog(folder):
        pass
