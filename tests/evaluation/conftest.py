"""Items with one answer each, and a simulated model whose reply to an item a test decides."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from k2think.agents.backends.openai import OpenAIBackend
from k2think.agents.backends.simulator import ChatRequest, Reply, SimulatedServer, SolvingResponder
from k2think.evaluation.budget import Budget
from k2think.evaluation.cache import Cache
from k2think.evaluation.judge import CountedJudge
from k2think.evaluation.progress import RunProgress
from k2think.evaluation.records import read_run
from k2think.evaluation.run import Plan, Summary, run
from k2think.evaluation.targets.definition import Definition, Price
from k2think.evaluation.targets.opening import make_targets
from k2think.schemas.backend_settings import BackendKind, BackendSettings
from k2think.schemas.evaluation import Item, Outcome
from k2think.schemas.scores import Domain, Task
from k2think.schemas.settings import Settings, read_settings

TRUTH = "405"


def item(name: str, *, truth: Any = TRUTH, **more: Any) -> Item:
    """An item whose prompt holds its name in brackets."""
    task = Task(id=name, domain=Domain.math, source="aime_sample", prompt=f"[{name}] What is 347 + 58?", truth=truth)
    return Item(task=task.model_copy(update=more), subset="sums")


@dataclass
class Replies:
    """Right, but to items whose name a test gave another reply."""

    by_name: dict[str, Reply | list[Reply]] = field(default_factory=dict[str, Any])
    """Name → reply, or several replies in turn, the last one for ever."""
    solver: SolvingResponder = field(default_factory=lambda: SolvingResponder(accuracy=1.0, reasoning_tokens=4))

    def __call__(self, request: ChatRequest) -> Reply:
        for name, reply in self.by_name.items():
            if f"[{name}]" in request.text:
                if isinstance(reply, list):
                    return reply.pop(0) if len(reply) > 1 else reply[0]
                return reply
        return self.solver(request)


@dataclass
class Bench:
    """A model server, a folder, and runs between the two."""

    folder: Path
    server: SimulatedServer
    replies: Replies
    settings: Settings

    def definition(self, **more: Any) -> Definition:
        """An endpoint on the server."""
        plain = {"row": "single", "base_url": self.server.url, "model": "simulated"}
        return Definition.model_validate({**plain, **more})

    async def run(
        self,
        items: list[Item],
        *,
        name: str = "run",
        targets: Mapping[str, Definition] | None = None,
        cache: Cache | None = None,
        judge: CountedJudge | None = None,
        **more: Any,
    ) -> Summary:
        """Run into the folder of that name."""
        out = self.folder / name
        definitions = targets or {"sim": self.definition()}
        plan = Plan(
            folder=out,
            suite="sums",
            options={},
            items=tuple(items),
            targets=tuple(make_targets(definitions, self.settings, out)),
            repeats=more.pop("repeats", 1),
            concurrency=more.pop("concurrency", 4),
            budget=more.pop("budget", None) or Budget(),
            **more,
        )
        return await run(plan, cache=cache, judge=judge, progress=RunProgress(quiet=True))

    def outcomes(self, name: str = "run") -> dict[str, Outcome]:
        """What stands, by item; for runs of one target and one repeat."""
        return {outcome.item: outcome for outcome in read_run(self.folder / name).outcomes}

    def asked(self, name: str) -> int:
        """Calls for an item."""
        return sum(f"[{name}]" in call.request.text for call in self.server.calls)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """A bench of the test's own."""
    async with AsyncExitStack() as stack:
        replies = Replies()
        server = await stack.enter_async_context(SimulatedServer(replies))
        yield Bench(tmp_path, server, replies, read_settings(data_dir=tmp_path / "data"))


MakeItem = Callable[..., Item]


@pytest.fixture
def make_item() -> MakeItem:
    """`make_item("q1")`: see `item`."""
    return item


@pytest.fixture
async def judge(bench: Bench) -> AsyncIterator[CountedJudge]:
    """A judge behind the bench's server."""
    settings = BackendSettings(backend=BackendKind.openai, base_url=bench.server.url, model="simulated")
    backend = OpenAIBackend(settings, name="judge")
    yield CountedJudge(backend, settings, Price(prompt=0.0, completion=1e6))
    await backend.aclose()
