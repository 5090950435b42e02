"""What the client does, without doing it: generators that yield what they want and are sent what came of it.

`sync.py` and `asynchronous.py` perform the wishes, each in its own way. So every method is written once.
"""

import functools
import types
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Concatenate, Generic, ParamSpec, Protocol, TypeVar, overload

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Upload:
    """A file on its way to the gateway."""

    filename: str
    """As it will be listed."""
    open: Callable[[], BinaryIO]
    """Opens the content; called once per try."""
    fields: Mapping[str, str]
    """The form's other fields."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request to the gateway."""

    method: str
    """GET, POST or DELETE."""
    path: str
    """From the gateway's root, quoted."""
    params: Mapping[str, str | int | float] = field(default_factory=dict[str, str | int | float])
    """Query."""
    json: Any = None
    """Body; None = there is none, or an upload."""
    upload: Upload | None = None
    """A file as the body."""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    """Besides those of every request."""
    repeatable: bool = True
    """Whether doing it twice does no harm: it only looks, or it has an idempotency key."""
    read_timeout_s: float | None = None
    """Seconds of silence after which the answer is given up; None = the client's own."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    """HTTP status."""
    headers: Mapping[str, str]
    """Found by names in lower case."""
    content: bytes
    """The body; empty for a stream that was opened."""


@dataclass(frozen=True, slots=True)
class Send:
    """Make a request; an Answer is sent back. Raises GatewayUnreachable into the flow."""

    call: Call
    """The request."""


@dataclass(frozen=True, slots=True)
class Open:
    """As Send, but leave the body to Read, unless it is an error's. A stream that was open before is closed."""

    call: Call
    """The request."""


@dataclass(frozen=True, slots=True)
class Read:
    """Wait for the next bytes of the open stream; b"" is its end. Raises GatewayUnreachable into the flow."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait; nothing is sent back."""

    seconds: float
    """How long."""


@dataclass(frozen=True, slots=True)
class Emit(Generic[T_co]):
    """Hand an item to whoever iterates; nothing is sent back."""

    item: T_co
    """The item."""


@dataclass(frozen=True, slots=True)
class Do:
    """Do some work of our own that takes a while; what it returns is sent back."""

    work: Callable[[], Any]
    """In an event loop it is done in a thread."""


Effect = Send | Open | Read | Pause | Do
Flow = Generator[Effect, Any, T]
"""Ends with a result."""
Items = Generator[Effect | Emit[T], Any, None]
"""Hands out items on the way."""


class Runs(Protocol):
    """A client that performs flows in the caller's thread."""

    def run(self, flow: Flow[T], /) -> T:
        """Return the flow's result."""
        ...

    def iterate(self, items: Items[T], /) -> Generator[T, None, None]:
        """Yield the items."""
        ...


class RunsAsync(Protocol):
    """A client that performs flows in the running event loop."""

    def run(self, flow: Flow[T], /) -> Coroutine[Any, Any, T]:
        """Return the flow's result."""
        ...

    def iterate(self, items: Items[T], /) -> AsyncGenerator[T, None]:
        """Yield the items."""
        ...


class operation(Generic[P, T]):
    """Turns a flow into a method: plain on a client that waits, a coroutine on an async one, the flow on the class."""

    def __init__(self, flow: Callable[Concatenate[Any, P], Flow[T]]) -> None:
        self._flow = flow

        @functools.wraps(flow)
        def method(client: Any, *args: P.args, **kwargs: P.kwargs) -> Any:
            return client.run(flow(client, *args, **kwargs))

        self._method = method

    @overload
    def __get__(self, client: None, owner: Any) -> Callable[Concatenate[Any, P], Flow[T]]: ...
    @overload
    def __get__(self, client: RunsAsync, owner: Any) -> Callable[P, Coroutine[Any, Any, T]]: ...
    @overload
    def __get__(self, client: Runs, owner: Any) -> Callable[P, T]: ...
    def __get__(self, client: Any, owner: Any) -> Any:
        """Return the method of that client, or the flow."""
        return self._flow if client is None else types.MethodType(self._method, client)


class iteration(Generic[P, T]):
    """As `operation`, for flows that hand out items: the method returns a generator, or an asynchronous one."""

    def __init__(self, flow: Callable[Concatenate[Any, P], Items[T]]) -> None:
        self._flow = flow

        @functools.wraps(flow)
        def method(client: Any, *args: P.args, **kwargs: P.kwargs) -> Any:
            return client.iterate(flow(client, *args, **kwargs))

        self._method = method

    @overload
    def __get__(self, client: None, owner: Any) -> Callable[Concatenate[Any, P], Items[T]]: ...
    @overload
    def __get__(self, client: RunsAsync, owner: Any) -> Callable[P, AsyncGenerator[T, None]]: ...
    @overload
    def __get__(self, client: Runs, owner: Any) -> Callable[P, Generator[T, None, None]]: ...
    def __get__(self, client: Any, owner: Any) -> Any:
        """Return the method of that client, or the flow."""
        return self._flow if client is None else types.MethodType(self._method, client)


def emitted(flow: Flow[T]) -> Items[T]:
    """Return the flow as one that hands out its result, so that a driver has one loop only."""
    result = yield from flow
    yield Emit(result)
