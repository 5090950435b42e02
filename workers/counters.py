"""Counters and histograms of one process, in Prometheus' own types; their snapshot travels in the process's row.

Names that Celery's exporters (danihodovic/celery-exporter, flower) established are theirs, with their labels; the rest
begins with k2think_. The gateway adds the process as label `hostname` (celery_…) or `worker` (k2think_…).
"""

import json
from collections.abc import Iterable
from functools import cache
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from ..schemas.backend_settings import BackendSettings
from ..schemas.jobs import JobStatus, SolveResult
from ..schemas.messages import AGENT_OF_KIND, AgentKind, Envelope, queue_of
from ..schemas.outcomes import Compared, Preference, Screened, ScreenVerdict, StepResult
from ..schemas.trace import CallTrace
from .queues import TASK_OF_AGENT, task_of_queue

WAIT_BUCKETS_S = (0.005, 0.02, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600)
RUNTIME_BUCKETS_S = (0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600)
FIRST_TOKEN_BUCKETS_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
ACCEPTANCE_BUCKETS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)
ACCEPTED_TOKENS_BUCKETS = (1, 1.25, 1.5, 2, 2.5, 3, 4, 6, 8, 12, 17)
REQUEST_BUCKETS_S = (0.005, 0.02, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900)
TOKENS_PER_PRICE = 1_000_000
WebhookOutcome = Literal["delivered", "retried", "given_up"]
_TASK_LABELS = ("name", "queue_name")
FINAL = tuple(status for status in JobStatus if status not in (JobStatus.queued, JobStatus.running))


