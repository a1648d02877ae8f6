"""Logs as JSON lines on stdout: one event name per line, so that a supervisor and any log tool can read them."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog

from coordinator.infra.processes.repeated_lines import RepeatedLines
from coordinator.streams.log.trace_ids import checkpoint_trace, round_trace


class _JsonLine(logging.Formatter):
    """Other libraries' messages, in the same shape: `event` is the logger's name."""

    def format(self, record: logging.LogRecord) -> str:
        line = {"event": record.name, "level": record.levelname.lower(), "message": record.getMessage()}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return str(structlog.processors.JSONRenderer()(None, "", dict(line)))


class LineHandler(logging.StreamHandler[TextIO]):
    """Writes them to stdout, a repeated one a few times. `logging.shutdown` closes it, and it says what it left out."""

    def __init__(self) -> None:
        super().__init__(sys.stdout)
        self._repeated = RepeatedLines()
        self.setFormatter(_JsonLine())

    def emit(self, record: logging.LogRecord) -> None:
        """Under the handler's lock, which a filter of the handler would not be."""
        try:
            passes = self._repeated.passes(record)
        # A log call never raises into its caller. Values that do not fit the text are reported as the line is written.
        except Exception:  # noqa: BLE001 - a value's own text may raise anything
            passes = True
        if passes:
            super().emit(record)

    def close(self) -> None:
        self.acquire()
        try:
            counts = self._repeated.counts()
        finally:
            self.release()
        if counts:
            structlog.get_logger().warning("lines_left_out", lines=counts)
        super().close()


PROVOKED = frozenset({"answer_refused", "dead_letter", "feed_garbage_received"})
"""Our own lines of which somebody else decides how many there are. The dead letters have each of them."""


class _ProvokedLines:
    """Drops those that come again and again, whatever they say. The next one says how many were left out."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._repeated = RepeatedLines()

    def __call__(self, _: object, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event = line["event"]
        if event not in PROVOKED:
            return line
        with self._lock:
            left_out = self._repeated.count(event, event, time.time())
        if left_out is None:
            raise structlog.DropEvent
        if left_out:
            line["left_out"] = left_out
        return line


def _add_trace_id(_: object, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The trace of the round or checkpoint that a line is about, as the tracing has it (`streams/log/trace_ids.py`)."""
    crunch_id = line.get("crunch_id")
    if crunch_id and (input_id := line.get("input_id")):
        line["trace_id"] = f"{round_trace(crunch_id, input_id):032x}"
    elif crunch_id and (checkpoint_id := line.get("checkpoint")):
        line["trace_id"] = f"{checkpoint_trace(crunch_id, checkpoint_id):032x}"
    return line


def name_crunch(crunch_id: str) -> None:
    """From here on each line says the crunch, and the trace where it is about one. Call it before the event loop."""
    structlog.contextvars.bind_contextvars(crunch_id=crunch_id)


def set_up_logging(worker: str) -> None:
    """JSON lines on stdout for this process; other libraries' messages from WARNING on, repeated ones counted."""
    handler = LineHandler()
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            _ProvokedLines(),
            _add_trace_id,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
    )
    structlog.contextvars.bind_contextvars(worker=worker)
