"""Connections that cost their owner nothing must not keep the API from answering others. On real sockets."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager

import httpx
import pytest
import uvicorn
from starlette.responses import Response, StreamingResponse
from tests.loopback import NO_CERTIFICATES
from tests.waiting import in_time, limit

from coordinator.api.server import _Server
from coordinator.infra import connections
from coordinator.infra.connections import Connections
from coordinator.infra.processes.sockets import listen


async def endless():
    while True:
        await asyncio.sleep(0)  # as reading in a thread does
        yield b"x" * 65_536


async def app(scope, receive, send):
    """`/endless` streams without end, `/echo` reads its body, everything else is `ok`."""
    if scope["path"] == "/endless":
        await StreamingResponse(endless())(scope, receive, send)
        return
    if scope["path"] == "/echo":
        while (await receive()).get("more_body"):
            pass
    await Response("ok")(scope, receive, send)


@asynccontextmanager
async def serving(most=100):
    bound = listen("127.0.0.1", 0, "a port")
    here = Connections(most)
    config = uvicorn.Config(
        app,
        http=here.protocol,
        ws="none",
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=1,
    )
    server = _Server(config)
    running = asyncio.create_task(server.serve([bound]))
    sweeping = asyncio.create_task(here.sweep())
    while not server.started:
        await asyncio.sleep(0.01)
    opened = []

    async def connect(sent=b""):
        reader, writer = await asyncio.open_connection(*bound.getsockname())
        opened.append(writer)
        writer.write(sent)
        await writer.drain()
        return reader, writer

    try:
        yield here, f"http://127.0.0.1:{bound.getsockname()[1]}", connect
    finally:
        for writer in opened:
            writer.transport.abort()
        server.should_exit = True
        sweeping.cancel()
        await in_time(running)
        bound.close()


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    for name in ("HEAD_SECONDS_MAX", "BODY_SECONDS_MAX", "WRITE_SECONDS_MAX"):
        monkeypatch.setattr(connections, name, 0.2)
    monkeypatch.setattr(connections, "SWEEP_SECONDS", 0.05)


async def dropped(reader):
    async with limit():
        with contextlib.suppress(ConnectionError):
            return await reader.read() == b""
    return True


SLOW = {
    "says nothing": b"",
    "half of a head": b"GET / HTTP/1.1\r\nHost: x\r\n",
    "half of a body": b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf",
    "blank lines": b"\r\n\r\n\r\n",
}


@pytest.mark.parametrize("sent", SLOW.values(), ids=SLOW)
async def test_a_client_that_sends_a_request_slowly_is_dropped(sent):
    async with serving() as (here, _, connect):
        reader, _ = await connect(sent)
        assert await dropped(reader)
        assert here.dropped == 1
        assert not here.open


async def test_a_byte_now_and_then_is_as_slow_as_none():
    async with serving() as (_, _, connect):
        reader, writer = await connect(b"GET / HTTP/1.1\r\n")
        ended = asyncio.create_task(dropped(reader))
        while not ended.done():
            with contextlib.suppress(ConnectionError):
                writer.write(b"X-A: b\r\n")
                await writer.drain()
            await asyncio.sleep(0.02)
        assert ended.result()


async def test_a_client_that_does_not_read_an_answer_is_dropped_and_the_route_notices():
    async with serving() as (here, _, connect):
        await connect(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
        async with limit():
            while not here.dropped:
                await asyncio.sleep(0.02)
        assert not here.open


async def test_an_endless_head_is_dropped_by_its_size(monkeypatch):
    monkeypatch.setattr(connections, "HEAD_SECONDS_MAX", 3600.0)
    async with serving() as (_, _, connect):
        reader, writer = await connect(b"GET / HTTP/1.1\r\n")
        with contextlib.suppress(ConnectionError):
            for _ in range(100):
                writer.write(b"X-A: " + b"b" * 1_000 + b"\r\n")
                await writer.drain()
        assert await dropped(reader)


async def test_without_room_a_new_connection_replaces_the_one_that_is_idle_longest(monkeypatch):
    """With 1,100 idle sockets at 1,024 descriptors nobody was answered, not even a container's health check."""
    monkeypatch.setattr(connections, "HEAD_SECONDS_MAX", 3600.0)
    monkeypatch.setattr(connections, "WRITE_SECONDS_MAX", 3600.0)
    async with serving(most=10) as (here, url, connect):
        busy, _ = await connect(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
        await busy.readexactly(10)
        first, _ = await connect()
        others = [await connect() for _ in range(30)]
        assert await dropped(first)
        async with httpx.AsyncClient(verify=NO_CERTIFICATES) as client:
            assert (await client.get(url + "/healthz")).text == "ok"
        assert len(here.open) <= 10
        await busy.readexactly(1_000_000)  # a connection that is being answered is not dropped for it
        assert others


async def test_the_time_limit_of_a_used_connection_restarts_with_each_answer(monkeypatch):
    monkeypatch.setattr(connections, "HEAD_SECONDS_MAX", 3600.0)
    begins = []
    async with serving() as (here, url, _), httpx.AsyncClient(base_url=url, verify=NO_CERTIFICATES) as client:
        for _ in range(3):
            assert (await client.get("/")).text == "ok"
            (connection,) = here.open
            begins.append(connection.since)
        assert here.dropped == 0
        assert begins[0] < begins[1] < begins[2]
        assert not connection.is_late(begins[2] + 3599)
        assert connection.is_late(begins[2] + 3601)


def test_the_number_of_connections_depends_on_the_descriptors(monkeypatch):
    for soft, wanted in (
        (1_024, 324),
        (256, 64),
        (100_000, 4_000),
        (connections.resource.RLIM_INFINITY, 4_000),
    ):
        monkeypatch.setattr(connections.resource, "getrlimit", lambda _, soft=soft: (soft, soft))
        assert connections.connections_max() == wanted
