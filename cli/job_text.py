"""A job in words: its result, and why it came to it."""

from collections.abc import Iterator

from ..schemas.jobs import SelectionReport, SolveResult
from ..schemas.messages import AgentKind
from ..schemas.outcomes import StepStatus
from ..schemas.policy import Selection
from ..schemas.trace import AttemptOutcome, JobTrace, StepTrace
from .terminal import age, one_line

ANSWER_CHARS = 60
REASON_CHARS = 300
_METHODS = {
    Selection.consensus_then_pairwise: "equal answers first, then a judge on disagreement",
    Selection.pairwise: "a judge compared all candidates in pairs",
    Selection.vote: "the largest group of equal answers wins",
    Selection.first: "the first usable candidate wins",
}
_ENDED_BADLY = (AttemptOutcome.failed, AttemptOutcome.lost, AttemptOutcome.stale, AttemptOutcome.released)


def result_lines(result: SolveResult) -> list[str]:
    """Return the result as lines: answer, selection, usage, timings."""
    lines = [f"job        {result.job_id}", f"status     {result.status.value}"]
    if result.error is not None:
        lines.append(f"error      {result.error.code}: {result.error.message}")
    if result.answer is not None:
        lines.append(f"answer     {result.answer}")
    if result.selection is not None:
        lines.append(f"selection  {_selection_line(result.selection)}")
    if result.plan:
        lines.append(f"plan       {one_line(result.plan, chars=REASON_CHARS)}")
    lines += [f"tokens     {_usage_line(result)}", f"seconds    {_timings_line(result)}"]
    lines += [f"metadata   {name}={value}" for name, value in result.metadata.items()]
    if result.content:
        lines += ["", result.content]
    return lines


def choice_line(selection: SelectionReport) -> str:
    """Return among how many candidates the winner was chosen, and by what."""
    finished = _finished(selection)
    if finished == 1:
        return "1 candidate"
    if not selection.clusters:
        chosen = f"chosen among {finished} finished candidates"
    else:
        chosen = f"{selection.votes} of {finished} finished candidates agree"
    compared = len(selection.comparisons)
    return f"{chosen}, {_counted(compared, 'comparison')}" if compared else chosen


def _finished(selection: SelectionReport) -> int:
    """Return how many candidates the report names."""
    named = {index for group in selection.clusters for index in group} | set(selection.disqualified)
    named |= {index for comparison in selection.comparisons for index in (comparison.first, comparison.second)}
    return len(named if selection.winner is None else named | {selection.winner})


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def why_lines(trace: JobTrace) -> list[str]:
    """Return the explanation of a job that ended, or where it stands."""
    result = trace.result
    lines = [f"job {trace.job_id}: {trace.status.value}", f"problem: {_problem(trace)}"]
    if result is None:
        lines += [f"It has not ended; it was accepted {age(trace.created_at)} ago.", *_standing(trace)]
    else:
        if result.answer is not None:
            lines.append(f"answer: {one_line(result.answer, chars=REASON_CHARS)}")
        if result.error is not None:
            lines.append(f"because: {result.error.message} ({result.error.code})")
        lines += _choice(result, trace)
    lines += _trouble(trace)
    if result is not None:
        lines += [f"tokens: {_usage_line(result)}", f"seconds: {_timings_line(result)}"]
    return lines


def _problem(trace: JobTrace) -> str:
    return one_line(trace.request.conversation[-1].content, chars=REASON_CHARS)


def _standing(trace: JobTrace) -> Iterator[str]:
    for step in trace.steps:
        yield f"  {step.name}: {step.status.value}"


