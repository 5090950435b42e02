"""Our own log into training data: what was solved trains the next model.

A solved job is written if there is evidence that its answer is right (a truth that says so, the task's own unit tests,
or a strict majority of at least two of its samples), and if today's screening rules let request and answer pass.
Nothing else of the log leaves the database: the rejects name jobs, never text.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue, ValidationError

from ...agents.safety import screen_by_rules
from ...grading.overlap import text_key
from ...schemas.checks import UnitTest
from ...schemas.completion import FinishReason
from ...schemas.errors import NotFound, explain
from ...schemas.evaluation import OverlapKind
from ...schemas.messages import ScreenInput, ScreenOutput
from ...schemas.outcomes import CheckStatus
from ...schemas.scores import Domain, Task
from ...store.database import Database
from ...store.solved import PAGE, SolvedJob, solved_jobs
from ...store.tenants import is_known
from ..records import SftExample, Turn, read_tasks
from .checking import Checked, Checks
from .choices import Evidence, Verify
from .converted import Rejected
from .evaluation_sets import EvaluationSets
from .folder import EXAMPLES_NAME, TASKS_NAME, DataFolder
from .manifest import DataManifest, SourceFile
from .progress import Counting
from .reading import file_sha256

SOURCE = "k2think_log"
MAJORITY_MIN = 2
"""Votes that a majority needs at least: one sample agrees with itself."""


@dataclass(frozen=True, slots=True)
class LogOptions:
    """What to take from the log."""

    tenants: tuple[str, ...] | None
    """Whose jobs; None = everybody's."""
    truths: Path | None = None
    """Problems with their truths, JSON lines of `Task`; None = none are known."""
    against: tuple[Path, ...] = ()
    """Evaluation sets to keep out."""
    weakest: OverlapKind = OverlapKind.fuzzy
    """Weakest kind of match with them that counts."""
    verify: Verify = Verify.known
    """What becomes of answers whose truth is known and cannot be checked."""
    evidence: tuple[Evidence, ...] = tuple(Evidence)
    """Kinds of evidence that are enough."""
    without_reasoning: bool = False
    """Whether answers without reasoning are taken, too."""
    overwrite: bool = False
    """Whether data that is in the folder already may go."""
    quiet: bool = False
    """Whether no progress is shown."""


@dataclass(frozen=True, slots=True)
class _Solved:
    job_id: str
    key: int
    example: SftExample
    task: Task | None
    evidence: Evidence
    """The strongest that there is, if the check of `task` bears it out."""
    fallback: Evidence | None
    """What there is without that check; None = nothing."""


async def from_log(database: Database, out: Path, options: LogOptions) -> DataManifest:
    """Write the log's solved jobs into the folder `out`, as `convert` does. Raises InvalidRequest, NotFound, StoreError."""
    for tenant in options.tenants or ():
        if not database.read_sync(lambda conn, tenant=tenant: is_known(conn, tenant)):
            raise NotFound(f"no tenant {tenant!r}: nobody of that name has a job, a key or limits")
    with DataFolder(out, overwrite=options.overwrite) as folder:
        run = _Extraction(database, folder, options)
        await run.work()
        sources = [SourceFile(name=database.place, sha256=run.digest.hexdigest(), records=folder.read)]
        if options.truths is not None:
            sources.append(
                SourceFile(name=str(options.truths), sha256=file_sha256(options.truths), records=len(run.truths))
            )
        return folder.finish(
            "from-log",
            sources=sources,
            against=run.sets.sources(),
            options=_told(options, run.evidence),
            checked=dict(run.checks.told()),
        )


