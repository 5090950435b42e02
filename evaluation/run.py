"""A run: every item of a suite asked of every target, each outcome written down when it is paid for, and none paid for twice."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import JsonValue

from .. import __version__
from ..grading.fingerprint import grader_sha256
from ..schemas.errors import InvalidRequest
from ..schemas.evaluation import Item, Manifest, Outcome, Status, TargetSpec
from .budget import GRADER, Budget, paid_since
from .cache import Cache, content_key, grading_key
from .grade import grade, regrade
from .judge import CountedJudge
from .preflight import check_grading
from .progress import RunProgress
from .records import OutcomeLog, Run, data_sha256, read_run, write_items, write_manifest
from .targets.base import HOPELESS, Opens, Target

ERRORS_IN_A_ROW_MAX = 10
"""Errors without an answer between them after which a target is left alone: whatever it has, waiting does not help."""
CHECKS_AT_ONCE = 8
DIFFERENCES_SHOWN = 8
TEXT_CHARS_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done."""

    folder: Path
    """Of the run."""
    suite: str
    """Name of the suite."""
    options: dict[str, JsonValue]
    """Of the suite, as the manifest shows them."""
    items: tuple[Item, ...]
    """The suite."""
    targets: tuple[Opens, ...]
    """In this order."""
    repeats: int
    """Of each item."""
    concurrency: int
    """Items asked at once of one target, where it does not say itself."""
    budget: Budget
    """Of the run in all."""
    retry_errors: bool = False
    """Whether what errored in an earlier part of the run is asked again."""


@dataclass(slots=True)
class Summary:
    """What came of it."""

    asked: int = 0
    """Questions that were asked now."""
    cached: int = 0
    """Questions that an earlier run had paid for."""
    before: int = 0
    """Questions that this run had answered before."""
    left: int = 0
    """Questions that are still open."""
    statuses: dict[str, int] = field(default_factory=dict[str, int])
    """Outcomes of the run by status."""
    stopped: str = ""
    """Why it ended before its end, in words; empty = it did not."""
    seconds: float = 0.0
    """Of this part of the run."""

    @property
    def complete(self) -> bool:
        """Whether every question has an answer, right or wrong."""
        return not self.left and not any(
            self.statuses.get(status.value) for status in (Status.errored, Status.ungraded)
        )


async def run(plan: Plan, *, cache: Cache | None, judge: CountedJudge | None, progress: RunProgress) -> Summary:
    """Go through what is left of a run. Raises UserError, BackendError, GatewayError before anything was asked; later only HOPELESS."""
    await check_grading(plan.items)
    specs = [await target.describe() for target in plan.targets]
    manifest = manifest_of(plan, specs, None if judge is None else judge.name)
    earlier = begin(plan.folder, manifest, plan.items)
    runner = _Runner(plan, earlier, specs, manifest, cache=cache, judge=judge, progress=progress)
    with OutcomeLog(plan.folder) as log:
        await runner.go(log)
    return runner.summary


def manifest_of(plan: Plan, specs: Sequence[TargetSpec], judge: str | None) -> Manifest:
    """Return all that decides the run's figures."""
    return Manifest(
        suite=plan.suite,
        suite_options=plan.options,
        data_sha256=data_sha256(plan.items),
        items=len(plan.items),
        targets=tuple(specs),
        repeats=plan.repeats,
        training_data={
            target.name: target.definition.training_data
            for target in plan.targets
            if target.definition.training_data is not None
        },
        k2think_version=__version__,
        grader_sha256=grader_sha256(),
        judge=judge,
        created_at=time.time(),
    )


def begin(folder: Path, manifest: Manifest, items: Sequence[Item]) -> Run:
    """Write the manifest and the items of a new run, or read one that is to go on. Raises InvalidRequest when it is another run."""
    if folder.exists() and not folder.is_dir():
        raise InvalidRequest(f"{folder} is a file; a run needs a folder of its own: name another with --out")
    if folder.is_dir() and any(not entry.name.startswith(".") and entry.name != "stacks" for entry in folder.iterdir()):
        earlier = read_run(folder)
        if earlier.manifest is None:
            raise InvalidRequest(
                f"{folder} holds other files and no run ({'; '.join(earlier.faults)}): name another folder with --out"
            )
        if found := differences(earlier.manifest, manifest):
            raise InvalidRequest(
                f"{folder} holds another run, and going on would mix the two. What differs: {'; '.join(found)}. "
                "Give what that run had, or another --out"
            )
        return earlier
    try:
        write_items(folder, items)
        write_manifest(folder, manifest)
    except OSError as exc:
        raise InvalidRequest(f"{folder} cannot be written ({exc.strerror}): name another folder with --out") from exc
    return Run(folder, manifest, tuple(items), (), (), (), ())


