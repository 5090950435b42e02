"""`k2think batch run` as a child process: mixed lines, resuming after death, bad usage."""

import json
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness.cli import COMMAND_TIMEOUT_S, Cli, Solved
from k2think.schemas.jobs import JobStatus
from k2think.store.database import Database
from k2think.store.jobs import list_jobs

pytestmark = pytest.mark.timeout(400)  # a guard against hanging, for machines that are busy with other things


def problems(count: int) -> str:
    return "".join(json.dumps({"id": f"p{number}", "problem": "What is 347 + 58?"}) + "\n" for number in range(count))


def answers(folder: Path, name: str = "out.jsonl") -> list[dict[str, Any]]:
    path = folder / name
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]


def wait_for(condition: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + COMMAND_TIMEOUT_S
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


# --- what comes of a mixed input ----------------------------------------------------------------------------------


def test_each_line_has_one_answer_and_failed_ones_make_exit_code_1(solved: Solved) -> None:
    ids = [line.get("id") if "custom_id" not in line else line["custom_id"] for line in solved.lines]
    assert Counter(map(repr, ids)) == Counter(map(repr, ["plain", 7, None, "chat", "plain", "refused", "tools"]))
    assert solved.done.returncode == 1


def test_plain_lines_are_answered_plainly(solved: Solved) -> None:
    (line,) = [line for line in solved.lines if line.get("id") == "plain" and line["status"] == "succeeded"]
    assert (line["answer"], line["error"], line["metadata"]) == ("405", None, {"from": "test"})
    assert line["calls"]["generator"] >= 2
    assert line["usage"]["completion"] > 0


def test_openai_lines_are_answered_as_the_client_reads_them(solved: Solved) -> None:
    from openai.types.chat import ChatCompletion

    (line,) = [line for line in solved.lines if line.get("custom_id") == "chat"]
    assert line["error"] is None
    assert line["response"]["status_code"] == 200
    completion = ChatCompletion.model_validate(line["response"]["body"])
    assert completion.choices[0].message.content == "405"
    assert completion.model == "gpt"
    assert completion.usage is not None
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens
    assert line["response"]["request_id"] == completion.id.removeprefix("chatcmpl-")


def test_bad_lines_are_told_by_their_number_and_written_as_errors(solved: Solved) -> None:
    bad = {line["error"]["line"]: line for line in solved.lines if line["error"] and "line" in line["error"]}
    assert sorted(bad) == [3, 6, 8]
    assert "not valid JSON" in bad[3]["error"]["message"]
    assert "same id" in bad[6]["error"]["message"]
    assert "body.tools" in bad[8]["error"]["message"]
    assert bad[8]["response"] is None
    for number in bad:
        assert f"line {number}: " in solved.done.stderr


def test_a_refused_line_shows_no_text_of_a_model(solved: Solved) -> None:
    (line,) = [line for line in solved.lines if line.get("id") == "refused"]
    assert (line["status"], line["error"]["code"]) == ("refused", "refused")
    assert (line["answer"], line["content"], line["reasoning"]) == (None, None, None)


def test_the_summary_counts(solved: Solved) -> None:
    summary = json.loads(solved.done.stdout)
    assert (summary["lines"], summary["succeeded"], summary["failed"], summary["complete"]) == (7, 3, 4, True)
    run = summary["this_run"]
    assert (run["finished"], run["bad_lines"], run["skipped"]) == (4, 3, 0)
    assert run["statuses"] == {"succeeded": 3, "refused": 1}
    assert run["completion_tokens"] > 0


def test_a_finished_batch_is_not_done_again(solved: Solved) -> None:
    # When the same command is given again, Then it ends without a stack, and nothing is added
    done = solved.cli.run("batch", "run", "in.jsonl", "-o", "out.jsonl")
    assert done.returncode == 1
    assert "7 of 7 lines were answered before" in done.stderr
    assert answers(solved.cli.folder) == solved.lines


# --- resuming -----------------------------------------------------------------------------------------------------


def test_after_sigkill_each_line_is_answered_once_and_no_job_is_begun_twice(simulated_cli: Cli) -> None:
    count = 9
    (simulated_cli.folder / "in.jsonl").write_text(problems(count))
    command = ("batch", "run", "in.jsonl", "-o", "out.jsonl", "--max-in-flight", "3")
    # Given a batch that dies in the middle, with jobs in flight and half a line written
    # (whose embedded Redis has its folder where we can tidy up after it)
    with tempfile.TemporaryDirectory(prefix="k2-", ignore_cleanup_errors=True) as temporary:
        process = simulated_cli.start(*command, TMPDIR=temporary)
        wait_for(lambda: len(answers(simulated_cli.folder)) >= 2, process)
        process.kill()
        process.communicate()
    first = answers(simulated_cli.folder)
    assert len(first) < count
    with (simulated_cli.folder / "out.jsonl").open("a") as file:
        file.write('{"id": "p8", "sta')
    # When it is run again
    done = simulated_cli.run(*command, "--json")
    # Then every line is there once, what was finished is as it was, and the jobs in flight were found again
    assert done.returncode == 0, done.stderr
    lines = answers(simulated_cli.folder)
    assert sorted(line["id"] for line in lines) == sorted(f"p{number}" for number in range(count))
    assert all(line["answer"] == "405" for line in lines)
    assert lines[: len(first)] == first
    assert json.loads(done.stdout)["this_run"]["skipped"] == len(first)
    assert jobs_of(simulated_cli) == Counter({JobStatus.succeeded: count})


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_the_jobs_and_says_how_to_go_on(simulated_cli: Cli, number: signal.Signals) -> None:
    (simulated_cli.folder / "in.jsonl").write_text(problems(8))
    process = simulated_cli.start("batch", "run", "in.jsonl", "-o", "out.jsonl", "--max-in-flight", "2", "--json")
    wait_for(lambda: len(answers(simulated_cli.folder)) >= 1, process)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=COMMAND_TIMEOUT_S)
    assert process.returncode == 4, stderr
    assert "run the same command again" in stderr
    assert "Traceback" not in stderr
    summary = json.loads(stdout)
    assert summary["complete"] is False
    assert summary["lines"] == len(answers(simulated_cli.folder))
    assert not jobs_of(simulated_cli)[JobStatus.cancelled]


