"""From token ids to streamed text, without breaking characters that span several tokens."""

from collections.abc import Callable, Sequence

REPLACEMENT = "\ufffd"
PENDING_TOKENS_MAX = 8
"""Further tokens after which bytes that form no character are passed on as they are (a model may emit invalid UTF-8)."""

DecodeMany = Callable[[list[list[int]]], list[str]]
"""Decodes several token sequences in one call: one call costs little more than one sequence."""


class Detokeniser:
    """The text of one growing sequence of tokens.

    A window of tokens is decoded twice, with and without the newest ones: the difference is their text. Decoding the newest
    alone would lose what tokenizers make of neighbours (leading spaces, characters of several tokens).
    """

    def __init__(self, *, literal: dict[int, str] | None = None) -> None:
        """`literal`: tokens that stand for themselves although the tokenizer would drop them as special."""
        self._literal = literal or {}
        self._ids: list[int] = []
        self._shown = 0
        self._said = 0
        """Characters passed on beyond those of the shown tokens."""
        self._moved_at = 0
        """Number of tokens at which text last came out of them."""

    def add(self, ids: Sequence[int], decode: Callable[[list[int]], str]) -> str:
        """Return the text that `ids` complete; a literal token completes what came before it."""
        text = ""
        for token in ids:
            if token in self._literal:
                text += self.finish(decode) + self._literal[token]
                self._ids, self._shown, self._said, self._moved_at = [], 0, 0, 0
            else:
                self._ids.append(token)
        return text

    def windows(self) -> list[list[int]]:
        """Return the two sequences whose texts `take` needs."""
        return [self._ids[: self._shown], self._ids]

    def take(self, shown: str, whole: str) -> str:
        """Return the new text, given the texts of `windows()`; empty while a character is incomplete."""
        pending = len(self._ids) - self._shown
        if not pending:
            return ""
        said = len(shown) + self._said
        if whole.endswith(REPLACEMENT):
            text = whole.rstrip(REPLACEMENT)[said:]
            if text:
                self._said, self._moved_at = self._said + len(text), len(self._ids)
                return text
            if len(self._ids) - self._moved_at < PENDING_TOKENS_MAX:
                return ""
        self._ids, self._shown, self._said, self._moved_at = self._ids[self._shown :], pending, 0, pending
        return whole[said:]

    def finish(self, decode: Callable[[list[int]], str]) -> str:
        """Return what is still pending, complete or not."""
        shown, whole = (decode(window) for window in self.windows())
        said, self._said = self._said, 0
        self._shown = len(self._ids)
        return whole[len(shown) + said :]
