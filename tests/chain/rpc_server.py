"""A small HTTP server on a real socket that speaks JSON-RPC as a test tells it, correctly or not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

Answer = Callable[[dict[str, Any]], "bytes | tuple[Any, ...] | float | None"]
"""From the call: a body, or a status and a body (and header lines), or seconds to wait before nothing, or None: hang up."""


class RpcServer:
    """`calls` are the requests so far. `answers` are taken one by one, and the last one is repeated."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.bodies: list[bytes] = []
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.answers: list[Answer] = []
        self.url = ""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                self.paths.append(head.split(" ")[1])
                lines = [line.split(":", 1) for line in head.split("\r\n")[1:] if line]
                self.headers.append({name.lower(): value.strip() for name, value in lines})
                length = int(self.headers[-1]["content-length"])
                self.bodies.append(await reader.readexactly(length))
                call = json.loads(self.bodies[-1])
                self.calls.append(call)
                answer = (self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])(call)
                if answer is None:
                    return
                if isinstance(answer, float):
                    await asyncio.sleep(answer)
                    return
                status, body, *more = answer if isinstance(answer, tuple) else (200, answer)
                extra = "".join(f"{line}\r\n" for line in more)
                writer.write(
                    f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nLocation: /other\r\n{extra}\r\n".encode()
                    + body
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client let go
        finally:
            writer.close()


@asynccontextmanager
async def rpc_server(*answers: Answer) -> AsyncIterator[RpcServer]:
    """The server, listening."""
    state = RpcServer()
    state.answers = list(answers)
    server = await asyncio.start_server(state.handle, "127.0.0.1", 0)
    state.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/secret-key"
    try:
        yield state
    finally:
        server.close()


def result(value: Any) -> Answer:
    """A right answer."""
    return lambda call: json.dumps({"jsonrpc": "2.0", "id": call["id"], "result": value}).encode()


def error(code: int, message: str = "no") -> Answer:
    """A JSON-RPC error."""
    body = {"code": code, "message": message}
    return lambda call: json.dumps({"jsonrpc": "2.0", "id": call["id"], "error": body}).encode()