class Counters:
    """All of one process. Recording costs microseconds and is safe in any thread."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def counter(name: str, text: str, labels: Iterable[str] = ()) -> Counter:
            return Counter(name, text, labels, registry=self.registry)

        def histogram(name: str, text: str, labels: Iterable[str], buckets: tuple[float, ...]) -> Histogram:
            return Histogram(name, text, labels, registry=self.registry, buckets=buckets)

        self._received = counter("celery_task_received", "Messages taken from the broker.", _TASK_LABELS)
        self._started = counter("celery_task_started", "Steps claimed.", _TASK_LABELS)
        self._succeeded = counter("celery_task_succeeded", "Steps that ended with a result.", _TASK_LABELS)
        self._failed = counter(
            "celery_task_failed", "Steps that failed for good, by code of the failure.", (*_TASK_LABELS, "exception")
        )
        self._retried = counter(
            "celery_task_retried", "Attempts after which the step is to be tried again.", _TASK_LABELS
        )
        self._revoked = counter(
            "celery_task_revoked", "Attempts whose result nobody wants: stopped, or come too late.", _TASK_LABELS
        )
        self._runtime = histogram(
            "celery_task_runtime", "Seconds from claim to result.", _TASK_LABELS, RUNTIME_BUCKETS_S
        )
        self._wait = histogram(
            "k2think_step_wait_seconds", "Seconds that a step was ready before its claim.", ("role",), WAIT_BUCKETS_S
        )
        self._first_token = histogram(
            "k2think_time_to_first_token_seconds",
            "Seconds from a model call to its first token.",
            ("backend",),
            FIRST_TOKEN_BUCKETS_S,
        )
        self._acceptance = histogram(
            "k2think_draft_acceptance",
            "Share of speculated tokens that were accepted, 0..1, per model call where the engine tells.",
            ("backend",),
            ACCEPTANCE_BUCKETS,
        )
        self._accepted_tokens = histogram(
            "k2think_accepted_tokens_per_verification",
            "Mean tokens that one verification of a draft brought, the model's own included, per model call.",
            ("backend",),
            ACCEPTED_TOKENS_BUCKETS,
        )
        self._calls = counter(
            "k2think_model_calls",
            "Model calls by outcome: ok, cancelled, or the code of the error.",
            ("agent", "backend", "outcome"),
        )
        self._tokens = counter(
            "k2think_tokens",
            "Tokens paid for; reasoning is a part of completion.",
            ("agent", "backend", "kind"),
        )
        self._spend = counter(
            "k2think_spend_dollars", "Spend by the backends' prices (K2THINK_…__PRICE_…).", ("backend",)
        )
        self._limit_wait = histogram(
            "k2think_limit_wait_seconds",
            "Seconds that a model call waited for the limits that all workers share.",
            ("backend",),
            WAIT_BUCKETS_S,
        )
        self._throttled = counter("k2think_rate_refusals", "Calls that a backend refused with 429.", ("backend",))
        self._streams_allowed = Gauge(
            "k2think_streams_allowed",
            "Streams in flight that the limits allow all workers together; absent = any number.",
            ("backend",),
            registry=self.registry,
        )
        self._rests = counter(
            "k2think_backend_rests", "Times that a worker left a backend alone after failures in a row.", ("backend",)
        )
        self._fallbacks = counter(
            "k2think_fallbacks", "Calls that went to another backend after a failure.", ("backend", "to")
        )
        self._hedges = counter(
            "k2think_hedges",
            "Second streams begun because the first was late, by which one had its first token first.",
            ("backend", "to", "outcome"),
        )
        self._screenings = counter("k2think_screenings", "Screenings by kind and verdict.", ("kind", "verdict"))
        self._refusals = counter("k2think_refusals", "Jobs refused by the safety agent.")
        self._comparisons = counter(
            "k2think_comparisons", "The judge's verdicts: decided, tie, or unusable.", ("outcome",)
        )
        self._lost = counter("k2think_attempts_lost", "Attempts whose lease ran out.")
        self._dead = counter("k2think_dead_letters", "Steps given up after too many attempts.")
        self._jobs = counter("k2think_jobs_finished", "Jobs ended, by final status.", ("status",))
        self._webhooks = counter(
            "k2think_webhooks", "Tries to send a webhook: delivered, retried later, or given up.", ("outcome",)
        )
        self._requests = counter(
            "k2think_http_requests",
            "HTTP requests, by status of the answer; 499 = the client left before there was one.",
            ("method", "route", "code"),
        )
        self._request_s = histogram(
            "k2think_http_request_seconds",
            "Seconds to answer, streams to their end.",
            ("method", "route"),
            REQUEST_BUCKETS_S,
        )
        for status in FINAL:
            self._jobs.labels(status.value)
        for outcome in get_args(WebhookOutcome):
            self._webhooks.labels(outcome)

    def expect(
        self, agents: Iterable[AgentKind], *, queues: Iterable[str], backends: Iterable[tuple[str, str]]
    ) -> None:
        """Begin at zero what this process will count, so that a first increase is seen as one.

        `backends`: pairs of agent and backend name.
        """
        served = [queue for queue in queues if queue.split(".", 1)[0] in AgentKind.__members__]
        for queue in served:
            for metric in (self._received, self._started, self._succeeded, self._retried, self._revoked, self._runtime):
                metric.labels(task_of_queue(queue), queue)
        for agent in agents:
            self._wait.labels(agent.value)
            if agent is AgentKind.safety:
                for kind in (kind for kind, its_agent in AGENT_OF_KIND.items() if its_agent is agent):
                    for verdict in ScreenVerdict:
                        self._screenings.labels(kind, verdict.value)
            if agent is AgentKind.verifier:
                for outcome in ("decided", "tie", "unusable"):
                    self._comparisons.labels(outcome)
        for agent_name, backend in backends:
            self._first_token.labels(backend)
            self._spend.labels(backend)
            self._throttled.labels(backend)
            self._rests.labels(backend)
            self._calls.labels(agent_name, backend, "ok")
            for kind in ("prompt", "completion", "reasoning"):
                self._tokens.labels(agent_name, backend, kind)

    def received(self, envelope: Envelope) -> None:
        """A message came."""
        self._received.labels(*_task(envelope)).inc()

    def started(self, envelope: Envelope, *, waited_s: float) -> None:
        """A step was claimed, `waited_s` after it was ready."""
        self._started.labels(*_task(envelope)).inc()
        self._wait.labels(AGENT_OF_KIND[envelope.body.kind].value).observe(max(0.0, waited_s))

    def succeeded(self, envelope: Envelope, result: StepResult, *, seconds: float) -> None:
        """A step's result was taken, `seconds` after its claim."""
        task = _task(envelope)
        self._succeeded.labels(*task).inc()
        self._runtime.labels(*task).observe(seconds)
        if isinstance(result, Screened):
            self._screenings.labels(envelope.body.kind, result.verdict.value).inc()
        elif isinstance(result, Compared):
            tie = "tie" if result.preference is Preference.tie else "decided"
            self._comparisons.labels(tie if result.usable else "unusable").inc()

    def failed(self, envelope: Envelope, *, code: str) -> None:
        """A step failed for good."""
        self._failed.labels(*_task(envelope), code).inc()

    def retried(self, envelope: Envelope) -> None:
        """An attempt ended without a result; its step is to be tried again."""
        self._retried.labels(*_task(envelope)).inc()

    def revoked(self, envelope: Envelope) -> None:
        """Nobody wants an attempt's result: it was stopped, or came too late."""
        self._revoked.labels(*_task(envelope)).inc()

    def called(self, agent: str, record: CallTrace, settings: BackendSettings, *, outcome: str) -> None:
        """A model was called; `outcome`: ok, cancelled, or an error's code."""
        backend = record.backend
        self._calls.labels(agent, backend, outcome).inc()
        if record.time_to_first_token_s is not None:
            self._first_token.labels(backend).observe(record.time_to_first_token_s)
        if record.draft_acceptance is not None:
            self._acceptance.labels(backend).observe(record.draft_acceptance)
        if record.accepted_length is not None:
            self._accepted_tokens.labels(backend).observe(record.accepted_length)
        if record.limit_wait_s is not None:
            self._limit_wait.labels(backend).observe(record.limit_wait_s)
        usage = record.usage
        for kind, count in (
            ("prompt", usage.prompt),
            ("completion", usage.completion),
            ("reasoning", usage.reasoning),
        ):
            self._tokens.labels(agent, backend, kind).inc(count)
        dollars = usage.prompt * settings.price_prompt + usage.completion * settings.price_completion
        self._spend.labels(backend).inc(dollars / TOKENS_PER_PRICE)

    def rested(self, backend: str) -> None:
        """A backend is left alone for a while."""
        self._rests.labels(backend).inc()

    def fell_back(self, backend: str, to: str) -> None:
        """A call went from one backend to another."""
        self._fallbacks.labels(backend, to).inc()

    def hedged(self, backend: str, to: str, *, won: bool) -> None:
        """A second stream was begun; `won`: it was the quicker one."""
        self._hedges.labels(backend, to, "won" if won else "lost").inc()

    def throttled(self, backend: str) -> None:
        """A backend refused a call with 429."""
        self._throttled.labels(backend).inc()

    def streams_allowed(self, backend: str, streams: int | None) -> None:
        """So many streams of a backend may be in flight; None = any number."""
        if streams is not None:
            self._streams_allowed.labels(backend).set(streams)

    def lost(self, *, dead: bool) -> None:
        """A lease ran out; `dead`: for the last time allowed."""
        self._lost.inc()
        if dead:
            self._dead.inc()

    def job_ended(self, result: SolveResult) -> None:
        """A job ended."""
        self._jobs.labels(result.status.value).inc()
        if result.status is JobStatus.refused:
            self._refusals.inc()

    def webhook_tried(self, outcome: WebhookOutcome) -> None:
        """A webhook was sent, or not."""
        self._webhooks.labels(outcome).inc()

    def request_answered(self, method: str, route: str, code: int, *, seconds: float) -> None:
        """An HTTP request was answered; `route` is a template such as /v1/jobs/{job_id}, never a path."""
        self._requests.labels(method, route, str(code)).inc()
        self._request_s.labels(method, route).observe(seconds)

    def snapshot(self) -> str:
        """All values as JSON: {family: [[name of the sample, labels, value], …]}."""
        return json.dumps(
            {
                family.name: [
                    [sample.name, sample.labels, sample.value]
                    for sample in family.samples
                    if not sample.name.endswith("_created")
                ]
                for family in self.registry.collect()
            },
            separators=(",", ":"),
        )


@cache
def counters() -> Counters:
    """Return the counters of this process."""
    return Counters()


def _task(envelope: Envelope) -> tuple[str, str]:
    return TASK_OF_AGENT[AGENT_OF_KIND[envelope.body.kind]], queue_of(envelope.body)
