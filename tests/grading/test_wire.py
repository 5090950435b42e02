"""Values between interpreters: what goes in comes out, and what nobody sent is refused."""

import contextlib
import json
import struct
from datetime import date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from k2think.grading import seccomp
from k2think.grading.inside.wire import Unreadable, Wire, restore
from k2think.grading.rewards.code import program_in, same_output
from k2think.grading.rewards.code_tests import read_tests
from k2think.grading.rewards.private_tests import unpack_tests
from k2think.grading.trials import same_value
from k2think.schemas.errors import GradingError


class Node:
    """Stands for a class that both sides know."""

    def __init__(self, value: Any = None, following: "Node | None" = None) -> None:
        self.value = value
        self.following = following


def plain_wire(**classes: type) -> Wire:
    def nothing_else(value: object) -> Any:
        raise Unreadable(repr(value))

    return Wire(
        classes=classes.get, known=lambda kind: kind in classes.values(), other=nothing_else, fetch=nothing_else
    )


def there(value: Any, wire: Wire) -> Any:
    return wire.decode(json.loads(json.dumps(wire.encode(value))))


hashable = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(), st.binary(), st.dates(),
    st.datetimes(), st.timedeltas(), st.fractions(), st.decimals(allow_nan=False, places=3),
    st.complex_numbers(allow_nan=False), st.frozensets(st.integers()), st.tuples(st.integers(), st.text()),
)  # fmt: skip
values = st.recursive(
    hashable,
    lambda inner: st.one_of(
        st.lists(inner), st.tuples(inner, inner), st.dictionaries(hashable, inner), st.sets(hashable)
    ),
    max_leaves=8,
)


@settings(max_examples=50, deadline=None)
@given(values)
def test_what_goes_in_comes_out(value: Any) -> None:
    back = there(value, plain_wire())
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize(
    "value",
    [10**20_000, -(2**70), date(2025, 1, 2), datetime(2025, 1, 2, 3, 4), timedelta(1, 2, 3), Decimal("1E+5"), Fraction(1, 3), range(3), int, len, bytearray(b"x")],
    ids=range(11),
)  # fmt: skip
def test_rarer_kinds_come_out_as_well(value: Any) -> None:
    assert there(value, plain_wire()) == value


def test_a_subclass_arrives_as_what_it_is_made_of() -> None:
    class Yes(int):
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = int.__hash__

    back = there([Yes(3)], plain_wire())
    assert type(back[0]) is int
    assert back != [4]


def test_long_chains_and_rings_of_objects_arrive() -> None:
    chain = None
    for number in range(20_000):
        chain = Node(number, chain)
    back = there(chain, plain_wire(Node=Node))
    for number in reversed(range(20_000)):
        assert back.value == number
        back = back.following
    assert back is None
    ring = Node(1)
    ring.following = ring
    back = there(ring, plain_wire(Node=Node))
    assert back.following is back
    with contextlib.suppress(AttributeError):
        ring.following = None


def test_a_class_that_is_not_known_is_not_made() -> None:
    message = plain_wire(Node=Node).encode(Node(1))
    with pytest.raises(Unreadable, match="no class 'Node'"):
        plain_wire().decode(message)


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.sampled_from(["value", "objects", "ok", "x"]), inner, max_size=3),
        st.tuples(st.sampled_from(["list", "dict", "int", "set", "array", "builtin", "object", "complex", "handle"]), inner).map(list),
    ),
    max_leaves=6,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(json_values)
def test_what_nobody_sent_is_refused_and_breaks_nothing(message: Any) -> None:
    for sent in (message, {"value": message}, {"value": None, "objects": message}):
        with contextlib.suppress(Unreadable):
            plain_wire(Node=Node).decode(sent)


changeable = st.recursive(
    st.integers(), lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.integers(), inner)), max_leaves=8
)


@settings(max_examples=50, deadline=None)
@given(st.lists(changeable), st.lists(changeable))
def test_a_list_that_was_changed_elsewhere_is_changed_in_place(before: list[Any], after: list[Any]) -> None:
    same_list = before
    inner = [item for item in before if isinstance(item, list)]
    assert restore(before, after) is same_list
    assert same_list == after
    kept = [item for item, old in zip(same_list, inner, strict=False) if item is old]
    assert len(kept) <= len(inner)


