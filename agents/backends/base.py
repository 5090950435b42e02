"""The one protocol that every backend speaks. One conformance suite (tests/agents/backends/) runs over all of them."""

from collections.abc import AsyncIterator
from typing import Protocol, runtime_checkable

from ...schemas.completion import CompletionRequest, Delta, StreamItem

WARNING = "warning"
"""Name of a fact of `probe` that is a warning: it works, but not as was asked for."""


class Backend(Protocol):
    """A source of completions.

    A backend belongs to the event loop on which it was first used. It maps every foreign error to `BackendError`'s
    subclasses, applies its connect, first-token and idle timeouts, and retries nothing: retries are `call_model`'s.
    """

    name: str
    """Name as configured: the kind, or the key in K2THINK_BACKENDS."""
    model: str
    """Model name as sent to the server."""
    templates: str | None
    """Prompt template set that the model was trained for; None = any."""

    def stream(self, request: CompletionRequest, *, unseen: list[Delta] | None = None) -> AsyncIterator[StreamItem]:
        """Yield deltas, then exactly one `Finish`.

        `unseen`: None = every delta is yielded as it comes. A list = nobody watches: after the first delta several may be
        yielded as one; what had come and was not yielded when the stream ended early is put into the list.
        Closing the iterator early (`aclose`) or cancelling the consuming task closes the connection, or aborts the
        request in the engine, at once. Raises BackendError.
        """
        ...

    async def probe(self) -> dict[str, str]:
        """Reach the server and check that the model is served; return facts for `doctor` (name → text). Raises BackendError."""
        ...

    async def aclose(self) -> None:
        """Close connections; running streams end with StreamBroken."""
        ...


@runtime_checkable
class OwnsEngine(Protocol):
    """A backend whose engine takes long to load and lives in this process and its children: their end is the process's."""

    async def serve(self) -> str:
        """Load the engine; return, when it has ended by itself, why. Raises ConfigurationError for settings that cannot work."""
        ...
