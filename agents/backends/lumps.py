"""Streams that nobody watches: several deltas as one, and what had come when a stream ended early."""

from collections.abc import Iterable, Iterator
from contextlib import suppress

from ...schemas.completion import Delta
from ...schemas.errors import BackendError
from .payloads import Payloads
from .wire import CompletionReader


def merged(deltas: Iterable[Delta]) -> list[Delta]:
    """Return the same text in the same order in as few deltas as can tell it: reasoning comes before text in each."""
    groups: list[list[Delta]] = []
    for delta in deltas:
        if not groups or (delta.reasoning and any(earlier.text for earlier in groups[-1][-1:])):
            groups.append([])
        groups[-1].append(delta)
    return [group[0] if len(group) == 1 else _joined(group) for group in groups]


def unread(payloads: Payloads, reader: CompletionReader) -> Iterator[Delta]:
    """Yield the deltas of what had come and was not read yet, as far as they can be read."""
    with suppress(BackendError):
        for payload in payloads.left():
            delta = reader.read(payload)
            if delta is not None:
                yield delta


def _joined(group: list[Delta]) -> Delta:
    return Delta(
        text="".join(delta.text for delta in group),
        reasoning="".join(delta.reasoning for delta in group),
        pieces=sum(delta.pieces for delta in group),
    )
