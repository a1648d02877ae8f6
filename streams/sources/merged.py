"""Several live streams as one, in order of arrival.

The first that fails ends all of them with its error: a half of a source is not the source.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TypeVar

Item = TypeVar("Item")
QUEUE_MAX = 1_000


async def merged(streams: Sequence[AsyncGenerator[Item, None]]) -> AsyncGenerator[Item, None]:
    """What any of the streams gives, until it is closed. Raises what one of them raised."""
    if len(streams) == 1:
        async with aclosing(streams[0]) as only:
            async for item in only:
                yield item
        return
    queue: asyncio.Queue[Item] = asyncio.Queue(QUEUE_MAX)

    async def pump(stream: AsyncGenerator[Item, None]) -> None:
        async for item in stream:
            await queue.put(item)

    pumps = [asyncio.create_task(pump(stream)) for stream in streams]
    getting: asyncio.Task[Item] | None = None
    try:
        while not all(one.done() for one in pumps) or not queue.empty():
            getting = asyncio.create_task(queue.get())
            running = [one for one in pumps if not one.done()]
            await asyncio.wait([getting, *running], return_when=asyncio.FIRST_COMPLETED)
            for one in pumps:
                if one.done():
                    one.result()
            if getting.done():
                yield getting.result()
            else:
                getting.cancel()
    finally:
        for task in [*pumps, *([getting] if getting else [])]:
            task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        for stream in streams:
            await stream.aclose()
