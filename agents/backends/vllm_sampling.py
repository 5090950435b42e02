"""Whether a vLLM engine samples as its model would: speculation must change the speed and nothing else.

Found on vLLM 0.32's CPU build, whose rejection sampler gets no temperature: tokens that the model all but rules out come
again and again, with status 200 and a fine acceptance. The engine is asked for a few sampled tokens with their
log-probabilities. By the model's own account a share of them falls outside the most probable ones; when far more do, the
sampling is wrong.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

PROMPT = "What is 347 + 58? Think first."
TOP = 4
"""Most probable tokens that are looked at in each place."""
ASKED = TOP + 1
"""Log-probabilities to ask for: vLLM counts the sampled token among them, however improbable it is."""
CALLS, TOKENS_EACH = 4, 64
"""How much is looked at: a few completions, since a small model may end one after ten tokens."""
DEVIATIONS_MAX = 5.0
"""Standard deviations above what the model expects from which the sampling counts as wrong: by chance less than once in a
million checks."""
Place = tuple[float, Sequence[float]]
"""Log-probabilities, natural: of the sampled token, and of the most probable ones, the sampled one among them or not."""


@dataclass(frozen=True)
class Sampling:
    """What was sampled, against what the model says of it."""

    tokens: int
    """Tokens looked at."""
    outside: int
    """Of these, tokens that are none of the most probable."""
    expected: float
    """How many of these the model expects."""

    @property
    def wrong(self) -> bool:
        """Whether chance cannot explain it."""
        return self.outside - self.expected > DEVIATIONS_MAX * math.sqrt(self.expected + 1)

    def __str__(self) -> str:
        return (
            f"{self.outside} of {self.tokens} sampled tokens were none of the {TOP} most probable, "
            f"where the model expects {self.expected:.1f}"
        )


def judged(places: Sequence[Place]) -> Sampling:
    """Compare sampled tokens with the model's own probabilities; temperature and top_p must have been 1."""
    outside, expected = 0, 0.0
    for sampled, probable in places:
        top = sorted({*probable, sampled}, reverse=True)[:TOP]
        outside += sampled < top[-1]
        expected += max(0.0, 1.0 - sum(map(math.exp, top)))
    return Sampling(len(places), outside, expected)


def sampling_body(model: str) -> dict[str, Any]:
    """Return the chat completion request that is judged."""
    return {
        "model": model,
        "messages": [{"role": "user", "content": PROMPT}],
        "max_tokens": TOKENS_EACH,
        "temperature": 1.0,
        "top_p": 1.0,
        "logprobs": True,
        "top_logprobs": ASKED,
    }


def places_of(reply: Any) -> list[Place]:
    """Return the tokens of a reply to `sampling_body`; none where it has no log-probabilities."""
    try:
        return [
            (float(token["logprob"]), [float(other["logprob"]) for other in token["top_logprobs"]])
            for choice in reply["choices"]
            for token in choice["logprobs"]["content"]
        ]
    except (KeyError, TypeError, ValueError):
        return []
