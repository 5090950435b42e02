"""What those who call and those who keep limits say to each other."""

from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Both(NamedTuple, Generic[T]):
    """One value for each of the buckets."""

    requests: T
    tokens: T


NOTHING = Both(0.0, 0.0)
UNTOLD: Both[int | None] = Both(None, None)


@dataclass(frozen=True)
class Terms:
    """What the settings say."""

    requests: float | None = None
    """Per minute; None = not set."""
    tokens: float | None = None
    """Per minute; None = not set."""
    streams: int | None = None
    """In flight; None = not set."""
    adaptive: bool = False
    """Whether the number of streams is found by trial."""


@dataclass(frozen=True)
class Facts:
    """What holds for everybody."""

    requests: float | None = None
    """Limit per minute in force; None = none known."""
    tokens: float | None = None
    """Limit per minute in force; None = none known."""
    streams: int | None = None
    """Streams allowed in flight; None = any number."""
    peers: int = 1
    """Processes that share the limits."""


@dataclass(frozen=True)
class Answer(Facts):
    """What is said to one who asks for a turn."""

    granted: bool = False
    """Whether it may go."""
    at: float = 0.0
    """The keeper's time in seconds."""
    wait_s: float = 0.0
    """Seconds after which to ask again; 0 = granted."""
    due_s: float = 0.0
    """Seconds until the turn, as far as can be told now."""
    pause_s: float = 0.0
    """Of these, the seconds that the server asked for."""
    in_flight: int = 0
    """Streams in flight with this one."""
    busy: bool = False
    """Whether they are nearly all that are allowed."""
    held: Both[float] = NOTHING
    """What the buckets of requests and tokens hold after the grant."""
    carried: Both[float] = NOTHING
    """Sum of the differences to the server that were carried over until then."""


@dataclass(frozen=True)
class Outcome:
    """What came of a turn."""

    id: str
    granted: Answer
    tokens: int
    """Tokens reserved."""
    used: int | None = None
    """Tokens used; None = not begun, or refused."""
    refused: bool = False
    overloaded: bool = False
    retry_after_s: float | None = None
    first_token_s: float | None = None
    limits: Both[int | None] = UNTOLD
    """Per minute, as the headers tell; None = not told."""
    remaining: Both[int | None] = UNTOLD
    """What was left of them when the call was taken in, or refused; None = not told."""
    spent_s: float = 0.0
    """Seconds until a spent quota per hour or day is there again; 0 = none is spent."""
