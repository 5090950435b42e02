"""A world in virtual time for the state machine: unreliable messages, workers that die or stall, a sweeper, a client.

The world talks to `Books`, the contract of the store. `MemoryBooks` is the contract in its plainest form;
`tests/workers/test_simulation_sql.py` plays the same world on the real store.
"""

import heapq
import random
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Protocol

from k2think.agents.pipeline import SCREEN_INPUT, SCREEN_OUTPUT, advance, first_step
from k2think.schemas.completion import FinishReason, TokenUsage
from k2think.schemas.jobs import JobError, JobStatus, SolveRequest
from k2think.schemas.messages import ComparePair, Envelope, GenerateCandidate, MakePlan, ScreenInput, ScreenOutput
from k2think.schemas.outcomes import (
    Candidate,
    Compared,
    Planned,
    Preference,
    Screened,
    ScreenVerdict,
    StepFailure,
    StepResult,
    StepStatus,
    StepView,
)
from k2think.schemas.policy import Policy
from k2think.schemas.progress import Decision, Ending, JobView

LEASE_S = 15.0
ATTEMPTS_MAX = 3
SWEEP_S = 1.0
TOKENS_PER_STEP = 10


@dataclass
class MemoryStep:
    """A row of the step table."""

    view: StepView
    body: object
    fence: int = 0
    lease_until: float = 0.0
    due_at: float = 0.0


class Books(Protocol):
    """The store's contract, for one job."""

    def accept(self, request: SolveRequest, now: float) -> list[Envelope]: ...
    def claim(self, envelope: Envelope, now: float) -> bool: ...
    def finish(self, envelope: Envelope, result: StepResult, now: float) -> list[Envelope] | None: ...
    def fail(self, envelope: Envelope, *, retry_at: float | None, now: float) -> list[Envelope] | None: ...
    def beat(self, envelope: Envelope, now: float) -> bool: ...
    def sweep(self, now: float) -> list[Envelope]: ...
    def cancel(self, now: float) -> None: ...
    def job(self) -> JobView: ...
    def endings(self) -> int: ...
    def ending(self) -> Ending | None: ...
    def leases(self) -> int: ...


class MemoryBooks:
    """The contract in its plainest form."""

    def __init__(self) -> None:
        self.steps: dict[str, MemoryStep] = {}
        self.view: JobView | None = None
        self.ended: list[Ending] = []
        self.wake_at: float | None = None

    def accept(self, request: SolveRequest, now: float) -> list[Envelope]:
        self.view = JobView("job", "default", JobStatus.queued, request, created_at=now, started_at=None)
        return self._apply(Decision(create=(first_step(request),)), now)

    def claim(self, envelope: Envelope, now: float) -> bool:
        step = self.steps[envelope.step]
        if self.job().status.final or step.view.status is not StepStatus.ready or step.fence != envelope.attempt - 1:
            return False
        step.fence += 1
        step.lease_until = now + LEASE_S
        step.view = step.view.model_copy(update={"status": StepStatus.running})
        if self.view is not None and self.view.started_at is None:
            self.view = replace(self.view, started_at=now, status=JobStatus.running)
        return True

    def _held(self, envelope: Envelope) -> MemoryStep | None:
        step = self.steps[envelope.step]
        return step if step.view.status is StepStatus.running and step.fence == envelope.attempt else None

    def finish(self, envelope: Envelope, result: StepResult, now: float) -> list[Envelope] | None:
        step = self._held(envelope)
        if step is None:
            return None
        usage = TokenUsage(completion=TOKENS_PER_STEP)
        step.view = step.view.model_copy(update={"status": StepStatus.done, "result": result, "usage": usage})
        return self._advance(now)

    def fail(self, envelope: Envelope, *, retry_at: float | None, now: float) -> list[Envelope] | None:
        step = self._held(envelope)
        if step is None:
            return None
        if retry_at is not None:
            step.view = step.view.model_copy(update={"status": StepStatus.ready})
            step.due_at = retry_at
            return []
        self._fail(step)
        return self._advance(now)

    def _fail(self, step: MemoryStep) -> None:
        failure = StepFailure(code="backend_overloaded", message="simulated")
        step.view = step.view.model_copy(update={"status": StepStatus.failed, "failure": failure})

    def beat(self, envelope: Envelope, now: float) -> bool:
        step = self._held(envelope)
        if step is not None:
            step.lease_until = now + LEASE_S
        return step is not None

    def sweep(self, now: float) -> list[Envelope]:
        messages: list[Envelope] = []
        for step in list(self.steps.values()):
            if step.view.status is StepStatus.running and step.lease_until < now:
                if step.fence >= ATTEMPTS_MAX:
                    self._fail(step)
                    messages += self._advance(now)
                else:
                    step.view = step.view.model_copy(update={"status": StepStatus.ready})
                    step.due_at = now
        if self.wake_at is not None and self.wake_at <= now and not self.job().status.final:
            messages += self._advance(now)
        for step in self.steps.values():
            if step.view.status is StepStatus.ready and step.due_at <= now:
                step.due_at = now + 5.0
                messages.append(self._envelope(step))
        return messages

    def cancel(self, now: float) -> None:
        if not self.job().status.final:
            error = JobError(code="cancelled", message="by the client")
            self._apply(Decision(ending=Ending(JobStatus.cancelled, error=error)), now)

    def job(self) -> JobView:
        if self.view is None:
            raise RuntimeError("no job was accepted")
        return replace(self.view, steps={name: step.view for name, step in self.steps.items()})

    def endings(self) -> int:
        return len(self.ended)

    def ending(self) -> Ending | None:
        return self.ended[0] if self.ended else None

    def leases(self) -> int:
        return sum(step.view.status is StepStatus.running for step in self.steps.values())

    def _envelope(self, step: MemoryStep) -> Envelope:
        return Envelope(job_id="job", step=step.view.name, attempt=step.fence + 1, body=step.body)

    def _advance(self, now: float) -> list[Envelope]:
        return self._apply(advance(self.job(), now=now), now)

    def _apply(self, decision: Decision, now: float) -> list[Envelope]:
        if decision.undecided:
            raise AssertionError("the simulated answers are all decided by the quick rules")
        if self.job().status.final:
            return []
        cancelled = set(decision.cancel)
        if decision.ending is not None:
            self.ended.append(decision.ending)
            self.view = replace(self.view, status=decision.ending.status) if self.view is not None else None
            cancelled = set(self.steps)
        for name in cancelled:
            if not self.steps[name].view.status.final:
                step = self.steps[name]
                step.view = step.view.model_copy(update={"status": StepStatus.cancelled})
        self.wake_at = decision.wake_at
        messages: list[Envelope] = []
        for new in decision.create:
            if new.name not in self.steps:
                view = StepView(name=new.name, status=StepStatus.ready)
                self.steps[new.name] = MemoryStep(view, new.body, due_at=now + 5.0)
                messages.append(self._envelope(self.steps[new.name]))
        return messages


