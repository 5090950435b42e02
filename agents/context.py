"""What an agent is given besides the message body: who asks, the backend to call, and the record to fill."""

from dataclasses import dataclass
from functools import partial

from ..schemas.backend_settings import BackendSettings
from ..schemas.completion import CompletionRequest
from ..schemas.errors import BadRequest, ConfigurationError
from ..schemas.trace import CallTrace
from .backends.base import Backend
from .call import Completion
from .routing import Route
from .targets import AroundCall, unwatched


@dataclass(slots=True)
class AgentContext:
    """One attempt at one step."""

    job_id: str
    """UUIDv7 of the job."""
    step: str
    """Name of the step."""
    attempt: int
    """The fencing token."""
    route: Route | None
    """The backends to call; None = none is configured (safety without a guard model)."""
    record: CallTrace
    """Filled as the call goes, so that a cancelled or failed attempt leaves its trace."""
    around_call: AroundCall = unwatched
    """Makes what is entered around each model call; when it is left, the record is complete."""

    @property
    def backend(self) -> Backend | None:
        """The agent's own backend; None = it has none."""
        return None if self.route is None else self.route.own

    def bound(self) -> tuple[Backend, BackendSettings]:
        """Return the agent's own backend, which prompts are made for, and its settings; raise ConfigurationError when it has none."""
        route = self._bound()
        return route.own, route.settings

    @property
    def request_id(self) -> str:
        """Our id of the call, for the engine's log."""
        return f"{self.job_id}.{self.step}.{self.attempt}"

    async def complete(self, request: CompletionRequest, *, record: CallTrace | None = None) -> Completion:
        """Call the model once; `record` replaces the attempt's own (for steps of several calls). Raises BackendError.

        A server that refuses a request with a schema is asked again without: the agents read free text too.
        """
        record = self.record if record is None else record
        call = partial(self._bound().complete, record=record, around_call=self.around_call)
        try:
            return await call(request)
        except BadRequest:
            if request.json_schema is None:
                raise
        return await call(request.model_copy(update={"json_schema": None}))

    def _bound(self) -> Route:
        if self.route is None:
            raise ConfigurationError(
                f"the step {self.step!r} needs a model, but its agent was started without a backend"
            )
        return self.route
