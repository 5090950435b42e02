"""The state machine of a job: a pure function from what is known to what happens next.

    screen_input ─ plan ─┬─ generate-0 ─┐
                         ├─ generate-1 ─┼─ compare-i-j … ─ screen_output ─ ending
                         ├─ generate-2 ─┘
                         └─ screen_plan     (policy.show_plan; nothing waits for it)

`advance` does no I/O and reads no clock but `now`. It is called after every step's end and at `Decision.wake_at`, in
any order and any number of times: what it creates has names derived from its meaning, so that asking twice changes
nothing, and what is over is recognised by what exists (a comparison or an output screening means that sampling ended).
"""

from dataclasses import dataclass

from ..grading.equivalence import quick
from ..schemas.completion import FinishReason
from ..schemas.jobs import CUT_OFF, JobError, JobStatus, SolveRequest
from ..schemas.messages import ComparePair, GenerateCandidate, MakePlan, ScreenInput, ScreenOutput, ScreenPlan
from ..schemas.outcomes import Candidate, CheckStatus, Compared, Planned, Screened, ScreenVerdict, StepView
from ..schemas.policy import Plan, Selection
from ..schemas.progress import Decision, Ending, JobView, NewStep
from .selection import Clusters, Field, Tournament, cluster, has_majority, play, report, sort_out

SCREEN_INPUT = "screen_input"
SCREEN_OUTPUT = "screen_output"
SHARED_PLAN = "plan"
SCREEN_PLAN = f"screen_{SHARED_PLAN}"


def plan_step(candidate: int | None) -> str:
    """Name of a plan's step; None = the plan that all candidates share."""
    return SHARED_PLAN if candidate is None else f"plan-{candidate}"


def generate_step(candidate: int) -> str:
    """Name of a candidate's step."""
    return f"generate-{candidate}"


def compare_step(first: int, second: int) -> str:
    """Name of a comparison's step; `first` is shown first."""
    return f"compare-{first}-{second}"


def first_step(request: SolveRequest) -> NewStep:
    """The step that every job begins with."""
    return NewStep(SCREEN_INPUT, ScreenInput(messages=request.conversation))


def advance(job: JobView, *, now: float) -> Decision:
    """Return what happens next.

    `now` is a Unix time in seconds. The job's ending is returned at most once per state: a job whose status is final
    gets an empty decision.
    """
    if job.status.final:
        return Decision()
    if now >= job.deadline_at:
        return _end(
            JobStatus.expired, "expired", f"not finished within {job.request.policy.deadline_s:g} s (policy.deadline_s)"
        )
    for stage in (_screen_input, _sample, _finish):
        decision = stage(job, now)
        if decision is not None:
            return decision
    return _wait(job)


def _screen_input(job: JobView, now: float) -> Decision | None:
    step = job.steps.get(SCREEN_INPUT)
    if step is None:
        return _create(job, first_step(job.request))
    if not step.status.final:
        return _wait(job)
    return _withheld(step, "the request")


def _sample(job: JobView, now: float) -> Decision | None:
    """Plan and sample until every candidate is there, the vote is settled, or time or tokens are up. None = sampling is over."""
    if _sampling_ended(job):
        return None
    missing = _missing_samples(job)
    waiting = missing or any(not step.status.final for step in _samplers(job))
    if not waiting:
        return None
    field = sort_out(_candidates(job), job.request)
    verdict = _settled(job, field)
    if isinstance(verdict, Clusters):
        return Decision(undecided=verdict.undecided)
    if verdict or (field.usable and _time_up(job, now)) or _tokens_up(job):
        return None
    if missing:
        return _create(job, *missing, now=now)
    return _wait(job, now=now)


