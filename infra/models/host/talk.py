"""What coordinators say to the host, read; and what the host says to them, sent.

A message has at most a mebibyte (the websocket's bound); what cannot be read is said and passed over.
"""

from __future__ import annotations

import asyncio
import logging

import msgspec
import websockets
from websockets.asyncio.server import ServerConnection

log = logging.getLogger(__name__)


class Report(msgspec.Struct, frozen=True):
    """A coordinator's word that a model failed."""

    model_id: str
    failure_code: str
    ip: str
    failure_reason: str | None = None


class _Incoming(msgspec.Struct, frozen=True):
    event: str
    data: list[Report] = []


def reports_in(text: str | bytes) -> list[Report]:
    """The reports of a `report_failure` message; of any other none."""
    try:
        message = msgspec.json.decode(text, type=_Incoming)
    except msgspec.DecodeError as error:
        log.warning("a message that cannot be read: %s", error)
        return []
    if message.event != "report_failure":
        log.warning("an unknown event %r", message.event)
        return []
    return message.data


async def send_all(connection: ServerConnection, messages: asyncio.Queue[str]) -> None:
    """Send what comes, until the connection is gone."""
    try:
        while True:
            await connection.send(await messages.get())
    except websockets.ConnectionClosed:
        return
