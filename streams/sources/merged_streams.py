"""Merges several live streams into one, in order of arrival.

If one of them fails, all end with its error, so that a source is never half connected.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TypeVar

Item = TypeVar("Item")
QUEUE_MAX = 1_000


async def merged(streams: Sequence[AsyncGenerator[Item, None]]) -> AsyncGenerator[Item, None]:
    """The items of all streams, until closed. Raises the error of a stream that fails."""
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
        while not all(task.done() for task in pumps) or not queue.empty():
            getting = asyncio.create_task(queue.get())
            running = [task for task in pumps if not task.done()]
            await asyncio.wait([getting, *running], return_when=asyncio.FIRST_COMPLETED)
            for task in pumps:
                if task.done():
                    task.result()
            if getting.done():
                yield getting.result()
            else:
                getting.cancel()
    finally:
        for running_task in [*pumps, *([getting] if getting else [])]:
            running_task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        for stream in streams:
            await stream.aclose()
