"""The dispatcher: what it cannot send does not pile up without end."""

import threading
from typing import Any

import pytest
from harness.logs import captured
from k2think.workers import dispatcher
from k2think.workers.dispatcher import Dispatcher


def test_what_waits_for_a_silent_redis_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "WAITING_MAX", 3)
    lines = captured(monkeypatch, dispatcher)
    asked, answered = threading.Event(), threading.Event()

    def connect(_self: Dispatcher) -> Any:
        asked.set()
        answered.wait(20)
        raise OSError("silent")

    monkeypatch.setattr(Dispatcher, "_connect", connect)
    one = Dispatcher("redis://127.0.0.1:1/0")
    one.notify_job("first")
    assert asked.wait(20)
    for number in range(5):
        one.notify_job(f"job-{number}")
    answered.set()
    assert one.flush(timeout_s=20)
    one.close()
    assert [line["dropped"] for line in lines if line["event"] == "doorbells_dropped"] == [2]