def _finish(job: JobView, now: float) -> Decision | None:
    """Select, screen the winner, end."""
    unwanted = tuple(step.name for step in _samplers(job) if not step.status.final)
    field = sort_out(_candidates(job), job.request)
    if not field.usable:
        return Decision(ending=_without_answer(job, field))
    choice = _choose(job, field)
    if choice.tournament is None:
        return Decision(undecided=choice.undecided)
    if choice.tournament.winner is None:
        fresh = [pair for pair in choice.tournament.needed if compare_step(*pair) not in job.steps]
        create = [_compare(job, *pair) for pair in fresh]
        return _create(job, *create, cancel=unwanted) if create or unwanted else _wait(job)
    winner = next(item for item in field.usable if item.index == choice.tournament.winner)
    screening = job.steps.get(SCREEN_OUTPUT)
    if screening is None:
        return _create(job, _screen_output(job, winner), cancel=unwanted)
    if not screening.status.final:
        return _wait(job)
    withheld = _withheld(screening, "the answer")
    if withheld is not None:
        return withheld  # without the selection: the judge's reasons quote what is withheld
    selection = report(choice.method, field, choice.groups, winner.index, choice.tournament.comparisons)
    return Decision(ending=Ending(JobStatus.succeeded, winner=winner.index, selection=selection))


# --- sampling -----------------------------------------------------------------------------------------------------


def _samplers(job: JobView) -> list[StepView]:
    return [step for name, step in job.steps.items() if name == SHARED_PLAN or name.startswith(("plan-", "generate-"))]


def _sampling_ended(job: JobView) -> bool:
    return any(name == SCREEN_OUTPUT or name.startswith("compare-") for name in job.steps)


def _missing_samples(job: JobView) -> list[NewStep]:
    """Steps of planning and sampling that can be created now."""
    policy = job.request.policy
    conversation = job.request.conversation
    seed = policy.sampling.seed
    create: list[NewStep] = _missing_plan_screening(job)
    for index in range(policy.n):
        if generate_step(index) in job.steps:
            continue
        plan_of = {Plan.off: None, Plan.shared: SHARED_PLAN, Plan.per_sample: plan_step(index)}[policy.plan]
        if plan_of is not None and plan_of not in job.steps:
            for_candidate = index if policy.plan is Plan.per_sample else None
            body = MakePlan(
                messages=conversation, candidate=for_candidate, templates=policy.templates, seed=_seed(seed, index)
            )
            if all(step.name != plan_of for step in create):
                create.append(NewStep(plan_of, body))
            continue
        if plan_of is not None and not job.steps[plan_of].status.final:
            continue
        create.append(
            NewStep(
                generate_step(index),
                GenerateCandidate(
                    messages=conversation,
                    candidate=index,
                    plan=_plan_for(job, index),
                    sampling=policy.sampling.model_copy(update={"seed": _seed(seed, index)}),
                    checks=job.request.checks,
                    templates=policy.templates,
                    backend=policy.backend,
                ),
            )
        )
    return create


def _missing_plan_screening(job: JobView) -> list[NewStep]:
    """The screening of a shared plan that is to be shown; first, so that it is shown as soon as may be."""
    policy = job.request.policy
    plan = _plan_for(job, 0) if policy.show_plan and policy.plan is Plan.shared else None
    if plan is None or SCREEN_PLAN in job.steps:
        return []
    return [NewStep(SCREEN_PLAN, ScreenPlan(messages=job.request.conversation, plan=plan))]


def _seed(base: int | None, index: int) -> int | None:
    return None if base is None else (base + index) % 2**31


def _plan_for(job: JobView, index: int) -> str | None:
    """The plan of a candidate. A planner that failed degrades to no plan."""
    name = {Plan.off: "", Plan.shared: SHARED_PLAN, Plan.per_sample: plan_step(index)}[job.request.policy.plan]
    step = job.steps.get(name)
    return step.result.plan if step is not None and isinstance(step.result, Planned) else None


def _candidates(job: JobView) -> list[Candidate]:
    return [step.result for step in job.steps.values() if isinstance(step.result, Candidate)]


