"""What the commands of training data let choose from. Imports nothing, so that `--help` is quick."""

from enum import StrEnum


class Kind(StrEnum):
    """Which published set it is."""

    am = "am"
    """AM-Thinking-v1-Distilled, or its sister AM-Qwen3-Distilled: conversations."""
    guru = "guru"
    """Guru: problems."""


class Verify(StrEnum):
    """What becomes of answers that cannot be checked. Wrong ones are always left out, unless nothing is checked."""

    known = "known"
    """They are kept, without a reward, and counted."""
    strict = "strict"
    """They are left out, and counted."""
    off = "off"
    """Nothing is checked."""


class Evidence(StrEnum):
    """Why an answer is taken to be right; the strongest that there is."""

    truth = "truth"
    """The truth file has the problem, and the answer is right by it."""
    unit_tests = "unit_tests"
    """It passed the task's own unit tests."""
    majority = "majority"
    """More than half of all the samples that were asked for gave it."""


class Order(StrEnum):
    """In which order the records stand. In each, every stretch of the file has the groups in the proportions of the whole."""

    shuffled = "shuffled"
    """At random."""
    easy_first = "easy-first"
    """Within each group by difficulty, where it is known; the others are spread evenly among them."""


class By(StrEnum):
    """What the weights are of."""

    domain = "domain"
    source = "source"
