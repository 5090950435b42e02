"""From single calls to a report, and what the memory allows."""

import pytest
from k2think.agents.bench.figures import Run, Sample, level_of, percentile, summed
from k2think.agents.bench.load import Load
from k2think.agents.bench.roofline import Roofline, copy_bandwidth
from k2think.schemas.errors import Overloaded


def run(*tokens: int, wall_s: float, failures: int = 0) -> Run:
    """A round of calls that took half of its time each, a quarter of that to the first token."""
    samples = tuple(Sample(wall_s / 8, wall_s / 2, 10, count) for count in tokens)
    return Run(samples, tuple(Overloaded(f"full, number {n}") for n in range(failures)), wall_s, cpu_s=wall_s / 10)


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([], 0.5, None),
        ([3.0], 0.95, 3.0),
        ([4.0, 1.0, 3.0, 2.0], 0.5, 2.0),
        ([float(n) for n in range(1, 101)], 0.95, 95.0),
        ([float(n) for n in range(1, 11)], 0.95, 10.0),
    ],
)
def test_percentiles_are_values_that_were_measured(values: list[float], share: float, expected: float | None) -> None:
    assert percentile(values, share) == expected


def test_rounds_are_summed_by_time_not_by_their_rates() -> None:
    figures = summed([run(100, 100, wall_s=2.0), run(100, wall_s=8.0)])
    assert figures.tokens_per_s == pytest.approx(30.0)
    assert (figures.calls, figures.failed, figures.tokens, figures.prompt_tokens) == (3, 0, 100.0, 10.0)
    assert figures.first_token_p50_s == 0.25
    assert figures.first_token_p95_s == 1.0
    assert figures.stream_tokens_per_s == pytest.approx(99 / 0.75)
    assert figures.cpu_ms_per_call == pytest.approx(1000 / 3)
    assert figures.draft_acceptance is None


def test_speculation_is_the_mean_of_the_calls_that_tell_it() -> None:
    told = Sample(0.1, 1.0, 10, 20, draft_acceptance=0.5, accepted_length=2.0)
    figures = summed([Run((told, Sample(0.1, 1.0, 10, 20)), (), 1.0, 0.1)])
    assert (figures.draft_acceptance, figures.accepted_length) == (0.5, 2.0)


def test_a_round_in_which_all_failed_has_reasons_and_no_figures() -> None:
    figures = summed([run(wall_s=1.0, failures=5)])
    assert (figures.calls, figures.failed, len(figures.failures)) == (0, 5, 3)
    assert figures.failures[0] == "full, number 0"
    assert figures.tokens_per_s == 0.0
    assert figures.tokens is figures.first_token_p50_s is figures.stream_tokens_per_s is figures.cpu_ms_per_call is None


def test_overhead_is_the_throughput_that_ours_lacks() -> None:
    level = level_of(2, [run(90, wall_s=1.0), run(99, wall_s=1.0)], [run(100, wall_s=1.0)] * 2, limit_tokens_per_s=None)
    assert level.overhead == pytest.approx(0.055)
    assert level.overhead_rounds == pytest.approx((0.1, 0.01))
    alone = level_of(2, [run(90, wall_s=1.0)], None, limit_tokens_per_s=None)
    assert (alone.bare, alone.overhead, alone.overhead_rounds) == (None, None, ())


def test_requests_differ_from_each_other_and_are_the_same_each_time() -> None:
    load = Load(streams=(2,), prompt_tokens=50, output_tokens=7, calls=3, rounds=2)
    first, again, other = load.requests(2, 0), load.requests(2, 0), load.requests(2, 1)
    assert first == again
    texts = [request.messages[0].content for request in (*first, *other)]
    # A prefix that two prompts have in common could be served from a cache: what is common is three words.
    assert len({text[:20] for text in texts}) == len(texts) == 12
    assert all(200 <= len(text) < 210 for text in texts)
    assert {request.max_tokens for request in first} == {7}
    assert len({request.seed for request in first}) == 6
    assert load.calls_in_all == 12


def test_the_limit_is_known_where_both_its_parts_are() -> None:
    assert Roofline(100e9, "as given", 10_000_000_000).tokens_per_s(4) == 40.0
    assert Roofline(None, "", 10).tokens_per_s(4) is None
    assert Roofline(100e9, "as given", None).tokens_per_s(4) is None


def test_copying_has_a_bandwidth() -> None:
    assert 1e8 < copy_bandwidth(2_000_000, threads=1) < 1e13
