"""Reads what the orchestrator says on its websocket, and paces how often a connection is tried.

Reads texts of the client library's websocket; gives (event, data) for the gateway. When a server
closes the connection cleanly, the library connects again at once, several hundred times a second; and it cannot read a
list of more than some three thousand models. Here a connection is tried at most once in `pause_seconds`, and a message
may have 32 MB.

An open connection does not say that the orchestrator is there: when its host is lost or disconnected, the connection
stays open. So whoever gets no answer of a model asks the orchestrator first, and blames nobody if that does not answer
either.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import websockets
from websockets.protocol import State

from coordinator.streams.log.errors import UNREADABLE_JSON
from coordinator.streams.log.reasons import as_name, as_reason
from coordinator.streams.net.outbound import open_socket

log = logging.getLogger(__name__)

Handler = Callable[[str, list[dict[str, Any]]], Awaitable[None]]
OPEN_SECONDS_MAX = 10.0
PING_SECONDS = 10.0
"""How often the connection is tried, and how long it may be silent then: it is taken for lost after twice as long."""
ANSWER_SECONDS_MAX = 2.0
"""For the answer to `Answering.ask`: many round trips, and less than a round waits for its gateway beyond its end."""
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


class Answering:
    """Whether the orchestrator answers on `socket`, the library's client."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._silent: Any = None
        """The connection on which it did not answer in time, until it does."""

    @property
    def connected(self) -> bool:
        """Whether there is a connection, and nobody asked on it in vain."""
        connection = self._socket.websocket
        return connection is not None and connection is not self._silent and connection.state is State.OPEN

    async def ask(self) -> None:
        """Ask whether it is there. Afterwards `connected` is false if it did not answer in ANSWER_SECONDS_MAX."""
        if not self.connected:
            return
        connection = self._socket.websocket
        try:
            pong = await connection.ping()
        except websockets.ConnectionClosed:
            return
        await asyncio.wait([pong], timeout=ANSWER_SECONDS_MAX)
        if not pong.done():
            log.warning("the orchestrator at %s:%s does not answer", self._socket.host, self._socket.port)
            self._silent = connection
            pong.add_done_callback(self._answered)
        elif not pong.cancelled():
            pong.exception()  # the connection's end, which its reader tells

    def _answered(self, pong: asyncio.Future[float]) -> None:
        if not pong.cancelled() and pong.exception() is None:
            self._silent = None


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


def take_over(socket: Any, crunch_id: str, handler: Handler, pause_seconds: float, token: str) -> None:
    """Let `handler` have each message that `socket` (the library's client) reads, and pace its connecting.

    `token` is sent to the orchestrator: a local model host accepts failure reports only with it.
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
                    ping_interval=PING_SECONDS,
                    ping_timeout=PING_SECONDS,
                    additional_headers=headers,
                )
            except (OSError, websockets.WebSocketException) as error:  # a TimeoutError is an OSError
                why = error
            else:
                return
        if socket.websocket is None:
            raise ConnectionError(f"no orchestrator answers at {where}: {why}") from why
        log.warning("no orchestrator answers at %s: %s; retrying", where, why)
        raise TimeoutError from why  # what the library takes for a lost connection, and tries again

    async def handle(text: str | bytes) -> None:
        nonlocal fault
        try:
            message = msgspec.json.decode(text, type=_Message)
        except UNREADABLE_JSON as error:
            log.warning("a message of the orchestrator at %s cannot be read: %s", where, error)
            return
        if message.error:
            if message.error != fault:  # it says so at every try
                log.error(
                    "the orchestrator at %s refuses CRUNCH_ID=%s: %s; retrying",
                    *(where, crunch_id, as_reason(message.error, TEXT_CHARS_SHOWN)),
                )
            fault = message.error
            return
        fault = ""
        states = [cleaned(state) for state in message.data]
        if refused := states.count(None):
            log.warning(
                "the orchestrator at %s names %d models by invalid ids; they are left out", where, refused
            )
        await handler(message.event, [state for state in states if state is not None])

    socket.connect = connect
    socket.handle_event = handle
