"""Speculative decoding as users name it: one word, `ngram` or `mtp`, or `draft:MODEL` and `eagle:MODEL`."""

import re
from typing import Literal, NamedTuple

PATTERN = r"^(ngram|mtp|(draft|eagle):\S+)$"
"""What the word looks like."""
WORDS = "ngram (prompt lookup), draft:MODEL (a small model), eagle:MODEL (an EAGLE head) or mtp (the model's own heads)"
"""What may be said, in words."""


class Speculation(NamedTuple):
    """What drafts the tokens that the model then verifies."""

    kind: Literal["ngram", "draft", "eagle", "mtp"]
    """How."""
    model: str | None = None
    """Folder or name of what drafts; None = nothing of its own."""

    @classmethod
    def read(cls, text: str) -> "Speculation":
        """Read the word. Raises ValueError."""
        if re.fullmatch(PATTERN, text) is None:
            raise ValueError(f"{text!r} is no kind of speculation; choose {WORDS}")
        kind, _, model = text.partition(":")
        return cls(kind, model or None)  # pyright: ignore[reportArgumentType]

    def __str__(self) -> str:
        return self.kind if self.model is None else f"{self.kind}:{self.model}"
