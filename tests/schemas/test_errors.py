"""The error tree: as drawn, each class with a name of its own on the wire; and `explain`, which keeps secrets."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from k2think.schemas import errors
from k2think.schemas.chat import ChatBody
from k2think.schemas.errors import BackendError, K2ThinkError, LimitReached, QueueFull, RateLimited, explain
from k2think.schemas.jobs import SolveRequest
from k2think.schemas.messages import Envelope
from k2think.schemas.policy import Policy
from pydantic import BaseModel, ValidationError

DRAWING = errors.__doc__ or ""
SECRET = "swordfish-4711"


def tree(top: type[K2ThinkError]) -> Iterator[type[K2ThinkError]]:
    yield top
    for child in top.__subclasses__():
        yield from tree(child)


# Test modules and doors may derive errors of their own.
CLASSES = [cls for cls in tree(K2ThinkError) if cls.__module__ == errors.__name__]


def drawn() -> tuple[dict[str, str], dict[str, bool]]:
    """Read the drawing: each class's parent, and whether it is retryable where the drawing says."""
    parents: dict[str, str] = {}
    retryable: dict[str, bool] = {}
    above: list[tuple[int, str]] = [(0, "K2ThinkError")]
    for line in DRAWING.splitlines():
        found = re.match(r"^([│├└─ ]+)(\w+)(:?)(.*)$", line)
        if not found:
            continue
        depth, word, colon, rest = len(found[1]), found[2], found[3], found[4]
        while above[-1][0] >= depth:
            above.pop()
        names = [name.strip() for name in rest.split(",")] if colon else [word]
        for name in names:
            parents[name] = above[-1][1]
            if colon:
                retryable[name] = {"retryable": True, "final": False}[word]
        if not colon:
            above.append((depth, word))
    return parents, retryable


def test_the_drawing_is_the_tree() -> None:
    parents, _ = drawn()
    assert parents == {cls.__name__: cls.__bases__[0].__name__ for cls in CLASSES if cls is not K2ThinkError}
    assert len(parents) >= 20


def test_the_drawing_says_which_backend_errors_may_be_tried_again() -> None:
    _, retryable = drawn()
    subclasses = [cls for cls in tree(BackendError) if cls is not BackendError and cls in CLASSES]
    assert retryable == {cls.__name__: cls.retryable for cls in subclasses}
    assert set(retryable.values()) == {True, False}
    assert BackendError.retryable is False


def test_every_class_has_a_code_of_its_own() -> None:
    assert not [cls.__name__ for cls in CLASSES if "code" not in vars(cls)]
    codes = Counter(cls.code for cls in CLASSES)
    assert not [code for code, uses in codes.items() if uses > 1]
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", code) for code in codes)


def test_the_whole_tree_is_in_one_file() -> None:
    names = "|".join(cls.__name__ for cls in CLASSES)
    derived = re.compile(rf"^ *class \w+\((?:.*[\s,.])?(?:{names})\b", re.MULTILINE)
    root = Path(errors.__file__).parents[1]
    folders = ("agents", "cli", "client", "grading", "schemas", "store", "training", "workers")
    files = [file for folder in folders for file in (root / folder).rglob("*.py")]
    with_errors = [file for file in files if derived.search(file.read_text(encoding="utf-8"))]
    assert [file.relative_to(root).as_posix() for file in with_errors] == ["schemas/errors.py"]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_an_error_says_its_message_and_carries_its_data(cls: type[K2ThinkError]) -> None:
    if issubclass(cls, BackendError):
        error = cls("it broke", status=503, retry_after_s=1.5)
        assert (error.status, error.retry_after_s) == (503, 1.5)
        bare = cls("it broke")
        assert (bare.status, bare.retry_after_s) == (None, None)
    else:
        timed = cls in (QueueFull, LimitReached)
        error = cls("it broke", retry_after_s=2.0) if timed else cls("it broke")  # type: ignore[call-arg]
    assert str(error) == "it broke"
    assert cls.__doc__


def test_data_is_given_by_name_only() -> None:
    with pytest.raises(TypeError):
        RateLimited("it broke", 429)  # type: ignore[misc]


# ---- explain


def explained(model: type[BaseModel], value: object) -> str:
    with pytest.raises(ValidationError) as caught:
        model.model_validate(value)
    # The error's own text is what a traceback in a log shows.
    assert SECRET not in str(caught.value)
    return explain(caught.value)


def test_explain_does_not_call_a_list_too_short_whose_items_are_wrong() -> None:
    turns = [{"role": "robot", "content": "Hello"}]
    text = explained(ChatBody, {"model": "k2think", "messages": turns})

    assert text.startswith("messages.0.role: Input should be")
    assert ";" not in text


@pytest.mark.parametrize(
    ("model", "value"),
    [
        (SolveRequest, SECRET),
        (SolveRequest, {"problem": [SECRET]}),
        (SolveRequest, {"problem": SECRET, "messages": [{"role": "user", "content": SECRET}]}),
        (SolveRequest, {"problem": SECRET * 100_000}),
        (SolveRequest, {"messages": [{"role": SECRET, "content": SECRET}]}),
        (SolveRequest, {"messages": [{"role": "assistant", "content": SECRET}]}),
        (SolveRequest, {"messages": [{"role": "user", "content": {"text": SECRET}}]}),
        (SolveRequest, {"problem": "1+1", "metadata": {"note": SECRET * 100}}),
        (SolveRequest, {"problem": "1+1", "metadata": {"note": [SECRET]}}),
        (SolveRequest, {"problem": "1+1", "idempotency_key": SECRET * 100}),
        (SolveRequest, {"problem": "1+1", "surprise": SECRET}),
        (SolveRequest, {"problem": "1+1", "checks": {"answer_form": SECRET}}),
        (SolveRequest, {"problem": "1+1", "checks": {"unit_tests": [{"code": SECRET, "expected_stdout": SECRET}]}}),
        (SolveRequest, {"problem": "1+1", "policy": {"backend": SECRET + " !"}}),
        (Policy, {"sampling": {"stop": [[SECRET]]}}),
        (Policy, {"templates": f"../{SECRET}"}),
        (Envelope, {"body": {"kind": "screen_input", "messages": [{"role": SECRET, "content": SECRET}]}}),
    ],
)
def test_explain_never_repeats_what_was_sent(model: type[BaseModel], value: object) -> None:
    text = explained(model, value)
    assert text
    assert SECRET not in text
    assert "\n" not in text


def test_explain_names_the_place() -> None:
    text = explained(SolveRequest, {"problem": "1+1", "policy": {"n": 0, "sampling": {"top_p": 2}}, "surprise": 1})
    assert re.search(r"policy\.n: .*greater than or equal to 1", text)
    assert re.search(r"policy\.sampling\.top_p: .*less than or equal to 1", text)
    assert re.search(r"surprise: Extra inputs", text)
    assert text.count("; ") == 2


def test_explain_stays_short_whatever_comes() -> None:
    text = explained(SolveRequest, {"x" * 100_000 + str(number): 1 for number in range(50)})
    assert len(text) < 2_000
    assert len(explained(Policy, {"preset": "x" * 100_000})) < 200
    assert len(explained(Policy, {"priority": "x" * 100_000})) < 200
    assert len(explained(Envelope, {"body": {"kind": "x" * 100_000}})) < 1_000
