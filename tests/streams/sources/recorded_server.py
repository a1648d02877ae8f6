"""A process that plays a file of recorded messages over a websocket: `python recorded_server.py FILE PER_CONNECTION`.

Each connection gets the next PER_CONNECTION lines, beginning a few lines before the end of the previous one. It is then
closed, as an exchange does once a day. Prints its port.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from websockets.asyncio.server import ServerConnection, serve

REPEATED = 5


async def main(path: Path, per_connection: int) -> None:
    place = 0
    starts = [0]
    with path.open("rb") as file:
        for line in file:
            starts.append(starts[-1] + len(line))

    async def play(connection: ServerConnection) -> None:
        nonlocal place
        first, place = max(0, place - REPEATED), min(place + per_connection, len(starts) - 1)
        with path.open("rb") as file:
            file.seek(starts[first])
            for _ in range(first, place):
                await connection.send(file.readline().rstrip(b"\n").decode())
        if place == len(starts) - 1:
            await connection.wait_closed()

    async with serve(play, "127.0.0.1", 0, compression=None) as server:
        print(next(iter(server.sockets)).getsockname()[1], flush=True)
        await server.serve_forever()


asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
