"""Connections of our HTTP servers: how long each may take for what, and how many there are.

A connection that sends nothing, sends its request slowly, or does not read its answer is dropped. Otherwise a thousand
of them, which cost their owner nothing, would take every file descriptor, and nobody else would be answered. When the
limit is reached, a new connection replaces the one that has been idle longest.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

ABORT = "coordinator.abort"
"""The extension of a request's scope that drops its connection without waiting for a reader that does not read."""
HEAD_SECONDS_MAX = 10.0
"""From the connection, or the answer before, to the end of a request's head."""
BODY_SECONDS_MAX = 15.0
WRITE_SECONDS_MAX = 30.0
"""How long an answer may wait for a reader who takes nothing; and a closed connection for its last bytes."""
HEAD_BYTES_MAX = 32 * 1024
SWEEP_SECONDS = 1.0
BACKLOG = 64
"""The number of connections accepted in one go before the oldest can be dropped."""
CONNECTIONS_MAX = 4_000
FILES_WANTED = 8_192
FILES_KEPT_BACK = 700
"""Descriptors for what is no connection: the stores (64 each), Kafka, the chain, files, and one BACKLOG twice."""
CONNECTIONS_MIN = 64


def ask_for_files() -> None:
    """Take as many file descriptors as this process may have, up to FILES_WANTED."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = FILES_WANTED if hard == resource.RLIM_INFINITY else min(hard, FILES_WANTED)
    if soft != resource.RLIM_INFINITY and soft < most:
        with contextlib.suppress(ValueError, OSError):  # then it stays as it is
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def connections_max() -> int:
    """How many connections the process has descriptors for."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return CONNECTIONS_MAX
    return max(CONNECTIONS_MIN, min(CONNECTIONS_MAX, soft - FILES_KEPT_BACK))


class Connections:
    """All of one server. `dropped` counts those that took too long, or made room."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.open: set[BoundedProtocol] = set()
        self.dropped = 0

    def protocol(self, **uvicorn: Any) -> BoundedProtocol:
        """A new connection's protocol, as uvicorn asks for it."""
        return BoundedProtocol(self, **uvicorn)

    def admit(self, new: BoundedProtocol) -> None:
        """Take it in, in the place of the one that is idle for longest when there is no room."""
        if len(self.open) >= self.most:
            idle = [connection for connection in self.open if connection.is_idle]
            self.drop(min(idle, key=lambda connection: connection.since) if idle else new)
        self.open.add(new)

    def drop(self, connection: BoundedProtocol) -> None:
        """End it without waiting for anything."""
        self.dropped += 1
        self.open.discard(connection)
        connection.transport.abort()

    async def sweep(self) -> None:
        """Drop what takes too long, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            late = [connection for connection in self.open if connection.is_late(loop.time())]
            for connection in late:
                self.drop(connection)
            if late:
                import structlog  # noqa: PLC0415 - 6 MB, which the model host saves until it drops one

                structlog.get_logger().info("connections_dropped", count=len(late), open=len(self.open))


class BoundedProtocol(HttpToolsProtocol):
    """One connection. `since` is when it began to wait for what it waits for now (the loop's clock)."""

    def __init__(self, connections: Connections, **uvicorn: Any) -> None:
        super().__init__(**uvicorn)
        self._all = connections
        self._paused_since: float | None = None
        self._closing_since: float | None = None
        self._head_bytes = 0
        self._in_head = True
        self.since = self.loop.time()

    @property
    def is_idle(self) -> bool:
        """Is nothing asked that could be answered?"""
        return self._in_head_or_body or self.cycle is None or self.cycle.response_complete

    @property
    def _in_head_or_body(self) -> bool:
        return self.cycle is not None and self.cycle.more_body and not self.cycle.response_started

    def is_late(self, now: float) -> bool:
        """Has it taken longer than it may for what it does?"""
        if self.transport.is_closing():
            self._closing_since = self._closing_since or now
            return now - self._closing_since > WRITE_SECONDS_MAX
        if self._paused_since is not None and now - self._paused_since > WRITE_SECONDS_MAX:
            return True
        if self._in_head_or_body:
            return now - self.since > BODY_SECONDS_MAX
        return self.is_idle and now - self.since > HEAD_SECONDS_MAX

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Uvicorn's, within the number of connections."""
        super().connection_made(transport)
        self._all.admit(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Uvicorn's."""
        self._all.open.discard(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Uvicorn's, with a bound on what comes before a body."""
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > HEAD_BYTES_MAX and not self.transport.is_closing():
            self._all.drop(self)

    def on_message_begin(self) -> None:
        """Lets a route drop its connection: closing one waits for a reader that may never read."""
        super().on_message_begin()
        self._in_head = True
        self.scope["extensions"] = {ABORT: {"abort": self.transport.abort}}

    def on_headers_complete(self) -> None:
        """The head is whole: what follows is a body, with a time of its own."""
        self._in_head, self._head_bytes = False, 0
        self.since = self.loop.time()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The request is whole: the next one begins with a head."""
        super().on_message_complete()
        self._in_head = True

    def on_response_complete(self) -> None:
        """From now on it waits for another request."""
        self.since = self.loop.time()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """The reader is behind."""
        self._paused_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        """The reader has caught up."""
        self._paused_since = None
        super().resume_writing()
