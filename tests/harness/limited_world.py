"""Processes that call a limited server as fast as the book of limits lets them, in simulated time."""

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from k2think.agents.backends.simulator import ServerRates
from k2think.agents.backends.simulator.rates import Admission, Refusal
from k2think.agents.limit_book import Book
from k2think.agents.limit_terms import Answer, Both, Outcome, Terms
from k2think.agents.limits import read_rate_limits

OTHERS_EVERY_S = 0.2


@dataclass
class World:
    """See the module. `run` may be called again to go on."""

    rates: Callable[..., ServerRates]
    terms: Terms
    processes: int = 20
    callers: int = 50
    """Of each process."""
    prompt: int = 100
    """Tokens by our estimate."""
    prompt_told: int = 120
    """The same prompt by the server's count."""
    completion: int = 100
    completion_max: int = 400
    delay_s: float = 0.02
    """Longest way of a call to the server; the last process has the longest ways."""
    stream_s: float = 1.0
    """Mean seconds that a stream takes."""
    slots: int = 1_000_000
    """Streams that the server serves at full pace; with more of them, all are slower."""
    others_share: float = 0.0
    """Share of the quota's rate that others use of the same account."""
    first_token_s: float = 0.1
    """From a call to its first token, at full pace."""
    seed: int = 1
    now: float = 1_000.0
    book: Book = field(default_factory=Book)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.server = self.rates(clock=lambda: self.now)
        self.numbers = itertools.count()
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.waiting = dict.fromkeys(range(self.processes), self.callers)
        self.in_flight = 0
        self.in_flight_max = 0
        self.granted = dict.fromkeys(range(self.processes), 0)
        """Turns of each process."""

    def at(self, moment: float, deed: Callable[[], None]) -> None:
        heapq.heappush(self.events, (moment, next(self.numbers), deed))

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        if self.others_share:
            self.at(self.now, self.others)
        for process in range(self.processes):
            self.at(self.now + self.chance.random() * 0.1, lambda process=process: self.poll(process))
        while self.events and self.events[0][0] <= end:
            self.now, _, deed = heapq.heappop(self.events)
            deed()
        self.now = end

    def others(self) -> None:
        quota = self.server.requests or self.server.tokens
        assert quota is not None
        quota.take(min(quota.remaining, self.others_share * quota.limit / 60 * OTHERS_EVERY_S))
        self.at(self.now + OTHERS_EVERY_S, self.others)

    def poll(self, process: int) -> None:
        if not self.waiting[process]:
            self.at(self.now + 0.01, lambda: self.poll(process))
            return
        id = f"{process}.{next(self.numbers)}"
        tokens = self.prompt + self.completion_max
        answer = self.book.reserve(self.now, self.terms, process=str(process), id=id, tokens=tokens)
        if answer.granted:
            self.waiting[process] -= 1
            self.granted[process] += 1
            longest_s = self.delay_s * (process + 1) / self.processes
            self.at(self.now + self.chance.uniform(0.001, longest_s), lambda: self.arrive(process, id, answer))
            self.at(self.now + 0.001, lambda: self.poll(process))
        else:
            self.at(self.now + answer.wait_s * self.chance.uniform(1, 1.1), lambda: self.poll(process))

    def arrive(self, process: int, id: str, granted: Answer) -> None:
        taken = self.server.admit(prompt_tokens=self.prompt_told, completion_max=self.completion_max)
        outcome = Outcome(id=id, granted=granted, tokens=self.prompt + self.completion_max)
        told = read_rate_limits(taken.headers)
        quotas = (told.requests, told.tokens)
        outcome = replace(
            outcome,
            limits=Both(*(quota and quota.limit for quota in quotas)),
            remaining=Both(*(quota and quota.remaining for quota in quotas)),
        )
        if isinstance(taken, Refusal):
            outcome = replace(outcome, refused=True, retry_after_s=float(taken.retry_after_s))
            self.book.settle(self.now, self.terms, outcome)
            self.at(self.now + taken.retry_after_s, lambda: self.back(process))
            return
        self.in_flight += 1
        self.in_flight_max = max(self.in_flight, self.in_flight_max)
        used = self.prompt_told + self.chance.randrange(2 * self.completion)
        slower = max(1.0, self.in_flight / self.slots)
        outcome = replace(outcome, used=used, first_token_s=self.first_token_s * slower)
        stream_s = self.stream_s * slower * self.chance.uniform(0.5, 1.5)
        self.at(self.now + stream_s, lambda: self.end(process, taken, outcome))

    def end(self, process: int, taken: Admission, outcome: Outcome) -> None:
        self.in_flight -= 1
        self.server.settle(taken, used_tokens=outcome.used or 0)
        self.book.settle(self.now, self.terms, outcome)
        self.back(process)

    def back(self, process: int) -> None:
        self.waiting[process] += 1

    @property
    def refused_share(self) -> float:
        return self.server.refused / (self.server.refused + self.server.admitted)