def _settled(job: JobView, field: Field) -> bool | Clusters:
    """Whether nothing that still runs can change the choice; Clusters when equalities must be found out first."""
    policy = job.request.policy
    if policy.selection is Selection.first:
        return bool(field.usable)
    if not policy.early_stop or policy.selection is Selection.pairwise or 2 * len(field.usable) <= policy.n:
        return _passed_tests(job, field)
    clusters = _cluster(job, field)
    if clusters.undecided:
        return clusters
    return has_majority(clusters.groups, n=policy.n) or _passed_tests(job, field)


def _passed_tests(job: JobView, field: Field) -> bool:
    """Unit tests settle the matter: one candidate that passes them all is enough."""
    stop = job.request.policy.early_stop and bool(job.request.checks.unit_tests)
    return stop and any(candidate.check is CheckStatus.passed for candidate in field.usable)


def _time_up(job: JobView, now: float) -> bool:
    soft = _soft_limit(job)
    return soft is not None and now >= soft


def _soft_limit(job: JobView) -> float | None:
    soft = job.request.policy.soft_timeout_s
    return None if soft is None else (job.started_at or job.created_at) + soft


def _tokens_up(job: JobView) -> bool:
    budget = job.request.policy.token_budget
    return budget is not None and sum(step.usage.total for step in job.steps.values()) >= budget


# --- selection ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Choice:
    method: Selection
    tournament: Tournament | None
    """None while equalities must be found out first."""
    groups: tuple[tuple[int, ...], ...] = ()
    undecided: tuple[tuple[int, int], ...] = ()


def _choose(job: JobView, field: Field) -> _Choice:
    policy = job.request.policy
    method = policy.selection or Selection.consensus_then_pairwise
    everyone = tuple(candidate.index for candidate in field.usable)
    if method is Selection.first or len(everyone) == 1 or job.request.checks.unit_tests:
        return _Choice(method, Tournament(everyone[0]), groups=(everyone[:1],))
    if method is Selection.pairwise:
        return _Choice(method, _tournament(job, everyone))
    clusters = _cluster(job, field)
    if clusters.undecided:
        return _Choice(method, None, undecided=clusters.undecided)
    groups = clusters.groups
    favourite = groups[0][0]
    if method is Selection.vote or len(groups) == 1 or has_majority(groups, n=policy.n):
        return _Choice(method, Tournament(favourite), groups)
    return _Choice(method, _tournament(job, [group[0] for group in groups]), groups)


def _tournament(job: JobView, entrants: tuple[int, ...] | list[int]) -> Tournament:
    verdicts: dict[tuple[int, int], Compared | None] = {}
    for first in entrants:
        for second in entrants:
            step = job.steps.get(compare_step(first, second))
            if step is not None and step.status.final:
                verdicts[first, second] = step.result if isinstance(step.result, Compared) else None
    tournament = play(entrants, verdicts, swap_order=job.request.policy.swap_order)
    unjudged = any(compare_step(*pair) not in job.steps for pair in tournament.needed)
    if unjudged and _tokens_up(job):
        return Tournament(tournament.leader, comparisons=tournament.comparisons)
    return tournament


def _cluster(job: JobView, field: Field) -> Clusters:
    form = job.request.checks.answer_form

    def same(left: Candidate, right: Candidate) -> bool | None:
        if left.answer is None or right.answer is None:
            return left.content == right.content
        known = job.equivalences.get((left.index, right.index))
        return quick(left.answer, right.answer, form=form) if known is None else known

    return cluster(field.usable, same)


def _compare(job: JobView, first: int, second: int) -> NewStep:
    content = {candidate.index: candidate.content for candidate in _candidates(job)}
    body = ComparePair(
        messages=job.request.conversation,
        first=first,
        second=second,
        first_answer=content[first],
        second_answer=content[second],
        templates=job.request.policy.templates,
        seed=job.request.policy.sampling.seed,
    )
    return NewStep(compare_step(first, second), body)


