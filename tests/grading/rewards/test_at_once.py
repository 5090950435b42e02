"""Scores from threads, processes and event loops at the same time are those of one after the other."""

import asyncio
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from itertools import cycle, islice

import pytest
from harness.reward_cases import Case, read_cases
from k2think.grading import grading_counts
from k2think.grading.score import score, score_sync, score_task
from k2think.schemas.errors import ConfigurationError, GradingError
from k2think.schemas.scores import Domain, Score, Task

CASES = [c for c in read_cases() if c.value is not None and not c.source.startswith("reasoning_gym:")]
SOME = [
    *CASES[::6],
    Case("math", "math", r"\boxed{2\sqrt{2}}", r"\sqrt{8}", {}, 1.0, "equal", "asks the worker process"),
]


def score_case(case: Case) -> Score:
    return score_sync(case.source, case.text, case.truth, case.meta)


def test_threads_agree_with_one_after_the_other() -> None:
    alone = [score_case(case) for case in SOME]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(score_case, islice(cycle(SOME), 4 * len(SOME))))
    assert together == alone * 4


@pytest.mark.parametrize("way", ["fork", "spawn"])
def test_processes_agree_with_this_one(way: str) -> None:
    """A fork copies this process while its threads for scores and for symbolic mathematics run."""
    few = SOME[-12:]
    alone = [score_case(case) for case in few]
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(way)) as processes:
        assert processes.submit(os.getpid).result() != os.getpid()
        asked = [processes.submit(score_sync, case.source, case.text, case.truth, case.meta) for case in few]
        assert [future.result() for future in asked] == alone
    assert [score_case(case) for case in few] == alone, "the original goes on"


async def test_one_loop_scores_many_at_once() -> None:
    alone = [score_case(case) for case in SOME]  # blocking, while a loop runs in this thread: it has its own
    together = await asyncio.gather(*(score(c.source, c.text, c.truth, c.meta) for c in SOME))
    assert together == alone


def test_each_thread_may_have_a_loop_of_its_own() -> None:
    def with_own_loop(case: Case) -> Score:
        return asyncio.run(score(case.source, case.text, case.truth, case.meta))

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(with_own_loop, SOME)) == [score_case(case) for case in SOME]


async def test_a_judge_that_blocks_inside_a_score_is_told_so() -> None:
    async def blocking(question: str, truth: str, answer: str) -> bool:
        return score_sync("math", answer, truth).correct

    with pytest.raises(GradingError, match="await the asynchronous one"):
        score_sync("stem_web", r"\boxed{citric acid cycle}", "Krebs cycle", judge=blocking)


def test_scores_and_failures_are_counted() -> None:
    before = grading_counts()
    score_sync("math", r"\boxed{5}", "5")
    with pytest.raises(GradingError):
        score_sync("math", r"\boxed{5}", None)
    after = grading_counts()
    assert after["scored"] == before.get("scored", 0) + 1
    assert after["score_error"] == before.get("score_error", 0) + 1


async def test_a_task_hands_its_source_and_question_on() -> None:
    asked: list[tuple[str, str, str]] = []

    async def judge(question: str, truth: str, answer: str) -> bool:
        asked.append((question, truth, answer))
        return True

    free = Task(id="1", domain=Domain.science, source="stem_web", prompt="Which cycle?", truth="Krebs cycle")
    assert (await score_task(free, r"\boxed{citric acid cycle}", judge=judge)).reason == "judged_equal"
    assert asked == [("Which cycle?", "Krebs cycle", "citric acid cycle")]
    grid = Task(id="2", domain=Domain.logic, source="logic__barc", prompt="?", truth="[[1]]")
    assert (await score_task(grid, "<answer>[[1]]</answer>")).correct


@pytest.mark.parametrize("name", ["nonsense", "", "reasoning_gym", "mini:", "Math"])
def test_an_unknown_source_is_the_callers_error_and_names_the_known_ones(name: str) -> None:
    with pytest.raises(ConfigurationError, match="logic__zebra_puzzle"):
        score_sync(name, "5", "5")
