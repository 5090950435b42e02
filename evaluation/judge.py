"""A model as the judge of free answers that no rule can decide; what it costs is counted under `grader`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator

from ..agents.answer_judge import AnswerJudge
from ..agents.backends.base import Backend
from ..agents.backends.registry import create_backend
from ..schemas.backend_settings import BackendSettings
from ..schemas.evaluation import Spent
from ..schemas.settings import Settings
from ..schemas.trace import CallTrace
from .targets.definition import Price
from .targets.endpoint import named_backend, own_price

JUDGE = "judge"
"""As what it stands in messages."""


class CountedJudge:
    """See `grading.score.Judge`; counts what it costs."""

    def __init__(self, backend: Backend, settings: BackendSettings, price: Price | None) -> None:
        self._backend = backend
        self._settings = settings
        self._price = price
        self._judge = AnswerJudge(backend, settings, on_call=self._count)
        self.spent = Spent()
        """Of all verdicts of this one."""

    @property
    def name(self) -> str:
        """As the manifest shows it."""
        return f"{self._backend.name}: {self._backend.model}"

    def fresh(self) -> CountedJudge:
        """Return one on the same backend that has spent nothing."""
        return CountedJudge(self._backend, self._settings, self._price)

    async def __call__(self, question: str, truth: str, answer: str) -> bool | None:
        """Return the verdict; None when it cannot be read. Raises BackendError when the model cannot be asked."""
        return await self._judge(question, truth, answer)

    def _count(self, record: CallTrace) -> None:
        usage, price = record.usage, self._price
        cost = None if price is None else (usage.prompt * price.prompt + usage.completion * price.completion) / 1e6
        known = self.spent
        self.spent = Spent(
            calls=known.calls + 1,
            usage=known.usage + usage,
            seconds=known.seconds + record.duration_s,
            cost=None if cost is None else (known.cost or 0.0) + cost,
        )


@contextlib.asynccontextmanager
async def open_judge(name: str | None, settings: Settings) -> AsyncGenerator[CountedJudge | None]:
    """Yield the judge behind a named backend, role or kind of the settings; None = there is none. Raises ConfigurationError, BackendError."""
    if name is None:
        yield None
        return
    chosen = named_backend(JUDGE, name, settings)
    backend = create_backend(chosen, name=name, cerebras_api_key=settings.cerebras_api_key)
    try:
        await backend.probe()
        yield CountedJudge(backend, chosen, own_price(chosen))
    finally:
        await backend.aclose()
