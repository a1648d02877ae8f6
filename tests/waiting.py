"""Waiting in tests: one limit for all, which no busy machine reaches.

A test waits for an event. The seconds that it takes depend on the machine, and benches measure them. The limit only
ends a wait for an event that never comes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from time import monotonic, sleep
from typing import TypeVar

LIMIT_SECONDS = 300.0
Result = TypeVar("Result")


def limit() -> asyncio.Timeout:
    """`async with limit():` around code that waits."""
    return asyncio.timeout(LIMIT_SECONDS)


async def in_time(awaited: Awaitable[Result]) -> Result:
    """Its result. Raises TimeoutError after the limit."""
    async with limit():
        return await awaited


def looks(every_seconds: float = 0.05, state_text: Callable[[], str] = str) -> Iterator[None]:
    """`for _ in looks(): if it_has_come: break`, for a test without an event loop. After the limit it fails with the
    text of `state_text`.
    """
    ends_at = monotonic() + LIMIT_SECONDS
    while monotonic() < ends_at:
        yield
        sleep(every_seconds)
    raise AssertionError(f"it did not come in {LIMIT_SECONDS:g} s\n{state_text()}")


async def until(
    condition: Callable[[], object], every_seconds: float = 0.02, state_text: Callable[[], str] = str
) -> None:
    """Returns once `condition()` is true. After the limit it fails with the text of `state_text`."""
    ends_at = monotonic() + LIMIT_SECONDS
    while not condition():
        assert monotonic() < ends_at, f"it did not come in {LIMIT_SECONDS:g} s\n{state_text()}"
        await asyncio.sleep(every_seconds)
