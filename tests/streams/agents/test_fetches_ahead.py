"""How far Faust fetches ahead of its agent: a few fetches, without the second of sleep at Faust's own bound."""

from __future__ import annotations

import asyncio

import pytest
from tests.waiting import in_time

from coordinator.streams.agents.owning import faust_app
from coordinator.streams.agents.owning.faust_app import FETCHES_AHEAD_MAX, FetchesAhead


@pytest.fixture
def ahead(monkeypatch):
    """As many fetches as may wait: up to offsets 9, 19, 29."""
    monkeypatch.setattr(faust_app, "ROOM_SECONDS_MAX", 3600.0)
    fetches = FetchesAhead()
    for number in range(FETCHES_AHEAD_MAX):
        fetches.fetched(10 * number + 9)
    return fetches


async def waiting(ahead: FetchesAhead) -> asyncio.Task[None]:
    task = asyncio.create_task(ahead.room())
    await asyncio.sleep(0)
    return task


async def test_the_next_fetch_is_sent_as_soon_as_one_is_taken(ahead):
    fetch = await waiting(ahead)
    assert not fetch.done()
    ahead.taken(9)
    await in_time(fetch)
    await in_time(ahead.room())
    ahead.fetched(39)
    fetch = await waiting(ahead)
    assert not fetch.done()
    fetch.cancel()


async def test_a_discarded_fetch_is_forgotten_when_the_next_is_taken(ahead):
    ahead.taken(29)
    for number in range(FETCHES_AHEAD_MAX - 1):
        ahead.fetched(100 + number)
    await in_time(ahead.room())


async def test_an_assignment_forgets_the_waiting_fetches(ahead):
    fetch = await waiting(ahead)
    ahead.forget()
    await in_time(fetch)
    ahead.fetched(3)  # offsets went back
    await in_time(ahead.room())


async def test_no_fetch_waits_for_ever(ahead, monkeypatch):
    monkeypatch.setattr(faust_app, "ROOM_SECONDS_MAX", 0.01)
    await in_time(ahead.room())
