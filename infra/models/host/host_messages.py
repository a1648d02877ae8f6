"""Reads what coordinators send to the host, and sends what the host answers.

A message has at most a mebibyte (the websocket's bound); a message that cannot be read is logged and passed over.
"""

from __future__ import annotations

import asyncio
import logging

import msgspec
import websockets
from websockets.asyncio.server import ServerConnection

from coordinator.streams.log.errors import UNREADABLE_JSON

log = logging.getLogger(__name__)


class Report(msgspec.Struct, frozen=True):
    """A coordinator reports that a model failed."""

    model_id: str
    failure_code: str
    ip: str
    failure_reason: str | None = None


class _Incoming(msgspec.Struct, frozen=True):
    event: str
    data: list[Report] = []


def reports_in(text: str | bytes) -> list[Report]:
    """The reports of a `report_failure` message; an empty list for any other message."""
    try:
        message = msgspec.json.decode(text, type=_Incoming)
    except UNREADABLE_JSON as error:
        log.warning("a message cannot be read, and is ignored: %s", error)
        return []
    if message.event != "report_failure":
        log.warning("an unknown event %r, which is ignored", message.event)
        return []
    return message.data


async def send_all(connection: ServerConnection, messages: asyncio.Queue[str]) -> None:
    """Send each message of the queue until the connection is gone."""
    try:
        while True:
            await connection.send(await messages.get())
    except websockets.ConnectionClosed:
        return
