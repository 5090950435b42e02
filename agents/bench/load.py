"""What a measurement asks for: how many streams, and the requests of each round."""

import random
from dataclasses import dataclass

from ...schemas.completion import ChatMessage, CompletionRequest
from ..backends.wire import CHARS_PER_TOKEN

WARM_UP_TOKENS = 8


@dataclass(frozen=True, slots=True)
class Load:
    """The work of a measurement."""

    streams: tuple[int, ...] = (1, 2, 4, 8)
    """Calls at once, one level each."""
    prompt_tokens: int = 64
    """Tokens of a prompt, by the rule of thumb of four characters each: the engine tells what they really were."""
    output_tokens: int = 128
    """Tokens of a completion at most; a model may end sooner."""
    calls: int = 4
    """Calls that each stream makes one after another in a round."""
    rounds: int = 4
    """Rounds of a level."""
    temperature: float = 1.0
    """Softmax temperature; 0 = greedy."""
    seed: int = 0
    """Of prompts and sampling."""

    @property
    def calls_in_all(self) -> int:
        """Calls of all levels and rounds of one client, warming up left out."""
        return sum(self.streams) * self.calls * self.rounds

    def requests(self, streams: int, round_number: int) -> list[CompletionRequest]:
        """Return the requests of one round. No two prompts begin alike, so that no cached prefix shortens the work."""
        named = f"{self.seed}/{streams}/{round_number}"
        return [self._request(f"{named}/{number}") for number in range(streams * self.calls)]

    def warm_ups(self, streams: int) -> list[CompletionRequest]:
        """Return a short request for each stream, which loads models and opens connections."""
        named = [f"{self.seed}/{streams}/warm-up/{number}" for number in range(streams)]
        return [self._request(name).model_copy(update={"max_tokens": WARM_UP_TOKENS}) for name in named]

    def _request(self, named: str) -> CompletionRequest:
        dice = random.Random(named)
        text = f"What is {dice.randrange(10**6)}"
        while len(text) < self.prompt_tokens * CHARS_PER_TOKEN:
            text += f" {dice.choice('+-')} {dice.randrange(1000)}"
        return CompletionRequest(
            messages=(ChatMessage(role="user", content=f"{text}?"),),
            temperature=self.temperature,
            max_tokens=self.output_tokens,
            seed=dice.randrange(2**31),
        )
