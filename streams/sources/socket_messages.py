"""The messages of one websocket, without end: it reconnects by itself.

A connection counts once it has sent a message, so that a server which accepts connections and stays silent is backed
off from like one that does not accept any. A refused handshake keeps the server's own reason; if it is refused for
good, it is retried slowly. The library answers pings and sends ours; a missing pong ends the connection. This module
does not fetch what was missed between two connections: `health` counts the connections, and the feed worker reads
history.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from random import uniform

import structlog
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import InvalidStatus, WebSocketException

from coordinator.streams.clock import wall_ms
from coordinator.streams.log.errors import text_of
from coordinator.streams.net.outbound import open_socket
from coordinator.streams.ports import SourceHealth
from coordinator.streams.sources.waiting import (
    BusyError,
    Patience,
    attempts,
    read_retry_after,
    trouble_of,
)

log = structlog.get_logger(__name__)


async def socket_messages(
    url: str,
    source: str,
    patience: Patience,
    idle_seconds: float,
    health: SourceHealth,
    refusal_text: Callable[[bytes], str],
) -> AsyncGenerator[str | bytes, None]:
    """The server's messages, in order. Ends only when it is closed or cancelled."""
    while True:
        socket, message = await _connected(url, patience, idle_seconds, health, refusal_text)
        try:
            health.state, health.reason = "connected", ""
            health.connections += 1
            while True:
                yield message
                message = await _next_message(socket, idle_seconds)
        except (OSError, WebSocketException) as error:
            health.state, health.reason = "reconnecting", text_of(error)
            log.warning("feed_connection_lost", source=source, reason=text_of(error))
        finally:
            await socket.close()
        # A random pause before the first new attempt, so that many nodes do not reconnect at the same time.
        await asyncio.sleep(uniform(0, patience.wait_initial_seconds))


async def _connected(
    url: str,
    patience: Patience,
    idle_seconds: float,
    health: SourceHealth,
    refusal_text: Callable[[bytes], str],
) -> tuple[ClientConnection, str | bytes]:
    async for attempt in attempts(patience, None):
        with attempt:
            try:
                socket = await _open_socket(url, patience, refusal_text)
                try:
                    first = await _next_message(socket, idle_seconds)
                except BaseException:
                    await socket.close()
                    raise
            except (OSError, WebSocketException, BusyError) as error:
                health.state, health.reason = trouble_of(error)
                raise
    return socket, first


async def _open_socket(
    url: str, patience: Patience, refusal_text: Callable[[bytes], str]
) -> ClientConnection:
    try:
        return await open_socket(
            url,
            patience.request_timeout_seconds,
            ping_interval=patience.ping_seconds,
            ping_timeout=patience.ping_seconds,
            close_timeout=1,
        )
    except InvalidStatus as error:
        answer = error.response
        text = refusal_text(answer.body or b"")
        retry_after_seconds = read_retry_after(answer.headers.get("Retry-After"), wall_ms())
        raise BusyError(answer.status_code, retry_after_seconds, text) from error


async def _next_message(socket: ClientConnection, idle_seconds: float) -> str | bytes:
    try:
        async with asyncio.timeout(idle_seconds):
            return await socket.recv()
    except TimeoutError:
        raise TimeoutError(f"silent for {idle_seconds:g} s") from None
