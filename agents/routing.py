"""Which backend serves a model call: the agent's own, another one while that fails, and sometimes two at once.

    targets   own ──fails before a token──> fallback 1 ──> fallback 2 …     each behind a circuit breaker
    hedge     no token by the time in which 95 % of the calls have one: a second stream; the first token wins

A call that breaks after its first token is the step's to repeat (SQL has its back-off); by then the breaker knows.
"""

from dataclasses import dataclass
from typing import Self

from ..schemas.backend_settings import BackendSettings
from ..schemas.completion import CompletionRequest
from ..schemas.errors import BackendError, BackendsResting, ConfigurationError
from ..schemas.trace import CallTrace
from .backends.base import Backend
from .breaker import Ticket
from .call import Completion
from .hedging import HedgedCall
from .targets import ABOUT_REQUEST, AroundCall, Target, leave, unwatched


@dataclass(frozen=True)
class Route:
    """The backends that may serve one agent's calls, the agent's own first."""

    own: Backend
    """The agent's own backend: the one that prompts are made for."""
    targets: tuple[Target, ...]
    """In the order in which they are tried; at least one."""
    hedge: Target | None = None
    """Asked as well when the first one is late; None = never."""

    @classmethod
    def to(cls, backend: Backend, settings: BackendSettings) -> Self:
        """Return the route to one backend that exists already."""

        async def made() -> Backend:
            return backend

        return cls(backend, (Target(backend.name, settings, made),))

    @property
    def settings(self) -> BackendSettings:
        """Those of the agent's own backend."""
        return self.targets[0].settings

    def admits(self) -> bool:
        """Whether work may be begun: what nobody here can do is for other workers. See `Breaker.admits`."""
        return any(target.breaker.admits() for target in self.targets)

    async def complete(
        self, request: CompletionRequest, *, record: CallTrace, around_call: AroundCall = unwatched
    ) -> Completion:
        """Call a model once, wherever it can be done. `record` is filled in whatever happens, left calls included.

        Raises BackendError: the last one met, or BackendsResting.
        """
        failure: BackendError | None = None
        failed_at = ""
        for target in self.targets:
            if not target.breaker.allows:
                continue
            if failure is not None:
                leave(record, reason=failure.code)
                target.watcher.fell_back(failed_at, target.name, reason=str(failure))
            ticket = target.breaker.enter()
            try:
                completion = await self._call(target, request, record=record, around_call=around_call)
            except BackendError as exc:
                self._judge(target, ticket, record, exc)
                if record.time_to_first_token_s is not None or isinstance(exc, ABOUT_REQUEST):
                    raise
                failure, failed_at = exc, target.name
            except ConfigurationError:
                # A fallback that cannot even be made: the others may do.
                ticket.failed(at_once=True)
                if target is self.targets[0]:
                    raise
            except BaseException:
                ticket.left()
                raise
            else:
                self._judge(target, ticket, record, None)
                return completion
        if failure is not None:
            raise failure
        rest_s = min(target.breaker.rest_s for target in self.targets)
        names = ", ".join(repr(target.name) for target in self.targets)
        raise BackendsResting(
            f"left alone after failures, tried again within {rest_s:.1f} s: {names}", retry_after_s=rest_s
        )

    def _judge(self, target: Target, ticket: Ticket, record: CallTrace, exc: BackendError | None) -> None:
        """Tell the target's breaker how its call went; where its hedge served, nothing is known of the target itself."""
        if record.called and record.backend != target.name:
            ticket.left()
        else:
            target.judge(ticket, exc, alone=len(self.targets) == 1)

    async def _call(
        self, target: Target, request: CompletionRequest, *, record: CallTrace, around_call: AroundCall
    ) -> Completion:
        target.pace.begin()
        late_s, second = target.pace.late_s, self.hedge
        if second is None or second is target or late_s is None or target is not self.targets[0]:
            return await target.call(request, record=record, around_call=around_call)
        return await HedgedCall(target, second, request, late_s=late_s, around_call=around_call).run(record)