def _screen_output(job: JobView, winner: Candidate) -> NewStep:
    body = ScreenOutput(
        messages=job.request.conversation,
        candidate=winner.index,
        content=winner.content,
        reasoning=winner.reasoning,
        plan=_plan_for(job, winner.index),
    )
    return NewStep(SCREEN_OUTPUT, body)


# --- endings ------------------------------------------------------------------------------------------------------


def _without_answer(job: JobView, field: Field) -> Ending:
    selection = report(job.request.policy.selection or Selection.consensus_then_pairwise, field, (), None)
    if _tokens_up(job) and not _all_sampled(job):
        text = f"the token budget of {job.request.policy.token_budget:,} was spent before any candidate had an answer"
        return Ending(JobStatus.failed, selection=selection, error=JobError(code="token_budget", message=text))
    failures = [step.failure for step in job.steps.values() if step.name.startswith("generate-") and step.failure]
    if failures and not field.disqualified:
        text = f"every candidate failed; the first with: {failures[0].message}"
        return Ending(JobStatus.failed, selection=selection, error=JobError(code=failures[0].code, message=text))
    checks = [item for item in _candidates(job) if item.check is not CheckStatus.none]
    if any(item.check is CheckStatus.error for item in checks):
        detail = next(item.check_detail for item in checks if item.check is CheckStatus.error)
        error = JobError(code="checks_unavailable", message=f"the task's own checks could not be run: {detail}")
    elif any(item.check is CheckStatus.failed for item in checks):
        error = JobError(
            code="checks_failed", message="no candidate passed the task's own checks; the trace has each one's reason"
        )
    elif _all_cut_off(job):
        error = JobError(
            code=CUT_OFF, message="every candidate reached its token limit before its answer: allow more tokens"
        )
    else:
        reasons = "; ".join(f"candidate {index}: {reason}" for index, reason in field.disqualified.items())
        error = JobError(code="no_answer", message=f"no candidate came to an answer ({reasons})")
    return Ending(JobStatus.failed, selection=selection, error=error)


def _all_sampled(job: JobView) -> bool:
    """Whether every candidate was asked for and came to its end."""
    steps = [job.steps.get(generate_step(index)) for index in range(job.request.policy.n)]
    return all(step is not None and step.status.final for step in steps)


def _all_cut_off(job: JobView) -> bool:
    candidates = _candidates(job)
    return bool(candidates) and all(item.finish_reason is FinishReason.length for item in candidates)


def _withheld(step: StepView, what: str) -> Decision | None:
    """The ending that a screening demands; None when it let the text pass."""
    result = step.result
    if isinstance(result, Screened) and result.verdict is ScreenVerdict.safe:
        return None
    if isinstance(result, Screened) and result.verdict is ScreenVerdict.unsafe:
        return _end(JobStatus.refused, "refused", f"{what} was withheld: {result.category or 'not allowed'}")
    why = f" ({step.failure.message})" if step.failure else ""
    return _end(JobStatus.failed, "screening_failed", f"{what} could not be screened and was withheld{why}")


def _end(status: JobStatus, code: str, message: str) -> Decision:
    return Decision(ending=Ending(status, error=JobError(code=code, message=message)))


def _create(job: JobView, *steps: NewStep, cancel: tuple[str, ...] = (), now: float | None = None) -> Decision:
    return Decision(create=steps, cancel=cancel, wake_at=_wake_at(job, now))


def _wait(job: JobView, *, now: float | None = None) -> Decision:
    return Decision(wake_at=_wake_at(job, now))


def _wake_at(job: JobView, now: float | None) -> float:
    """The deadline, or the soft limit while sampling goes on (`now` given) and the limit is still ahead."""
    soft = _soft_limit(job)
    return min(job.deadline_at, soft) if now is not None and soft is not None and soft > now else job.deadline_at
