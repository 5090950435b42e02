"""The client's methods about files and batches, on a whole stack."""

from __future__ import annotations

import json
import uuid
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import k2think.client.batches
import k2think.client.files
import pytest
from k2think.agents.backends.simulator import Reply
from k2think.client import BatchItem, LineResult, SolvedBatch
from k2think.schemas.batches import BatchObject, BatchStatus, FileObject
from k2think.schemas.errors import IdempotencyConflict, InvalidRequest, NotFound, WaitTimedOut
from k2think.schemas.jobs import JobStatus

if TYPE_CHECKING:
    from harness.live import LiveGateway

PROBLEM = "What is 347 + 58?"
FAST: dict[str, Any] = {"n": 1, "plan": "off"}
TIMEOUT_S = 100.0


def failing(custom_id: str) -> BatchItem:
    """Comes to no answer: no candidate has the form that it asks for."""
    return BatchItem(PROBLEM, custom_id=custom_id, policy=FAST, checks={"answer_form": "interval"})


def line(custom_id: str, **body: Any) -> bytes:
    """A line of an input file made by hand."""
    given = {
        "model": "k2think",
        "messages": [{"role": "user", "content": PROBLEM}],
        "k2think": {"policy": FAST},
        **body,
    }
    written = {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": given}
    return json.dumps(written).encode() + b"\n"


@pytest.fixture
def stuck(live_gateway: LiveGateway) -> str:
    """A problem that the model does not answer before the test is over."""
    return PROBLEM + live_gateway.replies.to_mark(generator=Reply(text="<answer>405</answer>", first_token_s=100.0))


def test_many_problems_are_solved_with_progress(client: Any) -> None:
    problems = [
        f"{PROBLEM} (1)",
        BatchItem(f"{PROBLEM} (2)", custom_id="second", metadata={"who": "me"}),
        failing("third"),
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": PROBLEM}],
        BatchItem(PROBLEM, custom_id="fifth", policy="paper"),
    ]
    seen: list[BatchObject] = []

    solved = client.solve_batch(
        problems, policy=FAST, on_progress=seen.append, timeout_s=TIMEOUT_S, metadata={"a": "b"}
    )

    assert isinstance(solved, SolvedBatch)
    assert list(solved.results) == ["0", "second", "third", "3", "fifth"]
    assert (solved.batch.status, solved.batch.metadata) == (BatchStatus.completed, {"a": "b"})
    assert solved.batch == seen[-1]
    counts = solved.batch.request_counts
    assert (counts.total, counts.completed, counts.failed) == (5, 4, 1)
    assert [result.ok for result in solved.results.values()] == [True, True, False, True, True]
    done = [state.request_counts.completed + state.request_counts.failed for state in seen]
    assert done == sorted(done)
    assert all(first != second for first, second in pairwise(seen))

    answered, failed = solved.results["second"], solved.results["third"]
    assert isinstance(answered, LineResult)
    assert (answered.status_code, answered.error, answered.finish_reason) == (200, None, "stop")
    assert answered.answer in (answered.content or "")
    assert answered.usage.total > 0
    assert (failed.error.code, failed.content, failed.status_code) == ("checks_failed", None, 422)
    paper = client.get(solved.results["fifth"].job_id)
    assert (paper.status, paper.door, client.trace(paper.id).request.policy.preset) == ("succeeded", "batches", "paper")
    assert client.get(answered.job_id).metadata == {"who": "me"}
    assert client.get(failed.job_id).status is JobStatus.failed


def test_the_same_key_brings_back_the_same_batch(client: Any) -> None:
    key = uuid.uuid4().hex
    first = client.submit_batch([PROBLEM, failing("x")], policy=FAST, idempotency_key=key)

    solved = client.solve_batch([PROBLEM, failing("x")], policy=FAST, idempotency_key=key, timeout_s=TIMEOUT_S)

    assert solved.batch.id == first.id
    assert list(client.batch_results(first.id)) == list(solved.results.values()), "here the one with an answer is first"
    with pytest.raises(IdempotencyConflict):
        client.submit_batch([PROBLEM], policy=FAST, idempotency_key=key)


def test_a_batch_is_watched_to_its_end(client: Any) -> None:
    batch = client.submit_batch([PROBLEM] * 3, policy=FAST)

    states = list(client.watch_batch(batch.id))

    assert states[-1].status is BatchStatus.completed
    assert states[-1] == client.get_batch(batch.id) == client.wait_batch(batch.id, timeout_s=0)
    assert [state.status.final for state in states] == [False] * (len(states) - 1) + [True]


def test_a_cancelled_batch_has_a_line_for_every_problem(client: Any, stuck: str) -> None:
    batch = client.submit_batch([stuck, BatchItem(stuck, custom_id="b")], policy=FAST)
    with pytest.raises(WaitTimedOut, match=batch.id):
        client.wait_batch(batch.id, timeout_s=0.5)
    with pytest.raises(InvalidRequest, match="wait_batch"):
        list(client.batch_results(batch.id))

    asked = client.cancel_batch(batch.id)
    ended = client.wait_batch(batch.id, timeout_s=TIMEOUT_S)

    assert asked.status in (BatchStatus.cancelling, BatchStatus.cancelled)
    assert ended.status is BatchStatus.cancelled
    results = list(client.batch_results(batch.id))
    assert [result.custom_id for result in results] == ["0", "b"]
    assert {result.error.code for result in results} == {"batch_cancelled"}
    assert not any(result.ok for result in results)


@pytest.mark.parametrize(
    ("problems", "word"),
    [
        ([], "no problem"),
        ([PROBLEM, " "], "'1'"),
        ([BatchItem(PROBLEM, custom_id="a"), BatchItem(PROBLEM, custom_id="a")], "'a'"),
        ([BatchItem(PROBLEM, policy={"n": 0})], "policy.n"),
    ],
    ids=["none", "empty", "twice", "policy"],
)
def test_what_is_wrong_is_named_before_anything_is_sent(client: Any, problems: list[Any], word: str) -> None:
    with pytest.raises(InvalidRequest, match=word):
        client.solve_batch(problems)


def test_what_the_gateway_finds_wrong_is_named_with_its_line(client: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"line 2: .*nowhere"):
        client.solve_batch([PROBLEM, BatchItem(PROBLEM, policy={"backend": "nowhere"})], timeout_s=TIMEOUT_S)
    with pytest.raises(InvalidRequest, match="completion_window"):
        client.solve_batch([PROBLEM], completion_window="soon")


def test_files_and_batches_by_hand(client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(k2think.client.files, "PAGE", 1)
    monkeypatch.setattr(k2think.client.batches, "PAGE", 1)
    path = tmp_path / "input.jsonl"
    path.write_bytes(line("a") + line("b"))

    file = client.upload_file(path)
    other = client.upload_file(line("c"), filename="c.jsonl", expires_after_s=3600)
    assert isinstance(file, FileObject)
    assert (file.filename, file.bytes, file.expires_at) == ("input.jsonl", path.stat().st_size, None)
    assert (other.filename, other.expires_at) == ("c.jsonl", other.created_at + 3600)
    assert client.get_file(file.id) == file
    assert [one.id for one in client.list_files(purpose="batch") if one.id in (file.id, other.id)] == [
        other.id,
        file.id,
    ]
    assert file.id in [one.id for one in client.list_files(after=other.id)]

    batch = client.create_batch(file.id, completion_window="30m", metadata={"run": "1"})
    last = client.create_batch(other.id)
    assert [one.id for one in client.list_batches() if one.id in (batch.id, last.id)] == [last.id, batch.id]
    ended = client.wait_batch(batch.id, timeout_s=TIMEOUT_S)
    client.wait_batch(last.id, timeout_s=TIMEOUT_S)

    assert (ended.completion_window, ended.metadata, ended.error_file_id) == ("30m", {"run": "1"}, None)
    content = client.file_content(ended.output_file_id)
    assert [json.loads(one)["custom_id"] for one in content.splitlines()] == ["a", "b"]
    target = tmp_path / "output.jsonl"
    client.download_file(ended.output_file_id, target)
    assert target.read_bytes() == content

    assert client.delete_file(file.id).deleted
    for method in (client.get_file, client.file_content, client.delete_file, client.create_batch):
        with pytest.raises(NotFound):
            method(file.id)
    with pytest.raises(NotFound):
        client.download_file(file.id, target)
    assert target.read_bytes() == content, "a download that fails leaves what was there"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["input.jsonl", "output.jsonl"]


def test_a_file_that_cannot_be_read_is_named(client: Any, tmp_path: Path) -> None:
    for path in (tmp_path / "missing.jsonl", tmp_path):
        with pytest.raises(InvalidRequest, match=path.name):
            client.upload_file(path)


def test_unknown_ids_are_not_found(client: Any) -> None:
    for method in (client.get_batch, client.cancel_batch, client.wait_batch):
        with pytest.raises(NotFound):
            method(f"batch_{uuid.uuid4().hex}")
    with pytest.raises(NotFound):
        list(client.batch_results("nonsense"))