def _choice(result: SolveResult, trace: JobTrace) -> Iterator[str]:
    selection = result.selection
    if selection is None:
        yield "It never came to a choice among candidates."
        return
    answers = _answers(trace)
    policy = trace.request.policy
    sampled = sum(step.kind == "generate_candidate" for step in trace.steps)
    finished = sum(step.kind == "generate_candidate" and step.status is StepStatus.done for step in trace.steps)
    yield f"candidates: {policy.n} wanted, {sampled} started, {finished} finished"
    yield f"method: {selection.method.value} ({_METHODS[selection.method]})"
    for group in selection.clusters:
        mark = "won" if selection.winner in group else "lost"
        who = ", ".join(str(index) for index in group)
        yield f"  {mark}: {len(group)} of {policy.n} gave {answers.get(group[0], '?')} (candidate {who})"
    for index, reason in sorted(selection.disqualified.items()):
        yield f"  out: candidate {index}: {one_line(reason, chars=REASON_CHARS)}"
    for comparison in selection.comparisons:
        verdict = "a tie" if comparison.winner is None else f"candidate {comparison.winner}"
        if not comparison.usable:
            verdict = "no usable verdict, counted as a tie"
        reason = f": {one_line(comparison.reason, chars=REASON_CHARS)}" if comparison.reason else ""
        yield f"  judged: candidate {comparison.first} shown before {comparison.second} → {verdict}{reason}"
    if len(selection.clusters) == 1 and not selection.comparisons and sampled > 1 and selection.votes > 1:
        yield "No judge was asked: the answers agree."


def _answers(trace: JobTrace) -> dict[int, str]:
    answers: dict[int, str] = {}
    for step in trace.steps:
        if step.kind == "generate_candidate" and step.result is not None:
            text = step.result.get("answer") or step.result.get("content") or ""
            answers[int(step.result.get("index", -1))] = repr(one_line(str(text), chars=ANSWER_CHARS))
    return answers


def _trouble(trace: JobTrace) -> Iterator[str]:
    for step in trace.steps:
        for attempt in step.attempts:
            if attempt.outcome in _ENDED_BADLY:
                reason = f": {one_line(attempt.error.message, chars=REASON_CHARS)}" if attempt.error else ""
                yield f"  {step.name}, attempt {attempt.attempt}: {attempt.outcome.value}{reason}"
            if attempt.call is not None and attempt.call.retries:
                yield f"  {step.name}, attempt {attempt.attempt}: {attempt.call.retries} refused calls were tried again"
        if step.status is StepStatus.failed and not _told(step):
            reason = one_line(step.failure.message, chars=REASON_CHARS) if step.failure else "no reason was recorded"
            yield f"  {step.name}: failed: {reason}"


def _told(step: StepTrace) -> bool:
    return bool(step.attempts) and step.attempts[-1].error is not None


def _selection_line(selection: SelectionReport) -> str:
    sizes = " / ".join(str(len(group)) for group in selection.clusters)
    parts = [selection.method.value]
    if selection.winner is not None:
        votes = f"with {_counted(selection.votes, 'vote')}" if selection.clusters else f"of {_finished(selection)}"
        parts.append(f"candidate {selection.winner} {votes}")
    if sizes:
        parts.append(f"groups of {sizes}")
    if selection.disqualified:
        parts.append(f"{len(selection.disqualified)} out")
    if selection.comparisons:
        parts.append(_counted(len(selection.comparisons), "comparison"))
    return ", ".join(parts)


def _usage_line(result: SolveResult) -> str:
    usage = result.usage
    by_agent = {
        AgentKind.planner: usage.planner,
        AgentKind.generator: usage.generator,
        AgentKind.verifier: usage.verifier,
        AgentKind.safety: usage.safety,
    }
    parts = [
        f"{agent.value} {tokens.total:,} in {usage.calls.get(agent.value, 0)} calls"
        for agent, tokens in by_agent.items()
        if usage.calls.get(agent.value)
    ]
    wasted = f"; {usage.wasted_tokens:,} of cancelled or failed calls" if usage.wasted_tokens else ""
    return f"{usage.total.total:,} ({', '.join(parts)}{wasted})" if parts else "none: no model was called"


def _timings_line(result: SolveResult) -> str:
    timings = result.timings
    stages = (
        ("queue", timings.queue),
        ("plan", timings.plan),
        ("generate", timings.generate),
        ("verify", timings.verify),
        ("screen", timings.screen),
    )
    return f"{timings.total:.2f} ({', '.join(f'{name} {seconds:.2f}' for name, seconds in stages if seconds)})"
