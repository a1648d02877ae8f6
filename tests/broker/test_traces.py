"""A real node with OpenTelemetry's standard variables sends its spans to a real collector, over OTLP/HTTP."""

from __future__ import annotations

import gzip
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from tests import forked
from tests.candles import START, candle_file

from coordinator.infra.kafka.embedded import free_ports
from coordinator.projections.tracing.spans import (
    ANSWERED,
    MODEL_ANSWERED,
    ON_BOARD,
    OPENED,
    PERIOD_CLOSED,
    RECEIVED,
    RESOLVED,
    SCORED,
)

pytestmark = pytest.mark.broker
KEY = "not-in-any-log-51ce"
HOURS = 1


class Collector(BaseHTTPRequestHandler):
    """What a collector does with a post of spans; the requests as they came."""

    requests: list[tuple[str, str, bytes]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.requests.append((self.path, self.headers.get("x-api-key", ""), body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def collector() -> Iterator[tuple[str, list[tuple[str, str, bytes]]]]:
    """(its address, the requests that came)"""
    handler = type("Handler", (Collector,), {"requests": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", handler.requests
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def up(folder: Path, crunch_id: str, bootstrap: str, **variables: str):
    until = START + HOURS * 3_600_000
    return forked.run(
        [
            *(
                "up",
                "--kafka",
                bootstrap,
                "--port",
                str(free_ports(1)[0]),
                "--data-dir",
                str(folder / "node"),
            ),
            *("--candles", str(candle_file(folder)), "--until", str(until)),
        ],
        env={**os.environ, "CRUNCH_ID": crunch_id, "CHECKPOINT_INTERVAL_SECONDS": "3600", **variables},
        cwd=folder,
    )


def test_a_round_is_one_trace_from_the_feed_record_to_the_board(kafka_bootstrap, crunch_id, tmp_path):
    with collector() as (address, requests):
        done = up(
            tmp_path,
            crunch_id,
            kafka_bootstrap,
            OTEL_EXPORTER_OTLP_ENDPOINT=address,
            OTEL_EXPORTER_OTLP_HEADERS=f"x-api-key={KEY}",
            OTEL_RESOURCE_ATTRIBUTES="deployment.environment=test",
            OTEL_BSP_MAX_QUEUE_SIZE="100000",
        )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert {(path, key) for path, key, _ in requests} == {("/v1/traces", KEY)}
    batches = [ExportTraceServiceRequest.FromString(body) for *_, body in requests]
    of_resource = {
        attribute.key: attribute.value.string_value
        for attribute in batches[0].resource_spans[0].resource.attributes
    }
    assert of_resource["service.name"] == "coordinator-node"
    assert of_resource["coordinator.crunch_id"] == crunch_id
    assert of_resource["deployment.environment"] == "test"
    spans = [
        span
        for batch in batches
        for of_one in batch.resource_spans
        for of_scope in of_one.scope_spans
        for span in of_scope.spans
    ]
    assert len({(span.trace_id, span.span_id) for span in spans}) == len(spans)
    names = {span.name for span in spans}
    assert {RECEIVED, ANSWERED, MODEL_ANSWERED, RESOLVED, SCORED, ON_BOARD, PERIOD_CLOSED, OPENED} <= names
    by_id = {span.span_id: span for span in spans}
    board = next(span for span in spans if span.name == ON_BOARD)
    above = [board.name]
    span = board
    while span.parent_span_id:
        span = by_id[span.parent_span_id]
        assert span.trace_id == board.trace_id
        assert span.start_time_unix_nano <= span.end_time_unix_nano
        above.append(span.name)
    assert above == [ON_BOARD, SCORED, RESOLVED, RECEIVED]
    written = [file for file in (tmp_path / "node").rglob("*") if file.is_file()]
    assert [file for file in written if KEY.encode() in file.read_bytes()] == []
    assert KEY not in done.stdout + done.stderr


def test_an_unsupported_protocol_is_refused_at_the_start(kafka_bootstrap, crunch_id, tmp_path):
    done = up(tmp_path, crunch_id, kafka_bootstrap, OTEL_TRACES_EXPORTER="zipkin")
    assert done.returncode == 2
    assert "OTEL_TRACES_EXPORTER=zipkin" in done.stderr
