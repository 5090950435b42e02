"""UUIDv7: form, order, uniqueness."""

from __future__ import annotations

import time
import uuid

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from k2think.schemas.ids import first_id, uuid7

NOW_S = 1_760_000_000.0


def milliseconds(text: str) -> int:
    return uuid.UUID(text).int >> 80


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.floats(0, 2.0**48 / 1000 - 1))
def test_version_and_variant_are_those_of_rfc_9562(now_s: float) -> None:
    text = uuid7(now_s=now_s)
    parsed = uuid.UUID(text)
    assert str(parsed) == text
    assert parsed.version == 7
    assert parsed.variant == uuid.RFC_4122
    assert milliseconds(text) == int(now_s * 1000)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**47), st.integers(1, 10**9))
def test_a_later_millisecond_sorts_later(first_ms: int, later_ms: int) -> None:
    # Halves of a millisecond, so that the division's rounding cannot change the millisecond.
    assert uuid7(now_s=(first_ms + 0.5) / 1000) < uuid7(now_s=(first_ms + later_ms + 0.5) / 1000)


def test_the_system_clock_is_the_default() -> None:
    before = int(time.time() * 1000)
    made = milliseconds(uuid7())
    assert before <= made <= int(time.time() * 1000)


def test_ten_thousand_of_one_millisecond_differ() -> None:
    assert len({uuid7(now_s=NOW_S) for _ in range(10_000)}) == 10_000


@pytest.mark.parametrize("bit", [*range(62), *range(64, 76)])
def test_every_random_bit_takes_both_values(bit: int) -> None:
    # 64 draws: a fair bit stays the same with probability 2**-63.
    assert {uuid.UUID(uuid7(now_s=NOW_S)).int >> bit & 1 for _ in range(64)} == {0, 1}


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**47))
def test_the_first_id_of_a_moment_lies_between_those_before_and_after(moment_ms: int) -> None:
    first = first_id((moment_ms + 1.5) / 1000)
    assert uuid7(now_s=(moment_ms + 0.5) / 1000) < first <= uuid7(now_s=(moment_ms + 1.5) / 1000)


@pytest.mark.parametrize("at", [-1.0, 1e300])
def test_moments_outside_of_all_ids_are_before_and_after_them(at: float) -> None:
    assert (first_id(at) < uuid7()) is (at < 0)
