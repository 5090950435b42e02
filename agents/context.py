"""What an agent is given besides the message body: who asks, the backend to call, and the record to fill."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

from ..schemas.backend_settings import BackendSettings
from ..schemas.completion import CompletionRequest, Delta
from ..schemas.errors import BadRequest, ConfigurationError
from ..schemas.trace import CallTrace
from .backends.base import Backend
from .call import Completion, call_model


def _unwatched(_request: CompletionRequest, _record: CallTrace) -> AbstractContextManager[object]:
    return nullcontext()


@dataclass(slots=True)
class AgentContext:
    """One attempt at one step."""

    job_id: str
    """UUIDv7 of the job."""
    step: str
    """Name of the step."""
    attempt: int
    """The fencing token."""
    backend: Backend | None
    """The model to call; None = none is configured (safety without a guard model)."""
    settings: BackendSettings | None
    """Settings of that backend; None exactly when `backend` is None."""
    record: CallTrace
    """Filled as the call goes, so that a cancelled or failed attempt leaves its trace."""
    on_delta: Callable[[Delta], None] | None = None
    """Told of every piece as it streams; None = nobody listens."""
    around_call: Callable[[CompletionRequest, CallTrace], AbstractContextManager[object]] = _unwatched
    """Makes what is entered around each model call; when it is left, the record is complete."""

    def bound(self) -> tuple[Backend, BackendSettings]:
        """Return backend and settings; raise ConfigurationError when the agent has none."""
        if self.backend is None or self.settings is None:
            raise ConfigurationError(
                f"the step {self.step!r} needs a model, but its agent was started without a backend"
            )
        return self.backend, self.settings

    @property
    def request_id(self) -> str:
        """Our id of the call, for the engine's log."""
        return f"{self.job_id}.{self.step}.{self.attempt}"

    async def complete(self, request: CompletionRequest, *, record: CallTrace | None = None) -> Completion:
        """Call the model once; `record` replaces the attempt's own (for steps of several calls). Raises BackendError.

        A server that refuses a request with a schema is asked again without: the agents read free text too.
        """
        backend, settings = self.bound()
        record = self.record if record is None else record
        call = partial(call_model, backend, record=record, settings=settings, on_delta=self.on_delta)
        with self.around_call(request, record):
            try:
                return await call(request)
            except BadRequest:
                if request.json_schema is None:
                    raise
            return await call(request.model_copy(update={"json_schema": None}))