class _Extraction:
    """One run over the log."""

    def __init__(self, database: Database, folder: DataFolder, options: LogOptions) -> None:
        self.database = database
        self.folder = folder
        self.options = options
        self.sets = EvaluationSets(options.against, weakest=options.weakest)
        self.checks = Checks(options.verify)
        self.evidence: Counter[str] = Counter()
        self.digest = hashlib.sha256()
        """Of the ids of the jobs that were looked at: the same log gives the same."""
        self.truths: dict[bytes, Task] = {}
        if options.truths is not None:
            self.truths = {text_key(task.prompt): task for task in read_tasks(options.truths)}
        self._written: set[int] = set()

    async def work(self) -> None:
        with Counting("reading the log", quiet=self.options.quiet) as shown:
            answers = ((solved, solved.task, solved.example.messages[-1].content) for solved in self._usable())
            async for checked in self.checks.run(answers):
                self._take(checked)
                rejected = self.folder.rejected.total()
                shown.tell(read=self.folder.read, written=self.folder.written, rejected=rejected)

    def _usable(self) -> Iterator[_Solved]:
        for job in self._jobs():
            try:
                solved = self._solved(job)
            except Rejected as exc:
                self.folder.reject(f"job {job.job_id}", exc.reason, exc.detail)
            else:
                yield solved

    def _jobs(self) -> Iterator[SolvedJob]:
        after = ""
        while True:
            last = after
            page = self.database.read_sync(
                lambda conn, last=last: solved_jobs(conn, tenants=self.options.tenants, after=last, limit=PAGE)
            )
            for job in page:
                self.folder.read += 1
                self.digest.update(f"{job.job_id}\n".encode())
                yield job
            if len(page) < PAGE:
                return
            after = page[-1].job_id

    def _solved(self, job: SolvedJob) -> _Solved:
        problem = job.request.conversation[-1].content
        key = int.from_bytes(text_key(problem)[:8])
        known = self.truths.get(text_key(problem))
        fallback = _evidence(job)
        evidence = Evidence.truth if known is not None else fallback
        if evidence is None:
            raise Rejected("no_evidence")
        task = known or _tested(job)
        if job.result.finish_reason is not FinishReason.stop:
            raise Rejected("cut_off")
        turns = _turns(job, without_reasoning=self.options.without_reasoning)
        self._screen(job)
        if key in self._written:
            raise Rejected("duplicate_problem")
        for turn in job.request.conversation:
            found = self.sets.found_in(turn.content) if turn.role == "user" else None
            if found is not None:
                raise Rejected("evaluation_problem", found)
        try:
            example = SftExample(
                id=f"log-{job.job_id}",
                messages=turns,
                source=f"{SOURCE}/{job.model or 'unknown'}"[:200],
                domain=None if task is None else task.domain,
                task_id=None if task is None else task.id,
            )
        except ValidationError as exc:
            raise Rejected("not_in_turns", explain(exc)) from exc
        return _Solved(job.job_id, key, example, task, evidence, fallback)

    def _screen(self, job: SolvedJob) -> None:
        """Reject what today's rules would not let pass, whatever they let pass when it was solved."""
        asked = job.request.conversation
        shown = ScreenOutput(
            messages=asked, candidate=0, content=job.text, reasoning=job.result.reasoning or "", plan=job.result.plan
        )
        if screen_by_rules(ScreenInput(messages=asked)) is not None or screen_by_rules(shown) is not None:
            raise Rejected("withheld")

    def _take(self, checked: Checked[_Solved]) -> None:
        solved = checked.of
        reason = self.checks.refuses(checked) if solved.task is not None else None
        evidence = solved.evidence
        if evidence is Evidence.truth and checked.score is None:
            # The truth is known, but could not speak.
            evidence = solved.fallback
        if reason is None and evidence is None:
            reason = f"unchecked_{checked.code}"
        elif reason is None and evidence not in self.options.evidence:
            reason = f"only_{evidence}"
        if reason is None and solved.key in self._written:
            reason = "duplicate_problem"
        if reason is not None or evidence is None:
            self.folder.reject(f"job {solved.job_id}", reason or "no_evidence")
            return
        reward = None if checked.score is None else checked.score.value
        example = solved.example.model_copy(update={"reward": reward})
        try:
            self.folder.write({EXAMPLES_NAME: example, TASKS_NAME: solved.task})
        except Rejected as exc:
            self.folder.reject(f"job {solved.job_id}", exc.reason)
            return
        self._written.add(solved.key)
        self.evidence[evidence.value] += 1
        domain = solved.example.domain
        self.folder.accept(domain=None if domain is None else domain.value, source=solved.example.source)


def _evidence(job: SolvedJob) -> Evidence | None:
    """Return the strongest evidence that the log itself has; None = there is none."""
    if job.request.checks.unit_tests:
        return Evidence.unit_tests if job.check is CheckStatus.passed else None
    selection = job.result.selection
    if selection is not None and selection.votes >= MAJORITY_MIN and 2 * selection.votes > job.request.policy.n:
        return Evidence.majority
    return None


def _tested(job: SolvedJob) -> Task | None:
    """Return the task that the job's own unit tests make; None = it has none, or of both styles at once."""
    tests = job.request.checks.unit_tests
    truth = _truth_of(tests)
    if truth is None:
        return None
    return Task(
        id=f"log-{job.job_id}",
        domain=Domain.code,
        source=SOURCE,
        prompt=job.request.conversation[-1].content,
        truth=truth,
    )


def _truth_of(tests: Sequence[UnitTest]) -> JsonValue:
    if tests and all(test.code is not None for test in tests):
        return {"functional": "\n".join(test.code or "" for test in tests)}
    if tests and all(test.code is None for test in tests):
        return {
            "inputs": [test.stdin or "" for test in tests],
            "outputs": [test.expected_stdout or "" for test in tests],
        }
    return None


def _turns(job: SolvedJob, *, without_reasoning: bool) -> tuple[Turn, ...]:
    """Return the conversation with the winner's answer as its model is to write it. The plan is left out."""
    text, reasoning = job.text.strip(), (job.result.reasoning or "").strip()
    if not text:
        raise Rejected("text_gone")
    if "<answer>" in text and "</answer>" not in text:
        # The stop string that ended it is no part of what was stored.
        text += "</answer>"
    if not reasoning and not without_reasoning:
        raise Rejected("no_reasoning")
    said = f"<think>\n{reasoning}\n</think>\n{text}" if reasoning else text
    if any(turn.role == "assistant" for turn in job.request.conversation):
        # They are the caller's, and would be imitated with the rest.
        raise Rejected("earlier_answers")
    asked = tuple(
        Turn(role="user" if turn.role == "user" else "system", content=turn.content)
        for turn in job.request.conversation
    )
    return (*asked, Turn(role="assistant", content=said))


def _told(options: LogOptions, evidence: Mapping[str, int]) -> dict[str, JsonValue]:
    return {
        "tenants": None if options.tenants is None else list(options.tenants),
        "truths": None if options.truths is None else str(options.truths),
        "against": [str(path) for path in options.against],
        "weakest_match": options.weakest.value,
        "verify": options.verify.value,
        "evidence": [kind.value for kind in options.evidence],
        "without_reasoning": options.without_reasoning,
        "written_by_evidence": dict(evidence),
    }
