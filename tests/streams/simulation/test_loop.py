"""The event loop of virtual time: hours pass in a moment, and it waits for the work of threads."""

from __future__ import annotations

import asyncio
import time

from coordinator.streams.simulation import loop


async def a_thread_beside_an_hour_of_waiting() -> tuple[bool, float]:
    """Whether the thread had finished when the hour had passed, and the loop's time then, in seconds."""
    read = asyncio.create_task(asyncio.to_thread(time.sleep, 0.05))
    await asyncio.sleep(3600)
    return read.done(), asyncio.get_running_loop().time()


def test_time_does_not_jump_over_a_working_thread():
    assert loop.run(a_thread_beside_an_hour_of_waiting()) == (True, 3600.0)
