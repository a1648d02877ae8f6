"""Logs as JSON lines on stdout: one event name per line, so that a supervisor and any log tool can read them."""

from __future__ import annotations

import logging
import sys

import structlog


class _JsonLine(logging.Formatter):
    """Other libraries' messages, in the same shape: `event` is the logger's name."""

    def format(self, record: logging.LogRecord) -> str:
        line = {"event": record.name, "level": record.levelname.lower(), "message": record.getMessage()}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return str(structlog.processors.JSONRenderer()(None, "", dict(line)))


def set_up_logging(worker: str) -> None:
    """JSON lines on stdout for this process; other libraries' messages from WARNING on."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_JsonLine())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
    )
    structlog.contextvars.bind_contextvars(worker=worker)