# ---- What is made up


@settings(max_examples=60, deadline=None)
@given(st.text(), st.text())
def test_any_output_equals_itself_and_is_compared_without_a_fault(one: str, other: str) -> None:
    assert same_output(one, one)
    assert isinstance(same_output(one, other), bool)
    assert same_output(f"{one}\n", one)


@settings(max_examples=60, deadline=None)
@given(values, values)
def test_any_values_are_compared_without_a_fault(one: Any, other: Any) -> None:
    assert same_value(one, one)
    assert same_value(one, other) == same_value(other, one)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            ["```", "```python\n", "\n```\n", "<think>", "</think>", "<answer>", "</answer>", "x = 1\n", "~~~", " "]
        ),
        max_size=12,
    )
)
def test_any_text_has_a_program_or_none(parts: list[str]) -> None:  # fmt: skip
    found = program_in("".join(parts))
    assert found is None or found.strip()


@settings(max_examples=60, deadline=None)
@given(
    json_values
    | st.text()
    | st.dictionaries(
        st.sampled_from(
            [
                "functional",
                "inputs",
                "outputs",
                "fn_name",
                "test_list",
                "test_cases",
                "steps",
                "private_test_cases",
                "unit_tests",
                "targets",
                "input_output",
            ]
        ),
        json_values,
    )
)
def test_any_truth_is_read_or_refused(truth: Any) -> None:  # fmt: skip
    with contextlib.suppress(GradingError):
        assert read_tests(truth, {}).trials


@settings(max_examples=60, deadline=None)
@given(st.binary() | st.text())
def test_any_packed_tests_are_read_or_refused(packed: bytes | str) -> None:
    import base64
    import zlib

    forms = (
        [packed]
        if isinstance(packed, str)
        else [base64.b64encode(part).decode() for part in (packed, zlib.compress(packed))]
    )
    for form in forms:
        with contextlib.suppress(GradingError):
            unpack_tests(form)


# ---- The filter of system calls


def verdict(program: bytes, number: int, argument: int = 0, architecture: int = 0xC000003E) -> int:
    """Run the filter as the kernel would."""
    lines = [struct.unpack_from("=HBBI", program, place) for place in range(0, len(program), 8)]
    data = {0: number, 4: architecture, 16: argument}
    place = held = 0
    while True:
        operation, true, false, value = lines[place]
        place += 1
        if operation == 0x06:
            return value
        if operation == 0x20:
            held = data[value]
            continue
        holds = {0x15: held == value, 0x35: held >= value, 0x45: bool(held & value)}[operation]
        place += true if holds else false


def test_the_filter_refuses_what_it_names_and_nothing_that_python_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seccomp.platform, "machine", lambda: "x86_64")
    program = seccomp.filter_program()
    assert program is not None
    allow, refuse, absent, kill = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000
    for number in (57, 58, 101, 165, 272, 308, 310, 321, 425, 0x40000000 + 1):
        assert verdict(program, number) == refuse, number
    for number in (0, 1, 2, 9, 12, 59, 202, 231, 257):
        assert verdict(program, number) == allow, number
    assert verdict(program, 435) == absent
    assert verdict(program, 56, 17) == refuse, "clone of a process"
    assert verdict(program, 56, seccomp.CLONE_THREAD | 0x100) == allow, "clone of a thread"
    assert [verdict(program, 41, family) for family in (1, 2, 10, 16, 17, 38, 40)] == [allow] * 3 + [refuse] * 4
    assert verdict(program, 0, architecture=0x40000003) == kill, "calls of 32 bits have other numbers"
    monkeypatch.setattr(seccomp.platform, "machine", lambda: "aarch64")
    other = seccomp.filter_program()
    assert other is not None
    assert verdict(other, 97, architecture=0xC00000B7) == refuse
    assert verdict(other, 220, 17, architecture=0xC00000B7) == refuse
    monkeypatch.setattr(seccomp.platform, "machine", lambda: "riscv64")
    assert seccomp.filter_program() is None
