"""Sends spans to where OpenTelemetry's standard environment variables say, over OTLP/HTTP. Off unless they say so.

On: OTEL_TRACES_EXPORTER=otlp, or an address in OTEL_EXPORTER_OTLP_ENDPOINT or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT. The
SDK reads those and the rest by itself: headers, timeouts, batches, the sampler, OTEL_RESOURCE_ATTRIBUTES. Spans wait in
a queue for a thread of the SDK. If the collector is away or too slow, spans are lost and the SDK logs it: what looks at
the node must not stop it. Records of before this start make no spans, so that a read model that is built anew tells
nothing twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from coordinator.projections.tracing.spans import Span, SpanMaker
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.errors import OperatorError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import SpanContext

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
PROTOCOL = "http/protobuf"
SERVICE = "coordinator-node"
NS_PER_MS = 1_000_000


def wants_traces(environ: Mapping[str, str]) -> bool:
    """Whether the standard variables ask for traces. Raises OperatorError for an exporter or protocol that we lack."""
    exporter = environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or exporter == "none":
        return False
    if exporter not in ("", "otlp"):
        raise OperatorError(
            f"OTEL_TRACES_EXPORTER={exporter}: the node sends traces as otlp; choose otlp or none"
        )
    if not (exporter or any(environ.get(name) for name in ENDPOINTS)):
        return False
    protocol = next((environ[name] for name in PROTOCOLS if environ.get(name)), PROTOCOL)
    if protocol != PROTOCOL:
        raise OperatorError(
            f"OTEL_EXPORTER_OTLP_PROTOCOL={protocol}: the node sends {PROTOCOL}; give the collector's address for that "
            "(its usual port is 4318)"
        )
    return True


class TraceExport:
    """Makes spans of decisions and sends those that the sampler takes."""

    def __init__(self, crunch_id: str, now_ms: Callable[[], int]) -> None:
        """Raises OperatorError when the extra is not installed."""
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
            from opentelemetry.sdk.resources import SERVICE_NAME, Resource  # noqa: PLC0415
            from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
            from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
        except ImportError as error:
            raise OperatorError(
                "traces are asked for (OTEL_...), but OpenTelemetry's SDK is not installed: pip install "
                "'coordinator-node[traces]'"
            ) from error
        self._spans = SpanMaker(crunch_id)
        self._now_ms = now_ms
        self._began_ms = now_ms()
        resource = Resource.create({"coordinator.crunch_id": crunch_id})
        if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):  # the environment names none
            resource = resource.merge(Resource({SERVICE_NAME: SERVICE}))
        self._provider = TracerProvider(resource=resource)
        self._processor = BatchSpanProcessor(OTLPSpanExporter())

    def take(self, decision: Decision, written_ms: int) -> None:
        """Queue the spans that this decision ends. `written_ms`: when Kafka got its last record."""
        spans = self._spans.take(decision, written_ms, self._now_ms())
        if written_ms < self._began_ms:
            return
        for span in spans:
            if self._provider.sampler.should_sample(None, span.trace_id, span.name).decision.is_sampled():  # type: ignore[no-untyped-call]
                self._processor.on_end(_readable(span, self._provider.resource))

    def close(self) -> None:
        """Send what waits, for as long as OTEL_BSP_EXPORT_TIMEOUT says. Blocking."""
        self._processor.shutdown()  # type: ignore[no-untyped-call]


def _readable(span: Span, resource: object) -> ReadableSpan:
    from opentelemetry.sdk.trace import ReadableSpan  # noqa: PLC0415
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope  # noqa: PLC0415
    from opentelemetry.trace import Link, Status, StatusCode  # noqa: PLC0415

    return ReadableSpan(
        name=span.name,
        context=_context(span.trace_id, span.span_id),
        parent=None if span.parent_id is None else _context(span.trace_id, span.parent_id),
        resource=resource,  # type: ignore[arg-type]
        attributes={f"coordinator.{name}": value for name, value in span.attributes.items()},
        links=[Link(_context(*link)) for link in span.links],
        status=Status(StatusCode.ERROR, span.failed) if span.failed else Status(StatusCode.UNSET),
        start_time=round(span.start_ms * NS_PER_MS),
        end_time=round(span.end_ms * NS_PER_MS),
        instrumentation_scope=InstrumentationScope("coordinator"),
    )


def _context(trace_id: int, span_id: int) -> SpanContext:
    from opentelemetry.trace import SpanContext, TraceFlags  # noqa: PLC0415

    return SpanContext(trace_id, span_id, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
