"""Reads what the orchestrator says on its websocket, and paces how often a connection is tried.

Reads texts of the client library's websocket; gives (event, data) for the gateway. When a server
closes the connection cleanly, the library connects again at once, several hundred times a second; and it cannot read a
list of more than some three thousand models. Here a connection is tried at most once in `pause_seconds`, and a message
may have 32 MB.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import websockets

from coordinator.streams.log.reasons import as_name, as_reason
from coordinator.streams.net.outbound import open_socket

log = logging.getLogger(__name__)

Handler = Callable[[str, list[dict[str, Any]]], Awaitable[None]]
OPEN_SECONDS_MAX = 10.0
TEXT_CHARS_SHOWN = 200
STATE_CHARS_MAX = 256
STATE_TEXTS = ("model_id", "deployment_id", "state", "ip", "port")
INFOS_TEXTS = (
    *("model_name", "cruncher_id", "cruncher_name", "cruncher_wallet_pubkey", "cruncher_hotkey"),
    *("cruncher_onchain_name", "model_type"),
)
MESSAGE_BYTES_MAX = 32 * 1024 * 1024


class _Message(msgspec.Struct, frozen=True):
    event: str = ""
    data: list[dict[str, Any]] = []
    error: str = ""


def cleaned(state: dict[str, Any]) -> dict[str, Any] | None:
    """A model's state with the texts that we read and no others, each short and printable; None where an id is not.

    Names are participants' own words; an id is compared, so it is taken as it is or not at all.
    """
    infos = state.get("infos")
    infos_known = infos if isinstance(infos, dict) else {}
    state_cleaned: dict[str, Any] = {name: _text(state.get(name)) for name in STATE_TEXTS}
    state_cleaned["infos"] = {
        name: _text(infos_known[name]) for name in INFOS_TEXTS if infos_known.get(name) is not None
    }
    for name in ("model_id", "deployment_id"):
        if not state_cleaned[name] or str(state[name]) != state_cleaned[name]:
            return None
    return state_cleaned


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else str(value) if isinstance(value, int) else ""
    return as_name(text, STATE_CHARS_MAX)


def take_over(socket: Any, crunch_id: str, handler: Handler, pause_seconds: float, token: str = "") -> None:
    """Let `handler` have each message that `socket` (the library's client) reads, and pace its connecting.

    `token` is shown to the orchestrator: a model host of ours takes failure reports from nobody without it.
    """
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    where = f"{socket.host}:{socket.port}"
    tried_at = -pause_seconds
    fault = ""

    async def connect() -> None:
        nonlocal tried_at
        why: Exception | None = None
        for _ in range(socket.max_retries):
            await asyncio.sleep(max(0.0, tried_at + pause_seconds - time.monotonic()))
            tried_at = time.monotonic()
            try:
                socket.websocket = await open_socket(
                    f"ws://{where}/{crunch_id}",
                    OPEN_SECONDS_MAX,
                    max_size=MESSAGE_BYTES_MAX,
                    additional_headers=headers,
                )
            except (OSError, websockets.WebSocketException) as error:  # a TimeoutError is an OSError
                why = error
            else:
                return
        if socket.websocket is None:
            raise ConnectionError(f"no orchestrator answers at {where}: {why}") from why
        log.warning("no orchestrator answers at %s: %s; trying on", where, why)
        raise TimeoutError from why  # what the library takes for a lost connection, and tries again

    async def handle(text: str | bytes) -> None:
        nonlocal fault
        try:
            message = msgspec.json.decode(text, type=_Message)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            log.warning("a message of the orchestrator at %s cannot be read: %s", where, error)
            return
        if message.error:
            if message.error != fault:  # it says so at every try
                log.error(
                    "the orchestrator at %s refuses CRUNCH_ID=%s: %s; trying on",
                    *(where, crunch_id, as_reason(message.error, TEXT_CHARS_SHOWN)),
                )
            fault = message.error
            return
        fault = ""
        states = [cleaned(state) for state in message.data]
        if refused := states.count(None):
            log.warning("the orchestrator at %s names %d models by ids that cannot be", where, refused)
        await handler(message.event, [state for state in states if state is not None])

    socket.connect = connect
    socket.handle_event = handle
