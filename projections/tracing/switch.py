"""Whether traces are on, as OpenTelemetry's standard environment variables say. Off unless they say so.

On: OTEL_TRACES_EXPORTER=otlp, or an address in OTEL_EXPORTER_OTLP_ENDPOINT or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT. Only
then is OpenTelemetry's SDK imported: a node without traces needs no package of it and pays nothing for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from coordinator.streams.log.errors import OperatorError

if TYPE_CHECKING:
    from coordinator.projections.tracing.otlp import TraceExport

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
PROTOCOL = "http/protobuf"


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
    for name in PROTOCOLS:
        if protocol := environ.get(name):
            if protocol != PROTOCOL:
                raise OperatorError(
                    f"{name}={protocol}: the node sends {PROTOCOL}; give the collector's address for that "
                    "(its usual port is 4318)"
                )
            break
    return True


def open_traces(environ: Mapping[str, str], crunch_id: str, now_ms: Callable[[], int]) -> TraceExport | None:
    """The export that the variables ask for, None where they ask for none. Raises OperatorError where the extra is
    not installed, or a variable cannot be.
    """
    if not wants_traces(environ):
        return None
    try:
        from coordinator.projections.tracing.otlp import TraceExport  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith(("opentelemetry", "requests")):
            raise
        raise OperatorError(
            "an OTEL_... variable asks for traces, but OpenTelemetry's SDK is not installed: pip install "
            "'coordinator-node[traces]'"
        ) from error
    return TraceExport(crunch_id, now_ms)
