"""`k2think jobs …` and `k2think queues` on what a batch left behind, without a running stack."""

import json
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
from harness.cli import Cli, Solved
from k2think.agents.pipeline import first_step
from k2think.schemas.jobs import SolveRequest
from k2think.schemas.withheld import WITHHELD
from k2think.store.database import Database
from k2think.store.jobs import accept_job
from k2think.store.migrate import upgrade

pytestmark = pytest.mark.timeout(400)  # a guard against hanging, for machines that are busy with other things


def job_of(solved: Solved, line_id: Any) -> str:
    (line,) = [line for line in solved.lines if line.get("id") == line_id and line["job_id"]]
    return line["job_id"]


def waiting_job(cli: Cli, problem: str = "What is 1 + 1?") -> str:
    """Put a job into the database that nobody works on."""
    url = f"sqlite:///{cli.folder / 'data' / 'k2think.db'}"
    upgrade(url)
    database = Database(url)
    request = SolveRequest(problem=problem)
    accepted = database.run_sync(
        lambda connection: accept_job(
            connection, request=request, first=first_step(request), tenant="default", now=time.time()
        )
    )
    database.close()
    return accepted.job_id


def test_the_list_is_newest_first_and_can_be_narrowed(solved: Solved) -> None:
    listed = solved.cli.json("jobs", "list")
    assert [job["job_id"] for job in listed] == sorted((job["job_id"] for job in listed), reverse=True)
    assert len(listed) == 4
    refused = solved.cli.json("jobs", "list", "--status", "refused")
    assert [job["job_id"] for job in refused] == [job_of(solved, "refused")]


def test_the_list_prints_no_control_sequences_and_no_markup(solved: Solved) -> None:
    done = solved.cli.run("jobs", "list")
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    assert "\x07" not in done.stdout
    assert "What is 347 + [bold]58[/bold]?" in done.stdout
    assert "owned" not in done.stdout


def test_show_by_the_beginning_of_an_id(solved: Solved) -> None:
    job_id = job_of(solved, "plain")
    result = solved.cli.json("jobs", "show", job_id[:30])
    assert (result["job_id"], result["status"], result["answer"]) == (job_id, "succeeded", "405")
    shown = solved.cli.run("jobs", "show", job_id.upper())
    assert "405" in shown.stdout
    assert "votes" in shown.stdout


def test_why_tells_of_candidates_and_costs(solved: Solved) -> None:
    done = solved.cli.run("jobs", "why", job_of(solved, "plain"))
    assert done.returncode == 0
    assert "3 wanted" in done.stdout
    assert "gave '405'" in done.stdout
    assert "No judge was asked" in done.stdout
    assert "generator" in done.stdout


def test_the_trace_holds_prompts_texts_and_parameters(solved: Solved) -> None:
    trace = solved.cli.json("jobs", "trace", job_of(solved, "plain"))
    calls = [attempt["call"] for step in trace["steps"] for attempt in step["attempts"] if attempt["call"]]
    assert {step["kind"] for step in trace["steps"]} == {
        "screen_input",
        "make_plan",
        "generate_candidate",
        "screen_output",
    }
    assert all("What is 347 + 58?" in call["prompt"][-1]["content"] for call in calls)
    assert all(call["parameters"]["max_tokens"] for call in calls)
    text = solved.cli.run("jobs", "trace", job_of(solved, "plain")).stdout
    assert "prompt, user:" in text
    assert "<answer>405" in text or "405</answer>" in text
    assert "parameters: " in text
    assert "step_finished" in text


def test_the_trace_of_a_hostile_problem_steers_no_terminal(solved: Solved) -> None:
    done = solved.cli.run("jobs", "trace", job_of(solved, 7))
    assert "\x1b" not in done.stdout
    assert "\x07" not in done.stdout
    assert "[bold]58[/bold]" in done.stdout


def test_what_was_refused_is_withheld_everywhere(solved: Solved) -> None:
    job_id = job_of(solved, "refused")
    for command in (("trace", job_id), ("trace", job_id, "--json"), ("why", job_id), ("list", "--status", "refused")):
        done = solved.cli.run("jobs", *command)
        assert done.returncode == 0
        assert "pipe bomb" not in done.stdout
        assert "refused" in done.stdout
        assert WITHHELD in done.stdout


def test_ids_that_name_no_job_or_several(solved: Solved) -> None:
    common = job_of(solved, "plain")[:8]
    for given, message in (
        (common, "several jobs"),
        ("abc", "too short"),
        ("../../etc", "no job"),
        ("f" * 12, "no job"),
    ):
        done = solved.cli.run("jobs", "show", given)
        assert done.returncode == 2
        assert message in done.stderr


def test_cancelling(cli: Cli) -> None:
    # Given a job that waits, and no stack
    job_id = waiting_job(cli)
    assert cli.json("queues")["queues"]["safety"] == {"ready": 1, "running": 0, "in_redis": None}
    assert "has not ended" in cli.run("jobs", "why", job_id).stdout
    # When it is cancelled twice
    first, second = cli.run("jobs", "cancel", job_id), cli.run("jobs", "cancel", job_id)
    # Then it is cancelled once, and the second time told so
    assert (first.returncode, second.returncode) == (0, 0)
    assert "cancelled" in first.stdout
    assert "had ended already (cancelled)" in second.stdout
    assert cli.json("queues")["queues"]["safety"]["ready"] == 0
    unknown = cli.run("jobs", "cancel", "f" * 36)
    assert unknown.returncode == 2


@pytest.mark.parametrize("command", [("jobs", "show", "f" * 12), ("queues",)])
def test_where_nothing_was_ever_run(cli: Cli, command: tuple[str, ...]) -> None:
    done = cli.run(*command)
    assert done.returncode == 2
    assert "there are no jobs yet" in done.stderr
    assert not (cli.folder / "data").exists()


def test_a_database_of_another_version(cli: Cli) -> None:
    waiting_job(cli)
    place = cli.folder / "data" / "k2think.db"
    with sqlite3.connect(place) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    done = cli.run("jobs", "list")
    assert done.returncode == 2
    assert "newer version" in done.stderr


def test_queues_as_a_table(solved: Solved) -> None:
    done = solved.cli.run("queues")
    assert done.returncode == 0
    assert "generator" in done.stdout
    assert "dead letters: 0" in done.stdout
    assert "alive: nobody" in done.stdout
    assert json.loads(solved.cli.run("queues", "--json").stdout)["redis_reachable"] is False


def test_help_teaches_with_examples(cli: Cli) -> None:
    for command in (("batch", "run"), ("jobs", "trace"), ("doctor",)):
        done = cli.run(*command, "--help")
        assert done.returncode == 0
        assert "k2think " + " ".join(command) in done.stdout


def test_nothing_is_left_in_the_working_folder(solved: Solved) -> None:
    left = {path.name for path in Path(solved.cli.folder).iterdir()}
    assert left == {"in.jsonl", "out.jsonl", "out.jsonl.state", "data"}
