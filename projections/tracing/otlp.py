"""Sends spans to a collector over OTLP/HTTP. Imported only where traces are on (`switch.py`).

The SDK reads the standard variables by itself: address, headers, timeouts, batches, the sampler, attributes of the
resource. Spans wait in a queue for a thread of the SDK. Observation must not stop the node: if a collector is away,
slow or sends nonsense, spans are lost and the log says so once, its answers are not read, and a stop of the node waits
at most CLOSE_SECONDS_MAX for it. Records from before this start make no spans, so that a rebuilt read model reports
nothing twice.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

import requests
import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, Status, StatusCode, TraceFlags

from coordinator.projections.tracing.spans import Span, SpanMaker
from coordinator.streams.log.counting import Decision

SERVICE = "coordinator-node"
NS_PER_MS = 1_000_000
CLOSE_SECONDS_MAX = 2.0
_SCOPE = InstrumentationScope("coordinator")
_log = structlog.get_logger()


class TraceExport:
    """Makes spans of decisions and sends those that the sampler takes."""

    def __init__(self, crunch_id: str, now_ms: Callable[[], int]) -> None:
        self._spans = SpanMaker(crunch_id)
        self._now_ms = now_ms
        self._began_ms = now_ms()
        resource = Resource.create({"coordinator.crunch_id": crunch_id})
        if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):  # the environment names none
            resource = resource.merge(Resource({SERVICE_NAME: SERVICE}))
        self._resource = resource
        self._sampler = TracerProvider(resource=resource, shutdown_on_exit=False).sampler
        # The SDK writes several lines for each batch that fails, for as long as a collector is away: `_Sender` has one.
        logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)
        self._processor = BatchSpanProcessor(_Sender())

    def take(self, decision: Decision, written_ms: int) -> None:
        """Queue the spans that this decision ends. `written_ms`: when Kafka got its last record."""
        spans = self._spans.take(decision, written_ms, self._now_ms())
        if written_ms < self._began_ms:
            return
        for span in spans:
            if self._sampler.should_sample(None, span.trace_id, span.name).decision.is_sampled():  # type: ignore[no-untyped-call]
                self._processor.on_end(self._readable(span))

    def close(self) -> None:
        """Send what waits, for CLOSE_SECONDS_MAX at most. Blocking."""
        # The SDK's own end would wait 30 s for a collector that does not answer.
        ending = threading.Thread(target=self._processor.shutdown, daemon=True)
        ending.start()
        ending.join(CLOSE_SECONDS_MAX)
        if ending.is_alive():
            _log.warning(
                "traces_not_sent", reason=f"the collector did not take them in {CLOSE_SECONDS_MAX:g} s"
            )

    def _readable(self, span: Span) -> ReadableSpan:
        return ReadableSpan(
            name=span.name,
            context=_context(span.trace_id, span.span_id),
            parent=None if span.parent_id is None else _context(span.trace_id, span.parent_id),
            resource=self._resource,
            attributes={f"coordinator.{name}": value for name, value in span.attributes.items()},
            links=[Link(_context(*link)) for link in span.links],
            status=Status(StatusCode.ERROR, span.failed) if span.failed else Status(StatusCode.UNSET),
            start_time=round(span.start_ms * NS_PER_MS),
            end_time=round(span.end_ms * NS_PER_MS),
            instrumentation_scope=_SCOPE,
        )


def _context(trace_id: int, span_id: int) -> SpanContext:
    return SpanContext(trace_id, span_id, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))


class _Sender(OTLPSpanExporter):
    """The SDK's exporter. It says when spans begin to be lost, and when they are taken again."""

    def __init__(self) -> None:
        self._answers = _Answers()
        super().__init__(session=self._answers)
        self._lost, self._reason = 0, ""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch; where it is lost, say why, once for each reason."""
        result = super().export(spans)
        if result is SpanExportResult.SUCCESS and self._answers.taken:
            if self._lost:
                _log.info("traces_taken_again", lost_spans=self._lost)
            self._lost, self._reason = 0, ""
            return result
        self._lost += len(
            spans
        )  # also where the collector sends elsewhere: the SDK takes a redirect for a success
        if self._answers.last != self._reason:
            self._reason = self._answers.last
            _log.warning("traces_lost", reason=self._reason, spans=len(spans))
        return result


class _Answers(requests.Session):
    """Reads of a collector's answer the status alone: the SDK would take a body of any length into memory."""

    last, taken = "", False
    """The result of the last request, and whether the collector accepted it."""

    def request(self, *arguments: Any, **options: Any) -> requests.Response:
        """The answer without its body."""
        self.taken = False
        try:
            answer = super().request(*arguments, **{**options, "stream": True})
        except requests.RequestException as error:
            self.last = f"no answer: {type(error).__name__}"
            raise
        answer.close()
        self.taken = answer.ok and not answer.is_redirect
        self.last = f"the collector answered {answer.status_code}"
        return answer
