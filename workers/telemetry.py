"""OpenTelemetry spans over HTTP doors, queue and workers, joined by the W3C `traceparent` that travels with the job.

Off unless K2THINK_OTLP_ENDPOINT is set. While it is off a caller's traceparent still travels, so that the model calls of
a traced caller can be found by it. No span holds text of prompts or answers.
"""

import contextlib
import logging
import re
import threading
from collections.abc import Generator, Mapping, Sequence
from contextvars import ContextVar, copy_context
from functools import cache
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from .. import __version__
from ..schemas.backend_settings import BackendSettings
from ..schemas.completion import CompletionRequest
from ..schemas.errors import ConfigurationError
from ..schemas.settings import Settings
from ..schemas.trace import CallTrace
from .outage import outage_of

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

EXPORT_TIMEOUT_S = 5.0
FLUSH_TIMEOUT_S = 3.0
"""How long a stopping process waits for its last spans to be taken."""
TRACES_PATH = "/v1/traces"
COLLECTOR = "OpenTelemetry collector"
Value = str | bool | int | float | Sequence[str]
SpanKind = Literal["server", "client", "producer", "consumer"]
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-((?!0{32})[0-9a-f]{32})-((?!0{16})[0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_current: ContextVar[str | None] = ContextVar("k2think_traceparent", default=None)


def valid_traceparent(value: str | None) -> str | None:
    """Return a traceparent header's value as we pass it on; None = it is none, which the W3C says to ignore."""
    match = _TRACEPARENT.fullmatch(value or "")
    return f"00-{match[1]}-{match[2]}-{match[3]}" if match else None


class SpanHandle:
    """One piece of work; does nothing where spans are off."""

    def __init__(self, span: "Span | None", traceparent: str | None) -> None:
        self._span = span
        self.traceparent = traceparent
        """What carries the trace on: the span's own context, or its parent's where spans are off; None = no trace."""

    def set(self, **attributes: Value | None) -> None:
        """Set attributes, named with `__` for `.`; None = leave it out."""
        self.set_all({name.replace("__", "."): value for name, value in attributes.items()})

    def set_all(self, attributes: Mapping[str, Value | None]) -> None:
        """Set attributes by their full names; None = leave it out."""
        if self._span is not None:
            self._span.set_attributes({name: value for name, value in attributes.items() if value is not None})

    def rename(self, name: str) -> None:
        """Give the span a better name, once that is known."""
        if self._span is not None:
            self._span.update_name(name)

    def fail(self, kind: str) -> None:
        """Mark the work as failed, by the code or class of the error."""
        if self._span is not None:
            from opentelemetry.trace import Status, StatusCode

            self._span.set_status(Status(StatusCode.ERROR))
            self._span.set_attribute("error.type", kind)


class Telemetry:
    """The spans of one process."""

    def __init__(self) -> None:
        self._provider: TracerProvider | None = None
        self._tracer: Tracer | None = None

    def start(self, settings: Settings, *, role: str) -> None:
        """Begin to make and send spans, if the settings name a collector. Raises ConfigurationError without the extra."""
        if settings.otlp_endpoint is None or self._tracer is not None:
            return
        try:
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as exc:
            raise _not_installed() from exc
        resource = Resource.create(
            {
                "service.namespace": "k2think",
                "service.name": f"k2think-{role}",
                "service.version": __version__,
            }
        )
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(_exporter(settings.otlp_endpoint)))
        self._tracer = self._provider.get_tracer("k2think", __version__)

    def stop(self) -> None:
        """Send what waits, for FLUSH_TIMEOUT_S at most. No spans are made after it."""
        provider, self._provider, self._tracer = self._provider, None, None
        if provider is not None:
            # A collector that hangs must not keep the process: the thread is left behind.
            flushing = threading.Thread(target=provider.shutdown, daemon=True)
            flushing.start()
            flushing.join(FLUSH_TIMEOUT_S)

    @contextlib.contextmanager
    def span(
        self,
        name: str,
        *,
        kind: SpanKind,
        traceparent: str | None = None,
        attributes: Mapping[str, Value | None] | None = None,
    ) -> Generator[SpanHandle]:
        """Make a span around a block; what the block starts becomes its child.

        `traceparent`: the parent, of another process; None = the work that this code is part of. An exception that
        leaves the block marks the span as failed, by its class only, since messages may quote text.
        """
        parent = valid_traceparent(traceparent) or _current.get()
        if self._tracer is None:
            token = _current.set(parent)
            try:
                yield SpanHandle(None, parent)
            finally:
                _current.reset(token)
            return
        from opentelemetry.trace import SpanKind as Kind
        from opentelemetry.trace import use_span

        span = self._tracer.start_span(name, context=_context(parent), kind=Kind[kind.upper()])
        context = span.get_span_context()
        own = f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"
        handle = SpanHandle(span, own)
        handle.set_all(attributes or {})
        token = _current.set(own)
        try:
            with use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
                try:
                    yield handle
                except Exception as exc:
                    handle.fail(getattr(exc, "code", None) or type(exc).__name__)
                    raise
        finally:
            _current.reset(token)

    @contextlib.contextmanager
    def model_call(
        self, agent: str, settings: BackendSettings, request: CompletionRequest, record: CallTrace
    ) -> Generator[SpanHandle]:
        """Make the span of one model call, with the names of OpenTelemetry's GenAI conventions."""
        if self._tracer is None:
            yield SpanHandle(None, _current.get())
            return
        model = settings.model or ""
        with self.span(f"chat {model}".rstrip(), kind="client", attributes=_asked(agent, settings, request)) as span:
            try:
                yield span
            finally:
                span.set_all(_answered(record))
                if not model and record.model:
                    span.rename(f"chat {record.model}")
                    span.set_all({"gen_ai.request.model": record.model})


@cache
def telemetry() -> Telemetry:
    """Return the spans of this process; off until started."""
    return Telemetry()


def _asked(agent: str, settings: BackendSettings, request: CompletionRequest) -> dict[str, Value | None]:
    address = urlsplit(settings.base_url) if settings.base_url else None
    return {
        "gen_ai.operation.name": "chat",
        # Named as the client's dialect: what serves behind an OpenAI-compatible address is not known.
        "gen_ai.provider.name": str(settings.backend),
        "gen_ai.request.model": settings.model,
        "gen_ai.request.temperature": request.temperature,
        "gen_ai.request.top_p": request.top_p,
        "gen_ai.request.max_tokens": request.max_tokens or settings.max_tokens,
        "gen_ai.request.seed": request.seed,
        "gen_ai.request.stream": True,
        "gen_ai.output.type": "json" if request.json_schema is not None else "text",
        "gen_ai.agent.name": agent,
        "server.address": address.hostname if address else None,
        "server.port": _port(settings) if address else None,
    }


def _answered(record: CallTrace) -> dict[str, Value | None]:
    return {
        "gen_ai.response.model": record.model or None,
        "gen_ai.response.finish_reasons": [record.finish_reason] if record.finish_reason else None,
        "gen_ai.response.time_to_first_chunk": record.time_to_first_token_s,
        "gen_ai.usage.input_tokens": record.usage.prompt,
        "gen_ai.usage.output_tokens": record.usage.completion,
        "gen_ai.usage.reasoning.output_tokens": record.usage.reasoning,
        "k2think.backend": record.backend or None,
        "k2think.usage_estimated": record.usage_estimated,
        "k2think.retries": record.retries,
    }


def _port(settings: BackendSettings) -> int | None:
    address = urlsplit(settings.base_url or "")
    try:
        return address.port or {"https": 443, "http": 80}.get(address.scheme)
    except ValueError:
        return None


def _context(traceparent: str | None) -> "Context":
    """Return OpenTelemetry's context of a parent in another process, or an empty one: a trace begins."""
    from opentelemetry.context import Context
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

    match = _TRACEPARENT.fullmatch(traceparent or "")
    if match is None:
        return Context()
    parent = SpanContext(
        trace_id=int(match[1], 16),
        span_id=int(match[2], 16),
        is_remote=True,
        trace_flags=TraceFlags(int(match[3], 16) & TraceFlags.SAMPLED),
    )
    return set_span_in_context(NonRecordingSpan(parent), Context())


def _exporter(endpoint: str) -> Any:
    """Return an exporter that says once that its collector is away, and once that it is back."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import SpanExportResult
    except ImportError as exc:
        raise _not_installed() from exc

    context = copy_context()  # of the process; the thread that sends has none, and its log lines would name no role

    class Exporter(OTLPSpanExporter):
        def export(self, spans: Any) -> SpanExportResult:
            result = super().export(spans)
            outage = outage_of(COLLECTOR)
            if result is SpanExportResult.SUCCESS:
                context.copy().run(outage.back)
            else:
                context.copy().run(outage.lost, ConnectionError("spans were not taken and are lost"))
            return result

    # Its own words come with every batch.
    logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)
    logging.getLogger("opentelemetry.sdk.trace.export").setLevel(logging.CRITICAL)
    whole = (
        endpoint if urlsplit(endpoint).path.rstrip("/").endswith(TRACES_PATH) else endpoint.rstrip("/") + TRACES_PATH
    )
    return Exporter(endpoint=whole, timeout=EXPORT_TIMEOUT_S)


def _not_installed() -> ConfigurationError:
    return ConfigurationError(
        "K2THINK_OTLP_ENDPOINT is set, but OpenTelemetry is not installed: pip install 'k2think[otel]', or unset it"
    )
