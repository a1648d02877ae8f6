"""Messages of one websocket, for ever: it reconnects by itself.

A connection counts once it has said something, so that one which opens and falls silent is backed off from
like one that never opened. A handshake that is refused keeps the server's own reason; one that will not be taken soon
is tried slowly. Server pings are answered and our own are sent by the library; a pong that does
not come ends the connection. What was missed between two connections is not looked for here: `health` counts
the connections, and the feed worker asks history.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from random import uniform

import structlog
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import InvalidStatus, WebSocketException

from coordinator.streams.net.outbound import open_socket
from coordinator.streams.ports import SourceHealth
from coordinator.streams.sources.waiting import (
    BusyError,
    Patience,
    attempts,
    plain_refusal,
    reason_of,
    trouble_of,
)

log = structlog.get_logger(__name__)


async def socket_messages(
    url: str,
    source: str,
    patience: Patience,
    idle_seconds: float,
    health: SourceHealth,
    refusal_text: Callable[[bytes], str] = plain_refusal,
) -> AsyncGenerator[str | bytes, None]:
    """What the server says, in its order. Ends only when it is closed or cancelled."""
    while True:
        socket, message = await _connected(url, patience, idle_seconds, health, refusal_text)
        try:
            health.state, health.reason = "connected", ""
            health.connections += 1
            while True:
                yield message
                message = await _next_message(socket, idle_seconds)
        except (OSError, WebSocketException) as error:
            health.state, health.reason = "reconnecting", reason_of(error)
            log.warning("feed_connection_lost", source=source, reason=reason_of(error))
        finally:
            await socket.close()
        # One pause before the first new attempt, so that many nodes do not come back in one instant.
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
        raise BusyError(answer.status_code, answer.headers.get("Retry-After"), text) from error


async def _next_message(socket: ClientConnection, idle_seconds: float) -> str | bytes:
    try:
        async with asyncio.timeout(idle_seconds):
            return await socket.recv()
    except TimeoutError:
        raise TimeoutError(f"silent for {idle_seconds:g} s") from None
