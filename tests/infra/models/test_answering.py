"""An orchestrator whose host stops sending, while the connection to it looks open. `tests/hosts` cuts real cables."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace

import pytest
from tests.waiting import LIMIT_SECONDS, until
from websockets.asyncio.server import ServerConnection, serve

from coordinator.infra.models import orchestrator
from coordinator.infra.models.orchestrator import Answering
from coordinator.streams.net.outbound import open_socket


class Valve:
    """A connection to a server through which nothing passes while it is shut."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._open = asyncio.Event()
        self._open.set()
        self._tasks: list[asyncio.Task[None]] = []

    def shut(self) -> None:
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection("127.0.0.1", self._port)
        self._tasks += [
            asyncio.create_task(self._carry(reader, there[1])),
            asyncio.create_task(self._carry(there[0], writer)),
        ]

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while some := await source.read(65_536):
            await self._open.wait()
            sink.write(some)
        sink.close()

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()


@pytest.fixture
async def way() -> AsyncIterator[tuple[Valve, Answering]]:
    """A valve before an orchestrator, and the gateway's probe through it."""

    async def stand(connection: ServerConnection) -> None:
        await connection.wait_closed()

    async with serve(stand, "127.0.0.1", 0) as server:
        valve = Valve(next(iter(server.sockets)).getsockname()[1])
        entry = await asyncio.start_server(valve.take, "127.0.0.1", 0)
        port = entry.sockets[0].getsockname()[1]
        socket = await open_socket(f"ws://127.0.0.1:{port}", 5.0)
        yield valve, Answering(SimpleNamespace(websocket=socket, host="127.0.0.1", port=port))
        valve.open()
        await socket.close()
        valve.close()
        entry.close()


async def test_an_open_connection_that_answers_nothing_is_not_connected_until_it_does(
    way: tuple[Valve, Answering], monkeypatch: pytest.MonkeyPatch
):
    valve, answering = way
    monkeypatch.setattr(orchestrator, "ANSWER_SECONDS_MAX", LIMIT_SECONDS)
    await answering.ask()
    assert answering.connected
    monkeypatch.setattr(orchestrator, "ANSWER_SECONDS_MAX", 0.3)
    valve.shut()
    assert answering.connected  # no model was reported
    await asyncio.gather(answering.ask(), answering.ask())
    assert not answering.connected
    valve.open()
    await until(lambda: answering.connected)


async def test_a_connection_that_ends_during_the_probe_is_not_connected(way: tuple[Valve, Answering]):
    valve, answering = way
    valve.shut()
    asking = asyncio.create_task(answering.ask())
    await asyncio.sleep(0.05)
    answering._socket.websocket.transport.abort()
    await asking
    assert not answering.connected
    await answering.ask()  # without a connection there is nothing to probe
    assert not answering.connected