@dataclass(order=True)
class _Event:
    at: float
    order: int
    kind: str = field(compare=False)
    envelope: Envelope | None = field(default=None, compare=False)


class World:
    """One seeded run of one job."""

    def __init__(self, seed: int, books: Books) -> None:
        self.random = random.Random(seed)
        self.books = books
        self.now = 1_000.0
        self.events: list[_Event] = []
        self.order = 0
        self.starts: Counter[str] = Counter()
        self.started_after_end: list[str] = []
        self.trouble = self.random.choice([0.0, 0.1, 0.3, 0.5])
        self.request = self._request()

    def _request(self) -> SolveRequest:
        pick = self.random.choice
        policy = Policy.model_validate(
            {
                "preset": pick(["default", "default", "paper"]),
                "n": self.random.randint(1, 5),
                "plan": pick(["shared", "per_sample", "off"]),
                "selection": pick(["consensus_then_pairwise", "pairwise", "vote", "first", None]),
                "early_stop": pick([True, True, False]),
                "swap_order": pick([True, False]),
                "soft_timeout_s": pick([None, None, 5.0, 30.0]),
                "deadline_s": pick([600.0, 600.0, 40.0]),
                "token_budget": pick([None, None, None, 35]),
            }
        )
        return SolveRequest(problem="What is 6 times 7?", policy=policy)

    def run(self) -> JobView:
        """Play until nothing happens any more; every job must have ended long before."""
        self._send(self.books.accept(self.request, self.now))
        self._at(SWEEP_S, "sweep")
        if self.random.random() < 0.1:
            self._at(self.random.uniform(0, 40), "cancel")
        horizon = self.now + self.request.policy.deadline_s + 120.0
        while self.events and self.events[0].at < horizon:
            event = heapq.heappop(self.events)
            self.now = max(self.now, event.at)
            self._handle(event)
        return self.books.job()

    def _at(self, delay: float, kind: str, envelope: Envelope | None = None) -> None:
        self.order += 1
        heapq.heappush(self.events, _Event(self.now + delay, self.order, kind, envelope))

    def _send(self, envelopes: list[Envelope]) -> None:
        """Messages are dropped, delayed (so reordered) and duplicated."""
        for envelope in envelopes:
            if self.random.random() < self.trouble:
                trouble = self.random.choice(["drop", "delay", "twice", "thrice"])
                copies = {"drop": 0, "delay": 1, "twice": 2, "thrice": 3}[trouble]
                for _ in range(copies):
                    self._at(self.random.uniform(0, 25), "message", envelope)
            else:
                self._at(self.random.uniform(0.001, 0.01), "message", envelope)

    def _handle(self, event: _Event) -> None:
        match event.kind, event.envelope:
            case "sweep", _:
                self._send(self.books.sweep(self.now))
                if not self.books.job().status.final or self.books.leases():
                    self._at(SWEEP_S, "sweep")
            case "cancel", _:
                self.books.cancel(self.now)
            case "message", Envelope() as envelope:
                self._on_message(envelope)
            case "beat", Envelope() as envelope:
                if self.books.beat(envelope, self.now):
                    self._at(5.0, "beat", envelope)
            case "done", Envelope() as envelope:
                self._on_done(envelope)
            case _:
                raise AssertionError(event)

    def _on_message(self, envelope: Envelope) -> None:
        ended = self.books.job().status.final
        if not self.books.claim(envelope, self.now):
            return
        if ended:
            self.started_after_end.append(envelope.step)
        self.starts[envelope.step] += 1
        fate = self.random.random()
        if fate < self.trouble / 4:
            return  # the worker dies: no result, no heartbeat
        work_s = self.random.choice([0.01, 0.5, 3.0, 12.0])
        if fate < self.trouble / 2:
            work_s += 2 * LEASE_S  # the worker stands still past its lease, then wakes and reports
        else:
            self._at(5.0, "beat", envelope)
        self._at(work_s, "done", envelope)

    def _on_done(self, envelope: Envelope) -> None:
        if self.random.random() < self.trouble / 4:
            again = self.starts[envelope.step] < ATTEMPTS_MAX and self.random.random() < 0.7
            retry_at = self.now + self.random.uniform(0.5, 4) if again else None
            self._send(self.books.fail(envelope, retry_at=retry_at, now=self.now) or [])
            return
        self._send(self.books.finish(envelope, self._result(envelope), self.now) or [])

    def _result(self, envelope: Envelope) -> StepResult:
        pick = self.random.choice
        match envelope.body:
            case ScreenInput():
                return Screened(verdict=pick([ScreenVerdict.safe] * 20 + [ScreenVerdict.unsafe, ScreenVerdict.error]))
            case ScreenOutput():
                return Screened(verdict=pick([ScreenVerdict.safe] * 20 + [ScreenVerdict.unsafe, ScreenVerdict.error]))
            case MakePlan():
                return Planned(plan=pick(["multiply", None]))
            case GenerateCandidate(candidate=index):
                answer = pick(["42", "42", "42.0", "41", "7", None])
                finish = pick([FinishReason.stop] * 9 + [FinishReason.length])
                return Candidate(index=index, content=answer or "", answer=answer, finish_reason=finish)
            case ComparePair(first=first, second=second):
                return Compared(
                    first=first, second=second, preference=pick(list(Preference)), usable=pick([True, True, False])
                )


