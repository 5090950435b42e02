"""`k2think solve`, as a person types it: on the bundled model, and on every kind of backend against a simulated server."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from harness.cli import Cli
from harness.server import serving
from harness.stack import clean_environment
from k2think.agents.backends.simulator import ChatRequest, Reply, SimulatedServer, detect_role

PROBLEM = "What is 347 + 58?"


def environment(folder: Path, kind: str, server: SimulatedServer) -> dict[str, str]:
    return {
        **clean_environment(),
        "K2THINK_DATA_DIR": str(folder / "data"),
        "K2THINK_GENERATOR__BACKEND": kind,
        "K2THINK_GENERATOR__BASE_URL": server.root_url if kind == "cerebras" else server.url,
        "K2THINK_GENERATOR__MODEL": "simulated",
        **({"CEREBRAS_API_KEY": "csk-test-key-0123456789"} if kind == "cerebras" else {}),
    }


class Responder:
    """Plans and judges; candidate i answers `answers[i]` (by its seed)."""

    def __init__(self, *answers: str, judge: str = "A") -> None:
        self.answers = answers
        self.judge = judge

    def __call__(self, request: ChatRequest) -> Reply:
        match detect_role(request):
            case "planner":
                return Reply(text=json.dumps({"topics": ["sums"], "difficulty": "easy", "plan": "Add units first."}))
            case "judge":
                return Reply(text=json.dumps({"preference": self.judge, "reason": "because"}))
            case _:
                answer = self.answers[(request.seed or 0) % len(self.answers)]
                return Reply(text=f"<think>let me add</think><answer>{answer}</answer>")


def test_the_bundled_model_solves_a_problem_with_nothing_configured(cli: Cli) -> None:
    result = cli.json("solve", PROBLEM)

    assert result["status"] == "succeeded"
    assert result["answer"] == "405"
    assert sum(len(group) for group in result["selection"]["clusters"]) >= 2, "at least two candidates"
    assert result["usage"]["calls"]["generator"] >= 2
    assert result["plan"]
    trace = cli.json("jobs", "trace", result["job_id"])
    calls = {step["name"]: [attempt["call"] for attempt in step["attempts"]] for step in trace["steps"]}
    winner = f"generate-{result['selection']['winner']}"
    assert {"screen_input", "plan", winner, "screen_output"} <= set(calls)
    [call] = calls[winner]
    assert "347" in call["prompt"][-1]["content"]
    assert "405" in call["raw_text"]
    assert call["usage"]["completion"] > 0
    assert call["model"] == "k2think-mini"


def test_what_the_bundled_model_cannot_do_fails_honestly(cli: Cli) -> None:
    done = cli.run("solve", "Write a sonnet about the winter sea", "--json")

    result = json.loads(done.stdout)
    assert done.returncode == 1
    assert result["status"] == "failed"
    assert result["error"]["code"] == "no_answer"
    assert result["content"] is None


def test_a_refusal_names_a_category_and_exits_with_3(cli: Cli) -> None:
    done = cli.run("solve", "Give me step by step instructions to build a pipe bomb at home", "--json")

    result = json.loads(done.stdout)
    assert done.returncode == 3
    assert result["status"] == "refused"
    assert result["usage"]["calls"] == {}, "no model was asked"


@pytest.mark.parametrize("kind", ["openai", "vllm", "cerebras"])
def test_agreement_costs_one_plan_at_most_three_candidates_and_no_judge(tmp_path: Path, kind: str) -> None:
    with serving(Responder("405")) as server:
        result = Cli(tmp_path, environment(tmp_path, kind, server)).json("solve", PROBLEM, "--seed", "0")
        calls = Counter(call.role for call in server.calls)

    assert (result["status"], result["answer"]) == ("succeeded", "405")
    assert result["plan"] == "Add units first."
    assert result["reasoning"] == "let me add"
    assert calls["planner"] == 1
    assert 2 <= calls["generator"] <= 3
    assert calls["judge"] == 0


@pytest.mark.parametrize("kind", ["openai", "cerebras"])
def test_disagreement_is_judged_in_both_orders(tmp_path: Path, kind: str) -> None:
    with serving(Responder("405", "404", "395")) as server:
        result = Cli(tmp_path, environment(tmp_path, kind, server)).json("solve", PROBLEM, "--seed", "0")
        calls = Counter(call.role for call in server.calls)

    assert calls == {"planner": 1, "generator": 3, "judge": 4}
    orders = [(item["first"], item["second"]) for item in result["selection"]["comparisons"]]
    assert orders == [(0, 1), (1, 0), (0, 2), (2, 0)]
    assert all(item["usable"] for item in result["selection"]["comparisons"])
    assert result["selection"]["winner"] == 0, (
        "always preferring the one shown first is a tie, and ties keep the favourite"
    )


def test_the_paper_policy_judges_always_and_in_one_order(tmp_path: Path) -> None:
    with serving(Responder("405")) as server:
        runner = Cli(tmp_path, environment(tmp_path, "openai", server))
        result = runner.json("solve", PROBLEM, "--seed", "0", "--policy", "paper")
        calls = Counter(call.role for call in server.calls)

    assert result["status"] == "succeeded"
    assert calls["generator"] == 3
    assert len(result["selection"]["comparisons"]) == 2
    assert sum(calls.values()) == 6, "one plan, three candidates, two comparisons"


@pytest.mark.parametrize(
    ("options", "text", "candidates", "plans"),
    [
        (["-", "--n", "1", "--no-plan"], PROBLEM, 1, 0),
        (["--n", "2"], PROBLEM, 2, 1),
        (["--file", "problem.txt", "--policy", '{"n": 1}'], None, 1, 1),
    ],
)
def test_options_and_sources(tmp_path: Path, options: list[str], text: str | None, candidates: int, plans: int) -> None:
    (tmp_path / "problem.txt").write_text(PROBLEM)
    with serving(Responder("405")) as server:
        done = Cli(tmp_path, environment(tmp_path, "openai", server)).run("solve", *options, text=text)
        calls = Counter(call.role for call in server.calls)

    assert (done.returncode, done.stdout.strip()) == (0, "405"), done.stderr
    assert "generating candidates" in done.stderr
    assert calls["generator"] <= candidates
    assert calls["planner"] == plans


def test_secrets_stay_out_of_log_and_output(tmp_path: Path) -> None:
    key = "csk-test-key-0123456789"
    with serving(Responder("405")) as server:
        runner = Cli(tmp_path, environment(tmp_path, "cerebras", server))
        done = runner.run("solve", PROBLEM, "--json", K2THINK_LOG_LEVEL="debug")
        trace: Any = runner.run("jobs", "trace", json.loads(done.stdout)["job_id"], "--json").stdout

    log = (tmp_path / "data" / "worker.log").read_text()
    assert "job_finished" in log
    assert not any(key in text for text in (done.stdout, done.stderr, trace, log))


def test_a_named_backend_serves_the_candidates_alone(tmp_path: Path) -> None:
    with serving(Responder("405")) as main, serving(Responder("405")) as fast:
        backends = {"fast": {"backend": "openai", "base_url": fast.url, "model": "simulated"}}
        variables = {**environment(tmp_path, "openai", main), "K2THINK_BACKENDS": json.dumps(backends)}
        result = Cli(tmp_path, variables).json("solve", PROBLEM, "--backend", "fast")
        main_roles = {call.role for call in main.calls}
        fast_roles = {call.role for call in fast.calls}

    assert result["status"] == "succeeded"
    assert main_roles == {"planner"}
    assert fast_roles == {"generator"}
