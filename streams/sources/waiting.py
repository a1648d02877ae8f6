"""How sources retry: backoff with jitter, the server's Retry-After, and bounds.

Decides from an error whether to retry and when. A lost connection, 418, 429 and 5xx are the world's fault and are
retried; any other error is raised at once. A refusal that will not end by itself (403, 451, a ban) is retried after
`refused_seconds`, and only if there is nothing else to do. The library stamina does the waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import partial
from random import uniform

import httpx
import msgspec
import stamina
import structlog
from websockets.exceptions import WebSocketException

from coordinator.streams.log.errors import RefusedError, WorldError, text_of
from coordinator.streams.ports import SourceHealth
from coordinator.streams.setting_checks import url_host
from coordinator.streams.sources.options import variable_of

BANNED = 418
"""Binance's status for an address that kept sending requests after 429."""
BUSY_STATUSES = (408, BANNED, 425, 429)
RETRY_AFTER_SECONDS_MAX = 86_400.0
SERVER_ERRORS_FROM = 500
BODY_CHARS_MAX = 200

log = structlog.get_logger(__name__)


class Patience(msgspec.Struct, frozen=True):
    """How long a source waits, and for what. Tests use shorter times."""

    request_timeout_seconds: float = 10.0
    """For a connection, and for each next part of an answer."""
    answer_seconds: float = 120.0
    """For a whole answer."""
    attempts: int = 6
    wait_initial_seconds: float = 0.5
    wait_max_seconds: float = 30.0
    wait_jitter_seconds: float = 1.0
    retry_after_seconds_max: float = 120.0
    refused_seconds: float = 300.0
    idle_seconds_min: float = 60.0
    ping_seconds: float = 20.0
    future_seconds_max: float = 60.0

    @property
    def future_ms_max(self) -> int:
        """How far a record's time may be ahead of now, in ms: clocks differ a little."""
        return int(self.future_seconds_max * 1000)


class Probe(msgspec.Struct, frozen=True):
    """Whether a source answered, and if not, why not."""

    ok: bool
    reason: str = ""


class BusyError(Exception):
    """The other side answered that it cannot answer now, or will not.

    The message has its reason and the pause that it asks for, if it gave them.
    """

    def __init__(self, status: int, retry_after_seconds: float | None, text: str = "") -> None:
        self.status = status
        self.retry_after_seconds = retry_after_seconds
        pause = "" if retry_after_seconds is None else f", asks to wait {retry_after_seconds:g} s"
        super().__init__(f"status {status}{': ' if text else ''}{text}{pause}")

    @property
    def is_refusal(self) -> bool:
        """Whether the other side refuses for good, and is not only busy for a moment."""
        return self.status == BANNED or not is_busy(self.status)


def is_busy(status: int) -> bool:
    """Whether a status means "not now"."""
    return status in BUSY_STATUSES or status >= SERVER_ERRORS_FROM


def attempts(patience: Patience, count: int | None) -> AsyncIterator[stamina.Attempt]:
    """Up to `count` attempts (None: without limit) with backoff, jitter and the pauses that the server asks for."""
    return aiter(
        stamina.retry_context(
            on=partial(_pause_after, patience=patience, for_ever=count is None),
            attempts=count,
            timeout=None,
            wait_initial=patience.wait_initial_seconds,
            wait_max=patience.wait_max_seconds,
            wait_jitter=patience.wait_jitter_seconds,
        )
    )


def _pause_after(error: Exception, *, patience: Patience, for_ever: bool) -> bool | float:
    """Whether to retry: True for the usual backoff, or the seconds to wait."""
    if isinstance(error, BusyError):
        asked_seconds = error.retry_after_seconds
        if asked_seconds is None and error.is_refusal:
            asked_seconds = patience.refused_seconds
        if asked_seconds is None:
            return True
        if asked_seconds > patience.retry_after_seconds_max and not for_ever:
            return False
        return asked_seconds + uniform(0, patience.wait_jitter_seconds)
    return isinstance(error, httpx.TransportError | OSError | WebSocketException)


def read_retry_after(header: str | None, now_ms: int) -> float | None:
    """The server's Retry-After (seconds or an HTTP date) in seconds after `now_ms`; None if it cannot be read.

    At most a day: who asks for longer, or writes nonsense, must not keep a feed silent until the node is restarted.
    """
    if header is None:
        return None
    if header.strip().isdecimal():
        return min(float(header), RETRY_AFTER_SECONDS_MAX)
    try:
        moment = parsedate_to_datetime(header)
    except ValueError:
        return None
    seconds = moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() - now_ms / 1000
    return min(max(0.0, seconds), RETRY_AFTER_SECONDS_MAX)


def trouble_of(error: BaseException) -> tuple[str, str]:
    """(state, reason) of a source that cannot be reached because of this error."""
    refused = (isinstance(error, BusyError) and error.is_refusal) or isinstance(error, RefusedError)
    return ("refused" if refused else "reconnecting"), text_of(error)


async def wait_after(error: WorldError, source: str, health: SourceHealth, patience: Patience) -> None:
    """Set `health` by this error, and wait until the next try. A reason that stays the same is logged once."""
    if health.reason != str(error):
        log.warning("feed_connection_lost", source=source, reason=str(error))
    health.state, health.reason = trouble_of(error)
    backoff_seconds = uniform(0, patience.wait_max_seconds)
    await asyncio.sleep(error.again_seconds if isinstance(error, RefusedError) else backoff_seconds)


def plain_refusal(body: bytes) -> str:
    """The start of a body as one line."""
    return " ".join(body[:BODY_CHARS_MAX].decode(errors="replace").split())


def checked_url(source: str, option: str, text: str, schemes: tuple[str, ...]) -> str:
    """The URL without a slash at its end.

    Raises OperatorError if it is not a URL of these schemes. The message does not show it, because it may hold a key.
    """
    url_host(variable_of(source, option), text, schemes)
    return text.rstrip("/")


def log_garbage(reason: str, text: str) -> None:
    """Log garbage: the default, if a source is made without `on_garbage`."""
    log.warning("feed_garbage_received", reason=reason, text=text[:200])
