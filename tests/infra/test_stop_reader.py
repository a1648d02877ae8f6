"""A reader ends or is abandoned: aiokafka's inner tasks must not keep the whole process from ending."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from tests.waiting import LIMIT_SECONDS, limit

from coordinator.infra.kafka import clients
from coordinator.infra.kafka.clients import stop_reader


class Deaf:
    """Its inner task has missed its cancellation, and `stop` waits for it."""

    def __init__(self, hears_at: int) -> None:
        self.told = 0
        self.hears_at = hears_at
        self.inner = asyncio.create_task(self._fetch())

    async def _fetch(self) -> None:
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                self.told += 1
                if self.told >= self.hears_at:
                    raise

    async def stop(self) -> None:
        await asyncio.sleep(0)
        self.inner.cancel()
        await asyncio.wait((self.inner,))


async def test_a_reader_that_does_not_end_is_abandoned(monkeypatch):
    monkeypatch.setattr(clients, "STOP_SECONDS_MAX", 0.05)
    deaf = Deaf(hears_at=2)
    async with limit():
        await stop_reader(deaf)
    assert not deaf.inner.done()
    deaf.inner.cancel()  # so does the end of the event loop
    with pytest.raises(asyncio.CancelledError):
        await deaf.inner


async def test_a_cancellation_meant_for_the_caller_is_not_swallowed(monkeypatch):
    monkeypatch.setattr(clients, "STOP_SECONDS_MAX", LIMIT_SECONDS)
    deaf = Deaf(hears_at=2)
    stopping = asyncio.create_task(stop_reader(deaf))
    await asyncio.sleep(0.05)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    deaf.inner.cancel()


async def test_a_reader_that_ends_at_once_is_not_waited_for():
    deaf = Deaf(hears_at=1)
    async with limit():
        await stop_reader(deaf)
    assert deaf.inner.done()


class Suppressing:
    """Its `stop` suppresses cancellations, as aiokafka's does while it waits for its inner tasks."""

    async def stop(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0.05)


async def test_a_cancellation_that_the_library_suppresses_reaches_the_caller():
    stopping = asyncio.create_task(stop_reader(Suppressing()))
    await asyncio.sleep(0)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping


async def test_a_caller_that_was_cancelled_before_closes_its_reader_and_continues():
    async def clean_up() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await stop_reader(Suppressing())
            closed.append(True)

    closed: list[bool] = []
    cleaning = asyncio.create_task(clean_up())
    await asyncio.sleep(0)
    cleaning.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cleaning
    assert closed
