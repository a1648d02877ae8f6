"""What the orchestrator says on its websocket, read; and how often it is asked again.

Reads texts of the client library's websocket; gives (event, data) for the gateway. The library would connect again at
once to a server that lets go of it politely, several hundred times a second: here a connection is tried at most once
in `pause_seconds`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

log = logging.getLogger(__name__)

Handler = Callable[[str, list[dict[str, Any]]], Awaitable[None]]
TEXT_CHARS_SHOWN = 200


class _Message(msgspec.Struct, frozen=True):
    event: str = ""
    data: list[dict[str, Any]] = []
    error: str = ""


def take_over(socket: Any, crunch_id: str, handler: Handler, pause_seconds: float) -> None:
    """Let `handler` have each message that `socket` (the library's client) reads, and pace its connecting."""
    where = f"{socket.host}:{socket.port}"
    connect = socket.connect
    tried_at = -pause_seconds
    said = ""

    async def connect_in_time() -> None:
        nonlocal tried_at
        await asyncio.sleep(max(0.0, tried_at + pause_seconds - time.monotonic()))
        tried_at = time.monotonic()
        await connect()

    async def handle(text: str | bytes) -> None:
        nonlocal said
        try:
            message = msgspec.json.decode(text, type=_Message)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            log.warning("a message of the orchestrator at %s cannot be read: %s", where, error)
            return
        if message.error:
            if message.error != said:  # it says so at every try
                log.error(
                    "the orchestrator at %s refuses CRUNCH_ID=%s: %s; trying on",
                    *(where, crunch_id, message.error[:TEXT_CHARS_SHOWN]),
                )
            said = message.error
            return
        said = ""
        await handler(message.event, message.data)

    socket.connect = connect_in_time
    socket.handle_event = handle
