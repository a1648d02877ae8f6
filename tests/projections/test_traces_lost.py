"""A collector that is away, slow or sends nonsense: the node is not delayed, spans are lost, and the log reports it
once.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise

import pytest
from structlog.testing import capture_logs
from tests.projections.test_spans import CRUNCH, in_order
from tests.streams.engine.test_correct import corrected_log
from tests.waiting import LIMIT_SECONDS

from coordinator.infra.kafka.embedded import free_ports
from coordinator.projections.tracing.otlp import CLOSE_SECONDS_MAX, TraceExport

SPARE_SECONDS = 20.0
"""For a loaded machine. A span that waited until it was sent, or the SDK's own shutdown, would take longer still."""
BODY_BYTES_MAX = 32_000_000
"""Far more than the sockets' buffers hold, far less than an endless body."""


@pytest.fixture(scope="module")
def decisions():
    return list(in_order(corrected_log()))


def asks(connection: socket.socket) -> bool:
    """Reads a whole request; False if the client left."""
    head = b""
    while b"\r\n\r\n" not in head:
        if not (part := connection.recv(65536)):
            return False
        head += part
    head, _, body = head.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    while len(body) < length:
        if not (part := connection.recv(65536)):
            return False
        body += part
    return True


@contextmanager
def collector(answer: Callable[[socket.socket], None], port: int = 0) -> Iterator[str]:
    """A server that answers each request by `answer`. Returns its address."""
    door = socket.create_server(("127.0.0.1", port))

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = door.accept()
                threading.Thread(target=talk, args=(connection,), daemon=True).start()

    def talk(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while asks(connection):
                answer(connection)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{door.getsockname()[1]}"
    finally:
        with suppress(OSError):
            door.shutdown(socket.SHUT_RDWR)
        door.close()
        thread.join()


def said(status: bytes, head: bytes = b"") -> Callable[[socket.socket], None]:
    return lambda connection: connection.sendall(
        b"HTTP/1.1 " + status + b"\r\n" + head + b"Content-Length: 0\r\n\r\n"
    )


def nothing(connection: socket.socket) -> None:
    time.sleep(LIMIT_SECONDS)


def without_end(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
        SENT.append(0x10000)


SENT: list[int] = []
ANSWERS = {
    "gone": (None, "no answer: ConnectionError"),
    "silent": (nothing, "no answer: ReadTimeout"),
    "429": (said(b"429 Too Many Requests", b"Retry-After: 3600\r\n"), "the collector answered 429"),
    "503": (said(b"503 Service Unavailable"), "the collector answered 503"),
    "401": (said(b"401 Unauthorized"), "the collector answered 401"),
    "elsewhere": (said(b"302 Found", b"Location: http://127.0.0.1:1/\r\n"), "the collector answered 302"),
    "no HTTP": (lambda connection: connection.sendall(os.urandom(4096)), "no answer: ConnectionError"),
}


@pytest.mark.parametrize("what", ANSWERS)
def test_a_collector_that_accepts_nothing_delays_nobody_and_is_reported_once(what, decisions, monkeypatch):
    answer, reason = ANSWERS[what]
    with collector(answer or nothing) as address:
        nobody = f"http://127.0.0.1:{free_ports(1)[0]}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address if answer else nobody)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        with capture_logs() as lines:
            export = TraceExport(CRUNCH, lambda: 0)
            export.take(*decisions[0])
            began = time.monotonic()
            for decision, at in decisions:
                export.take(decision, at)
                time.sleep(3 / len(decisions))
            assert time.monotonic() - began < 3 + SPARE_SECONDS
            export.close()
    lost = [line for line in lines if line["event"] == "traces_lost"]
    reasons = [line["reason"] for line in lost]
    assert reasons[0] == reason
    # The SDK tries again until its second is over, and on a slow machine the last try may end by that limit.
    assert set(reasons) <= {reason, "no answer: ReadTimeout"}
    assert all(before != after for before, after in pairwise(reasons)), "a reason is told once"


def test_a_silent_collector_does_not_delay_the_end_of_the_node(decisions, monkeypatch):
    with collector(nothing) as address:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "60")
        export = TraceExport(CRUNCH, lambda: 0)
        for decision, at in decisions:
            export.take(decision, at)
        began = time.monotonic()
        export.close()
        assert time.monotonic() - began < CLOSE_SECONDS_MAX + SPARE_SECONDS


def test_an_endless_answer_is_not_read(decisions, monkeypatch):
    with collector(without_end) as address:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        export = TraceExport(CRUNCH, lambda: 0)
        for decision, at in decisions:
            export.take(decision, at)
        export.close()
        time.sleep(0.5)
    assert 0 < sum(SENT) < BODY_BYTES_MAX


def test_a_collector_that_comes_back_is_reported_with_the_number_of_lost_spans(decisions, monkeypatch):
    (port,) = free_ports(1)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    with capture_logs() as lines:
        export = TraceExport(CRUNCH, lambda: 0)
        waiting = iter(decisions)
        until(export, waiting, lines, "traces_lost")
        with collector(said(b"200 OK"), port):
            until(export, waiting, lines, "traces_taken_again")
            export.close()
    again = next(line for line in lines if line["event"] == "traces_taken_again")
    assert again["lost_spans"] > 0


def until(export: TraceExport, waiting: Iterator, lines: list, event: str) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while not any(line["event"] == event for line in lines):
        assert time.monotonic() < deadline, lines
        if (pair := next(waiting, None)) is not None:
            export.take(*pair)
        time.sleep(0.1)


def test_a_node_without_traces_imports_nothing_of_opentelemetry():
    program = (
        "import sys; from coordinator.projections.tracing.switch import open_traces; import coordinator.api.server; "
        "assert open_traces({}, 'c', lambda: 0) is None; "
        "print([name for name in sys.modules if name.startswith(('opentelemetry.sdk', 'opentelemetry.exporter'))])"
    )
    done = subprocess.run([sys.executable, "-Ic", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