def differences(earlier: Manifest, now: Manifest) -> list[str]:
    """Return what of two manifests differs, place by place, at most DIFFERENCES_SHOWN; when they were written does not count."""
    names = [[target.name for target in manifest.targets] for manifest in (earlier, now)]
    if names[0] != names[1]:
        return [f"the targets were {', '.join(names[0])}, and are {', '.join(names[1])}"]
    before, after = (dict(_leaves(manifest.model_dump(mode="json"))) for manifest in (earlier, now))
    found = [
        f"{place} was {_shown(before.get(place))}, is {_shown(after.get(place))}"
        for place in {**before, **after}
        if place != "created_at" and before.get(place) != after.get(place)
    ]
    more = len(found) - DIFFERENCES_SHOWN
    return [*found[:DIFFERENCES_SHOWN], f"and {more} more"] if more > 0 else found


class _Runner:
    """One part of a run, from its start to its end or to where it was stopped."""

    def __init__(
        self,
        plan: Plan,
        earlier: Run,
        specs: Sequence[TargetSpec],
        manifest: Manifest,
        *,
        cache: Cache | None,
        judge: CountedJudge | None,
        progress: RunProgress,
    ) -> None:
        self._plan = plan
        self._specs = specs
        self._cache = cache
        self._judge = judge
        self._progress = progress
        self._manifest = earlier.manifest or manifest
        self._known = {(one.item, one.target, one.repeat): one for one in earlier.outcomes}
        self._stopping = asyncio.Event()
        self._checks = asyncio.Semaphore(CHECKS_AT_ONCE)
        self._errors_in_a_row = 0
        self._asking: set[asyncio.Task[None]] = set()
        self._interruptible = False
        self.summary = Summary()
        for outcome in earlier.everything:
            plan.budget.spent += paid_since(outcome, self._manifest.created_at)

    async def go(self, log: OutcomeLog) -> None:
        """Ask what is left, target by target."""
        began = time.monotonic()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._interrupt)
        try:
            with self._progress:
                for target, spec in zip(self._plan.targets, self._specs, strict=True):
                    if not self._stopping.is_set():
                        await self._through(target, spec, log)
            if not self._stopping.is_set():
                for target in self._plan.targets:
                    target.tidy_up()
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)
            self._sum_up(time.monotonic() - began)

    def _interrupt(self) -> None:
        if self._stopping.is_set():
            for task in self._asking:
                task.cancel()
            return
        self._stop("it was interrupted")
        if self._interruptible:
            for task in self._asking:
                task.cancel()
        else:
            self._progress.note("stopping: what was asked is waited for, since it is paid for; once more = do not wait")

    def _stop(self, why: str) -> None:
        if not self._stopping.is_set():
            self.summary.stopped = why
            self._stopping.set()

    async def _through(self, opens: Opens, spec: TargetSpec, log: OutcomeLog) -> None:
        wanted = [(item, repeat) for repeat in range(self._plan.repeats) for item in self._plan.items]
        there = [
            self._known[key] for item, repeat in wanted if (key := (item.task.id, spec.name, repeat)) in self._known
        ]
        self._progress.target(spec.name, total=len(wanted), before=there)
        left = [(item, repeat) for item, repeat in wanted if self._open(item, spec, repeat)]
        self.summary.before += len(wanted) - len(left)
        left = [(item, repeat) for item, repeat in left if not await self._from_cache(item, spec, repeat, log)]
        if left and not self._stopping.is_set():
            self._errors_in_a_row = 0
            async with opens.open(spec) as target:
                await self._ask_all(target, left, opens.definition.concurrency or self._plan.concurrency, log)
        self._progress.end_target()

    def _open(self, item: Item, spec: TargetSpec, repeat: int) -> bool:
        known = self._known.get((item.task.id, spec.name, repeat))
        return known is None or (self._plan.retry_errors and known.final.status is Status.errored)

    async def _from_cache(self, item: Item, spec: TargetSpec, repeat: int, log: OutcomeLog) -> bool:
        if self._cache is None or self._stopping.is_set():
            return False
        key, grading = content_key(item, spec, repeat), self._grading_key(item)
        found = self._cache.get(key, grading)
        if found is None:
            return False
        graded, known = found
        outcome = known if graded == grading else await self._graded_anew(item, known)
        if outcome is None:
            return False
        outcome = outcome.model_copy(update={"item": item.task.id, "target": spec.name, "repeat": repeat})
        self._write(outcome, log, cached=True)
        self.summary.cached += 1
        if graded != grading:
            self._cache.put(key, grading, outcome)
        return True

    async def _graded_anew(self, item: Item, known: Outcome) -> Outcome | None:
        """Return what another run paid for with this run's grading; None = its judge might exceed the budget."""
        if self._judge is not None and not self._admits(GRADER):
            return None
        budget = self._plan.budget
        budget.begin(GRADER)
        try:
            anew = await regrade(item, known, judge=self._judge)
        except BaseException:
            budget.end(GRADER, None)
            raise
        budget.end(GRADER, anew)
        asking = {role: spent for role, spent in known.spent.items() if role != GRADER}
        # The time of the asking, which another run paid for.
        return anew.model_copy(
            update={"spent": asking | anew.spent, "at": known.at, "judged_at": anew.at if anew.spent else None}
        )

    async def _ask_all(
        self, target: Target, left: Sequence[tuple[Item, int]], concurrency: int, log: OutcomeLog
    ) -> None:
        questions = iter(left)
        self._interruptible = target.interruptible
        async with _first_error_only() as group:
            self._asking = {
                group.create_task(self._ask_in_turn(target, questions, log)) for _ in range(min(concurrency, len(left)))
            }
        self._asking = set()
        log.sync()

    async def _ask_in_turn(self, target: Target, questions: Iterator[tuple[Item, int]], log: OutcomeLog) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            while not self._stopping.is_set():
                if not self._admits(target.spec.name):
                    return
                question = next(questions, None)
                if question is None:
                    return
                await self._ask(target, *question, log)

    def _admits(self, name: str) -> bool:
        """Whether the budget allows one more of these; where it does not, the run stops."""
        admitted = self._plan.budget.admits(name)
        if not admitted:
            self._stop(f"the budget of {self._plan.budget.exhausted} would be exceeded")
        return admitted

    async def _ask(self, target: Target, item: Item, repeat: int, log: OutcomeLog) -> None:
        budget, name = self._plan.budget, target.spec.name
        key = content_key(item, target.spec, repeat)
        budget.begin(name)
        began = time.monotonic()
        try:
            answered = await target.ask(item, repeat, key=self._question_key(key))
            seconds = time.monotonic() - began
            async with self._checks:
                outcome = await grade(item, name, repeat, answered, seconds=seconds, judge=self._judge)
        except HOPELESS as exc:
            budget.end(name, None)
            self._stop(f"every other question would fail as well: {exc}")
            return
        except BaseException:
            budget.end(name, None)
            raise
        budget.end(name, outcome)
        self._write(outcome, log, cached=False)
        self.summary.asked += 1
        await asyncio.to_thread(log.sync)
        if self._cache is not None:
            self._cache.put(key, self._grading_key(item), outcome)
        self._watch(name, outcome)

    def _question_key(self, key: str) -> str:
        """Return what a job is found again by: without a cache by this run alone."""
        return key if self._cache is not None else f"{key}:{self._manifest.created_at}"

    def _watch(self, name: str, outcome: Outcome) -> None:
        self._errors_in_a_row = self._errors_in_a_row + 1 if outcome.final.status is Status.errored else 0
        if self._errors_in_a_row >= ERRORS_IN_A_ROW_MAX:
            self._stop(
                f"{ERRORS_IN_A_ROW_MAX} questions in a row came to nothing at {name} (last: {outcome.final.reason})"
            )

    def _write(self, outcome: Outcome, log: OutcomeLog, *, cached: bool) -> None:
        log.append(outcome)
        self._known[outcome.item, outcome.target, outcome.repeat] = outcome
        self._progress.add(outcome, cached=cached)

    def _grading_key(self, item: Item) -> str:
        return grading_key(item, self._manifest.grader_sha256, self._manifest.judge)

    def _sum_up(self, seconds: float) -> None:
        summary = self.summary
        summary.seconds = seconds
        for outcome in self._known.values():
            status = outcome.final.status.value
            summary.statuses[status] = summary.statuses.get(status, 0) + 1
        summary.left = len(self._plan.items) * len(self._plan.targets) * self._plan.repeats - len(self._known)


@contextlib.asynccontextmanager
async def _first_error_only() -> AsyncGenerator[asyncio.TaskGroup]:
    """A task group whose error is the first one itself, not a group of errors."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except BaseExceptionGroup as exc:
        raise exc.exceptions[0] from exc


def _leaves(value: JsonValue, place: str = "") -> Iterator[tuple[str, JsonValue]]:
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _leaves(part, f"{place}.{name}" if place else name)
    elif isinstance(value, list):
        for number, part in enumerate(value):
            label = part.get("name", number) if isinstance(part, dict) else number
            yield from _leaves(part, f"{place}[{label}]")
    else:
        yield place, value


def _shown(value: JsonValue) -> str:
    text = "not there" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= TEXT_CHARS_SHOWN else text[: TEXT_CHARS_SHOWN - 1] + "…"
