"""Splitting inline `<think>…</think>` from the visible text, for servers that do not separate the reasoning themselves.

Rules, the same for every backend and whatever the pieces in which the text arrives:

- The first `<think>` opens the reasoning and the first `</think>` after it closes it; all later text is verbatim, so an
  answer may speak of the tags. Text before `<think>` is visible.
- `<think>` that is never closed: the rest is reasoning (a completion that was cut off while thinking).
- `</think>` without `<think>` (the chat template had opened it): everything before it was reasoning. What was already
  passed on as visible cannot be called back; the totals are right from then on. `opened=True` says so beforehand.
- Once the server itself sends reasoning, the visible text is left alone.
"""

from typing import Literal

from ...schemas.completion import Delta

OPEN_TAG = "<think>"
CLOSE_TAG = "</think>"


class ReasoningSplitter:
    """Feeds on deltas, returns deltas in which reasoning and text are apart."""

    def __init__(self, *, opened: bool = False) -> None:
        """`opened`: the prompt already ends in `<think>`, so the text begins as reasoning."""
        self._state: Literal["before", "inside", "verbatim"] = "inside" if opened else "before"
        self._held = ""
        self._text: list[str] = []
        self._reasoning: list[str] = []

    @property
    def text(self) -> str:
        """The visible text so far, without what is still held back."""
        return "".join(self._text)

    @property
    def reasoning(self) -> str:
        """The reasoning so far, without what is still held back."""
        return "".join(self._reasoning)

    def feed(self, delta: Delta) -> Delta | None:
        """Return what can be passed on; the beginning of what may be a tag is held back. None = nothing yet."""
        passed = _Passed()
        if delta.reasoning:
            self._pass(self._held, passed)
            self._held, self._state = "", "verbatim"
            self._reasoning.append(delta.reasoning)
            passed.reasoning.append(delta.reasoning)
        self._split(self._held + delta.text, passed)
        return passed.delta()

    def finish(self) -> Delta | None:
        """Return what was held back; None = nothing."""
        passed = _Passed()
        held, self._held = self._held, ""
        self._pass(held, passed)
        return passed.delta()

    def _split(self, buffer: str, passed: "_Passed") -> None:
        while self._state != "verbatim":
            tags = (CLOSE_TAG,) if self._state == "inside" else (OPEN_TAG, CLOSE_TAG)
            at, tag = min(((buffer.find(tag), tag) for tag in tags if tag in buffer), default=(-1, ""))
            if not tag:
                keep = held_back(buffer, tags)
                self._pass(buffer[: len(buffer) - keep], passed)
                self._held = buffer[len(buffer) - keep :]
                return
            self._pass(buffer[:at], passed)
            buffer = buffer[at + len(tag) :]
            if tag == CLOSE_TAG and self._state == "before":
                self._reasoning, self._text = [*self._reasoning, *self._text], []
            self._state = "inside" if tag == OPEN_TAG else "verbatim"
        self._held = ""
        self._pass(buffer, passed)

    def _pass(self, piece: str, passed: "_Passed") -> None:
        reasoning = self._state == "inside"
        (self._reasoning if reasoning else self._text).append(piece)
        (passed.reasoning if reasoning else passed.text).append(piece)


class _Passed:
    """What one call passes on."""

    def __init__(self) -> None:
        self.text: list[str] = []
        self.reasoning: list[str] = []

    def delta(self) -> Delta | None:
        text, reasoning = "".join(self.text), "".join(self.reasoning)
        return Delta(text=text, reasoning=reasoning) if text or reasoning else None


def held_back(buffer: str, tags: tuple[str, ...]) -> int:
    """Return the length of the longest end of `buffer` that begins one of `tags` without completing it."""
    longest = min(len(buffer), max(len(tag) for tag in tags) - 1)
    for length in range(longest, 0, -1):
        if any(tag.startswith(buffer[-length:]) for tag in tags if len(tag) > length):
            return length
    return 0
