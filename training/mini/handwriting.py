"""The same prompt as different people type it: capitals, spaces, closing signs. Used to evaluate, never to train."""

from __future__ import annotations

import random
import re

from .families.problem import chance, pick


def as_typed(rng: random.Random, text: str) -> str:
    """A spelling of ``text`` that means the same."""
    if chance(rng, 0.5):
        text = re.sub(r"([+*/=])", lambda match: pick(rng, ("{}", " {}", "{} ", " {} ")).format(match.group()), text)
        text = re.sub(r"(?<=[0-9a-z])-(?=[0-9a-z])", " - ", text)
    if chance(rng, 0.2):
        text = re.sub(r"(?<=[0-9]) ?\* ?(?=[0-9])", lambda _: pick(rng, ("\u00d7", " \u00d7 ", " x ")), text)
    if chance(rng, 0.6):
        text = re.sub(r"([,;:])(?=[^ ])", r"\1 ", text)
    if chance(rng, 0.1):
        text = text.replace(" ", "  ")
    if chance(rng, 0.1):
        text = text.replace(". ", ".\n")
    text += pick(rng, ("", "?", "?", ".", " ?", " = ?" if text[-1].isdigit() else "?", "??", "\n"))
    case = rng.random()
    if case < 0.5:
        # As a careful writer does it: sentences begin with a capital.
        return re.sub(r"(^|[.?!]\s+)([a-z])", lambda match: match.group(1) + match.group(2).upper(), text)
    if case < 0.6:
        return text.upper()
    if case < 0.7:
        return text.title()
    return text
