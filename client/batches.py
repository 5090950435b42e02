"""Batches: many problems at once (/v1/batches)."""

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import IO

from ..schemas.batches import ENDPOINTS, BatchList, BatchObject, BatchStatus
from ..schemas.errors import GatewayError, InvalidRequest, WaitTimedOut
from .batch_lines import BatchItem, LineResult, SolvedBatch, input_line, output_line
from .exchange import MAY_PASS, Exchange, creating, given, segment
from .files import PAGE, Files, copy_content
from .flow import Call, Do, Emit, Flow, Items, Pause, iteration, operation
from .problems import PolicyLike, Problem

WINDOW = "24h"
MODEL = "k2think"
POLL_FIRST_S = 0.2
POLL_MAX_S = 5.0
FAULTS_TOLD_MAX = 5
INPUT_NAME = "problems.jsonl"
IN_MEMORY_BYTES = 8_000_000
"""Of a batch's files; what is larger lies in a temporary file meanwhile."""


class Batches(Files):
    """The methods of both clients that are about batches. They raise what those about jobs do."""

    @operation
    def create_batch(
        self,
        input_file_id: str,
        *,
        completion_window: str = WINDOW,
        metadata: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> Flow[BatchObject]:
        """Have an uploaded file worked on: one line of JSON per request, each with a custom_id of its own.

        `completion_window`: 24h, or any whole number with s, m, h or d, 7d at most; what has no answer by then never
        gets one. `metadata`: at most 16 keys of 64 characters, values of 512. `idempotency_key`: as for `submit`.
        """
        body = {
            "input_file_id": input_file_id,
            "endpoint": ENDPOINTS[0],
            "completion_window": completion_window,
            **({} if metadata is None else {"metadata": dict(metadata)}),
        }
        return (yield from self.ask_for(BatchObject, creating("/v1/batches", body=body, key=idempotency_key)))

    @operation
    def get_batch(self, batch_id: str) -> Flow[BatchObject]:
        """Return a batch as it stands."""
        return (yield from self.ask_for(BatchObject, Call("GET", f"/v1/batches/{segment(batch_id)}")))

    @iteration
    def list_batches(self, *, after: str | None = None) -> Items[BatchObject]:
        """Iterate over the batches, newest first, page by page; `after`: a batch id, only older ones."""
        while True:
            query = given(after=after, limit=PAGE)
            page = yield from self.ask_for(BatchList, Call("GET", "/v1/batches", params=query))
            for batch in page.data:
                yield Emit(batch)
            if not page.has_more or page.last_id is None:
                return
            after = page.last_id

    @operation
    def cancel_batch(self, batch_id: str) -> Flow[BatchObject]:
        """Stop a batch; `wait_batch` returns once that is done. What has an answer by then keeps it."""
        return (yield from self.ask_for(BatchObject, Call("POST", f"/v1/batches/{segment(batch_id)}/cancel")))

    @iteration
    def watch_batch(self, batch_id: str, *, timeout_s: float | None = None) -> Items[BatchObject]:
        """Iterate over the states of a batch, from the present one to its end: each time that one is seen to differ.

        Raises WaitTimedOut after `timeout_s` seconds (None = never); the batch goes on then.
        """
        watching = _Watching(self, batch_id, timeout_s)
        while not watching.ended:
            yield Emit((yield from watching.next_state()))

    @operation
    def wait_batch(
        self,
        batch_id: str,
        *,
        on_progress: Callable[[BatchObject], object] | None = None,
        timeout_s: float | None = None,
    ) -> Flow[BatchObject]:
        """Return a batch once it has ended: completed, failed (its input is not well-formed), expired or cancelled.

        `on_progress` is called with every state that `watch_batch` would yield; its `request_counts` say how far it is.
        Raises WaitTimedOut.
        """
        watching = _Watching(self, batch_id, timeout_s)
        while True:
            batch = yield from watching.next_state()
            if on_progress is not None:
                on_progress(batch)
            if watching.ended:
                return batch

    @operation
    def submit_batch(
        self,
        problems: Iterable[Problem | BatchItem],
        *,
        policy: PolicyLike | None = None,
        model: str = MODEL,
        completion_window: str = WINDOW,
        metadata: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> Flow[BatchObject]:
        """Submit many problems at once, as conversations at the lowest priority; they go on by themselves.

        `policy` holds for those without one of their own. `model`: as for chat completions. The same `idempotency_key`
        with the same problems brings back the same batch: a script that was cut off can be run again. Raises
        InvalidRequest that names the problem, also for two of the same custom_id.
        """
        batch, _names = yield from _submitted(
            self,
            problems,
            policy=policy,
            model=model,
            completion_window=completion_window,
            metadata=metadata,
            idempotency_key=idempotency_key,
        )
        return batch

    @iteration
    def batch_results(self, batch_id: str) -> Items[LineResult]:
        """Iterate over the results of a batch that has ended: first those with an answer, then those without.

        Each is in the order of the input. Raises InvalidRequest when it has not ended, or its input was not well-formed.
        """
        batch = yield from Batches.get_batch(self, batch_id)
        with tempfile.SpooledTemporaryFile(max_size=IN_MEMORY_BYTES) as content:
            yield from _copy_results(self, batch, content)
            for result in _results(content):
                yield Emit(result)

    @operation
    def solve_batch(
        self,
        problems: Iterable[Problem | BatchItem],
        *,
        policy: PolicyLike | None = None,
        model: str = MODEL,
        completion_window: str = WINDOW,
        metadata: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        on_progress: Callable[[BatchObject], object] | None = None,
        timeout_s: float | None = None,
    ) -> Flow[SolvedBatch]:
        """Solve many problems: `submit_batch`, `wait_batch` and `batch_results` in one.

        Problems without an answer are among the results, with their error. Raises WaitTimedOut; leaving early does not
        cancel the batch: run it again with the same `idempotency_key`, or keep the id that `on_progress` is told.
        """
        batch, names = yield from _submitted(
            self,
            problems,
            policy=policy,
            model=model,
            completion_window=completion_window,
            metadata=metadata,
            idempotency_key=idempotency_key,
        )
        batch = yield from Batches.wait_batch(self, batch.id, on_progress=on_progress, timeout_s=timeout_s)
        with tempfile.SpooledTemporaryFile(max_size=IN_MEMORY_BYTES) as content:
            yield from _copy_results(self, batch, content)
            results: dict[str, LineResult] = yield Do(lambda: {line.custom_id: line for line in _results(content)})
        missing = [name for name in names if name not in results]
        if missing:
            raise GatewayError(f"batch {batch.id} has no line for {len(missing)} problems, the first is {missing[0]!r}")
        return SolvedBatch(batch, {name: results[name] for name in names})


def _submitted(
    exchange: Exchange,
    problems: Iterable[Problem | BatchItem],
    *,
    policy: PolicyLike | None,
    model: str,
    completion_window: str,
    metadata: Mapping[str, str] | None,
    idempotency_key: str | None,
) -> Flow[tuple[BatchObject, list[str]]]:
    """End with the batch, and the custom_ids in order."""
    upload_key = None if idempotency_key is None else f"{idempotency_key}/file"
    with tempfile.NamedTemporaryFile(prefix="k2think-batch-", suffix=".jsonl") as input_file:
        names: list[str] = yield Do(lambda: _write(input_file, problems, policy=policy, model=model))
        file = yield from Files.upload_file(exchange, input_file.name, filename=INPUT_NAME, idempotency_key=upload_key)
    batch = yield from Batches.create_batch(
        exchange, file.id, completion_window=completion_window, metadata=metadata, idempotency_key=idempotency_key
    )
    return batch, names


def _copy_results(exchange: Exchange, batch: BatchObject, target: IO[bytes]) -> Flow[None]:
    """Copy the lines of both files. Raises InvalidRequest when there can be none."""
    if not batch.status.final:
        raise InvalidRequest(f"batch {batch.id} is {batch.status.value}: `wait_batch` returns once it has ended")
    if batch.status is BatchStatus.failed:
        faults = batch.errors.data if batch.errors is not None else []
        told = "; ".join(f"line {fault.line}: {fault.message}" for fault in faults[:FAULTS_TOLD_MAX])
        raise InvalidRequest(f"batch {batch.id} was not run, its input is not well-formed: {told}")
    for file_id in (batch.output_file_id, batch.error_file_id):
        if file_id is not None:
            yield from copy_content(exchange, file_id, target)
    target.seek(0)


def _results(content: IO[bytes]) -> Iterator[LineResult]:
    return (output_line(line) for line in content)


class _Watching:
    """One who looks at a batch again and again."""

    def __init__(self, exchange: Exchange, batch_id: str, timeout_s: float | None) -> None:
        self._exchange = exchange
        self._batch_id = batch_id
        self._timeout_s = timeout_s
        self._deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self._seen: BatchObject | None = None
        self._poll_s = POLL_FIRST_S

    @property
    def ended(self) -> bool:
        """Whether no other state can follow."""
        return self._seen is not None and self._seen.status.final

    def next_state(self) -> Flow[BatchObject]:
        """Return the next state that differs from the one before. Raises WaitTimedOut."""
        look = Call("GET", f"/v1/batches/{segment(self._batch_id)}")
        while True:
            try:
                batch = yield from self._exchange.ask_for(BatchObject, look, deadline=self._deadline)
            except MAY_PASS as exc:
                if self._left_s() > 0:
                    raise
                raise self._timed_out() from exc
            if batch != self._seen:
                self._seen = batch
                return batch
            if self._left_s() <= 0:
                raise self._timed_out()
            yield Pause(min(self._poll_s, self._left_s()))
            self._poll_s = min(1.2 * self._poll_s, POLL_MAX_S)

    def _left_s(self) -> float:
        return float("inf") if self._deadline is None else self._deadline - time.monotonic()

    def _timed_out(self) -> WaitTimedOut:
        return WaitTimedOut(
            f"batch {self._batch_id} did not end within {self._timeout_s:g} s; it goes on: wait again, or cancel it"
        )


def _write(
    file: IO[bytes], problems: Iterable[Problem | BatchItem], *, policy: PolicyLike | None, model: str
) -> list[str]:
    """Write the input file; return the custom_ids in order. Raises InvalidRequest."""
    names: dict[str, None] = {}
    for number, problem in enumerate(problems):
        item = problem if isinstance(problem, BatchItem) else BatchItem(problem)
        custom_id = str(number) if item.custom_id is None else item.custom_id
        if custom_id in names:
            raise InvalidRequest(f"two problems have the custom_id {custom_id!r}: each needs one of its own")
        names[custom_id] = None
        file.write(input_line(item, custom_id, policy=policy, model=model))
    if not names:
        raise InvalidRequest("there is no problem to solve")
    file.flush()
    return list(names)