def check_invariants(world: World, job: JobView) -> None:
    """Every promise of the design, on one finished run. Raises AssertionError that names the broken one."""
    books, policy = world.books, job.request.policy
    ending = books.ending()
    assert job.status.final, "an accepted job always ends"
    assert books.endings() == 1, "a job ends exactly once"
    assert ending is not None
    assert ending.status is job.status
    assert not world.started_after_end, "no step starts after its job has ended"
    assert books.leases() == 0, "no lease is left after the end"
    assert all(step.status.final for step in job.steps.values()), "no step is left waiting after the end"
    assert all(count <= ATTEMPTS_MAX for count in world.starts.values()), "a step never starts more than three times"
    finished = {step.result.index: step.result for step in job.steps.values() if isinstance(step.result, Candidate)}
    for step in job.steps.values():
        if step.name.startswith("compare-"):
            first, second = (int(part) for part in step.name.split("-")[1:])
            assert {first, second} <= set(finished), "only finished candidates are compared"
            assert first != second
            assert policy.selection not in ("vote", "first"), "no judge where the policy has none"
    generated = [name for name in job.steps if name.startswith("generate-")]
    assert len(generated) <= policy.n
    screened = job.steps[SCREEN_INPUT].result
    if generated or any(name.startswith("plan") for name in job.steps):
        assert isinstance(screened, Screened)
        assert screened.verdict is ScreenVerdict.safe, "nothing is generated for a request that was not let through"
    if job.status is JobStatus.succeeded:
        released = job.steps[SCREEN_OUTPUT].result
        assert isinstance(released, Screened)
        assert released.verdict is ScreenVerdict.safe, "nothing is shown unscreened"
        winner = finished[ending.winner if ending.winner is not None else -1]
        assert winner.answer is not None, "the winner has an answer"
        assert winner.finish_reason is FinishReason.stop, "a cut-off candidate never wins"
        _check_majority(job, winner, finished)
    else:
        assert ending.error is not None, "a job without an answer says why"


def _check_majority(job: JobView, winner: Candidate, finished: dict[int, Candidate]) -> None:
    policy = job.request.policy
    if policy.selection not in (None, "consensus_then_pairwise", "vote"):
        return
    usable = [item for item in finished.values() if item.answer and item.finish_reason is FinishReason.stop]
    votes = Counter(float(item.answer or 0) for item in usable)
    answer, count = votes.most_common(1)[0]
    if 2 * count > policy.n:
        assert float(winner.answer or 0) == answer, "a strict majority wins"
        if policy.selection is None or policy.selection == "consensus_then_pairwise":
            compared = [name for name in job.steps if name.startswith("compare-")]
            assert not compared, "a strict majority needs no judge"