def test_lines_from_standard_input_that_comes_slowly(simulated_cli: Cli) -> None:
    # Given a first line, and a second one that is written only when the first is answered
    process = subprocess.Popen(
        simulated_cli.command("batch", "run", "-", "-o", "out.jsonl"),
        env=simulated_cli.environment,
        cwd=simulated_cli.folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write('{"id": 1, "problem": "What is 347 + 58?", "policy": {"n": 1, "plan": "off"}}\n')
    process.stdin.flush()
    wait_for(lambda: len(answers(simulated_cli.folder)) == 1, process)
    _stdout, stderr = process.communicate('{"id": 1, "problem": "x"}\nnonsense', timeout=COMMAND_TIMEOUT_S)
    assert process.returncode == 1, stderr
    assert [line["status"] for line in answers(simulated_cli.folder)] == ["succeeded", "invalid", "invalid"]


# --- bad usage ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("missing.jsonl", "-o", "out.jsonl"), "missing.jsonl cannot be read"),
        (("in.jsonl", "-o", "no/such/folder/out.jsonl"), "cannot be written"),
        (("in.jsonl", "-o", "in.jsonl"), "the same file"),
        (("in.jsonl", "-o", "notes.txt"), "--restart"),
        (("in.jsonl", "-o", "out.jsonl", "--backend", "nowhere"), "unknown backend 'nowhere'"),
        (("in.jsonl", "-o", "out.jsonl", "--max-in-flight", "0"), "--max-in-flight"),
    ],
)
def test_bad_usage_is_told_and_exits_with_2(simulated_cli: Cli, arguments: tuple[str, ...], message: str) -> None:
    (simulated_cli.folder / "in.jsonl").write_text(problems(1))
    (simulated_cli.folder / "notes.txt").write_text("mine\n")
    done = simulated_cli.run("batch", "run", *arguments)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert (simulated_cli.folder / "notes.txt").read_text() == "mine\n"


def test_an_empty_input_is_no_error(simulated_cli: Cli) -> None:
    (simulated_cli.folder / "in.jsonl").write_text("\n\n")
    done = simulated_cli.run("batch", "run", "in.jsonl", "-o", "out.jsonl")
    assert done.returncode == 0
    assert "no lines" in done.stderr
    assert answers(simulated_cli.folder) == []


def jobs_of(cli: Cli) -> Counter[JobStatus]:
    database = Database(f"sqlite:///{cli.folder / 'data' / 'k2think.db'}")
    try:
        found = database.read_sync(lambda connection: list_jobs(connection, limit=1_000))
    finally:
        database.close()
    return Counter(job.status for job in found)
