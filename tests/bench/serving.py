"""How many boards a second the report worker gives out, at eight connections.

The load comes from a process of its own: `serving.py HOST PORT PATH CONNECTIONS SECONDS` keeps each connection busy
with one request after the other over plain HTTP/1.1, and tells what it counted and how much of a core it used itself
(near 1, the client is the limit and not the server).
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.world import percentile

LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


class Connection(asyncio.Protocol):
    """One keep-alive connection: asks, reads to the length that was announced, asks again."""

    def __init__(self, request: bytes, until: float) -> None:
        self.waits: list[float] = []
        self.body_bytes = 0
        self.over = asyncio.get_running_loop().create_future()
        self._request = request
        self._until = until
        self._left = -1
        self._head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._ask()

    def _ask(self) -> None:
        self._asked = time.perf_counter()
        if self._asked >= self._until:
            self._transport.close()
            return
        self._left, self._head = -1, b""
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if self._left < 0:
            self._head += data
            head, blank, body = self._head.partition(b"\r\n\r\n")
            if not blank:
                return
            length = LENGTH.search(head)
            if not head.startswith(b"HTTP/1.1 200") or length is None:
                self._transport.close()
                self.over.set_exception(RuntimeError(head[:200].decode(errors="replace")))
                return
            self.body_bytes = self._left = int(length[1])
            data = body
        self._left -= len(data)
        if self._left == 0:
            self.waits.append(time.perf_counter() - self._asked)
            self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.over.done():
            self.over.set_result(None)


async def load(host: str, port: int, path: str, connections: int, seconds: float) -> dict[str, float]:
    """Requests a second and latencies (ms) over `seconds`."""
    request = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode()
    loop = asyncio.get_running_loop()
    used, began = time.process_time(), time.perf_counter()
    clients = [
        (await loop.create_connection(lambda: Connection(request, began + seconds), host, port))[1]
        for _ in range(connections)
    ]
    await asyncio.gather(*(client.over for client in clients))
    took = time.perf_counter() - began
    waits = [1000 * wait for client in clients for wait in client.waits]
    return {
        "requests_per_second": len(waits) / took,
        "p50_ms": percentile(waits, 0.5),
        "p99_ms": percentile(waits, 0.99),
        "body_bytes": clients[0].body_bytes,
        "client_cores": (time.process_time() - used) / took,
    }


if __name__ == "__main__":
    host_, port_, path_, connections_, seconds_ = sys.argv[1:]
    found_ = asyncio.run(load(host_, int(port_), path_, int(connections_), float(seconds_)))
    sys.stdout.write(json.dumps({"event": "measured", **found_}) + "\n")
