"""The circuit breaker, by a clock of the test's own."""

import pytest
from k2think.agents.breaker import ADMISSION_S, Breaker, BreakerState
from k2think.agents.pace import SAMPLES_MIN, Pace


class Clock:
    """Seconds that pass only when told."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(failures=3, rest_s=2.0, rest_max_s=6.0, clock=clock)


def fail(breaker: Breaker, times: int = 1) -> list[bool]:
    return [breaker.enter().failed() for _ in range(times)]


def test_it_rests_after_failures_in_a_row_alone(breaker: Breaker) -> None:
    assert fail(breaker, 2) == [False, False]
    assert breaker.enter().succeeded() is False
    assert fail(breaker, 3) == [False, False, True]
    assert (breaker.state, breaker.allows, breaker.rest_s) == (BreakerState.resting, False, 2.0)


def test_what_fails_for_all_calls_makes_it_rest_at_once(breaker: Breaker) -> None:
    assert breaker.enter().failed(at_once=True) is True
    assert breaker.state is BreakerState.resting


def test_one_trial_decides_and_each_failed_one_doubles_the_rest(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    rests: list[float] = []
    for _ in range(4):
        rests.append(breaker.rest_s)
        clock.now += breaker.rest_s
        assert breaker.state is BreakerState.ready
        trial = breaker.enter()
        assert (breaker.state, breaker.allows) == (BreakerState.trying, False)
        assert trial.failed() is True
    assert rests == [2.0, 4.0, 6.0, 6.0]

    clock.now += breaker.rest_s
    assert breaker.enter().succeeded() is True
    assert breaker.state is BreakerState.closed
    fail(breaker, 3)
    assert breaker.rest_s == 2.0, "the next rest begins anew"


def test_a_trial_that_tells_nothing_is_made_again(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 2.0
    breaker.enter().left()
    assert breaker.state is BreakerState.ready


def test_calls_from_before_the_rest_neither_end_nor_prolong_it(breaker: Breaker, clock: Clock) -> None:
    """Given a hundred streams that break at once, then the rest is that of one failure; a late success is old news, too."""
    early = [breaker.enter() for _ in range(100)]
    told = [ticket.failed() for ticket in early[:50]]
    assert told.count(True) == 1
    assert breaker.rest_s == 2.0
    assert early[50].succeeded() is False
    assert breaker.state is BreakerState.resting
    clock.now += 2.0
    breaker.enter()
    early[51].left()
    assert breaker.state is BreakerState.trying


def test_after_a_rest_work_is_let_in_piece_by_piece_until_a_trial_succeeds(breaker: Breaker, clock: Clock) -> None:
    assert [breaker.admits() for _ in range(3)] == [True, True, True]
    fail(breaker, 3)
    assert not breaker.admits()
    clock.now += 2.0
    assert [breaker.admits() for _ in range(3)] == [True, False, False]
    clock.now += ADMISSION_S
    assert [breaker.admits() for _ in range(3)] == [True, False, False], "the first one was never heard of again"
    trial = breaker.enter()
    clock.now += ADMISSION_S
    assert not breaker.admits(), "a trial is under way"
    trial.succeeded()
    assert [breaker.admits() for _ in range(3)] == [True, True, True]


def test_the_pace_tells_nothing_of_few_calls_and_then_the_time_of_95_in_100() -> None:
    pace = Pace(hedge_share_max=0.1)
    for number in range(SAMPLES_MIN - 1):
        pace.saw(number / 100)
    assert pace.late_s is None
    pace = Pace(hedge_share_max=0.1)
    for number in range(100):
        pace.saw((number * 37 % 100) / 100)
    assert pace.late_s == 0.94


def test_hedges_are_a_share_of_the_calls() -> None:
    pace = Pace(hedge_share_max=0.1)
    taken = 0
    for _ in range(1000):
        pace.begin()
        taken += pace.take_hedge()
    assert 99 <= taken <= 101
