"""Garbage from outside becomes dead letters one by one. A flood of it is counted, and fills neither memory nor log."""

from __future__ import annotations

import asyncio

from tests.memory_io import MemoryLog
from tests.waiting import limit

from coordinator.streams.agents.owning import dead_letters
from coordinator.streams.agents.owning.dead_letters import DeadLetters
from coordinator.streams.events import DeadLettered
from coordinator.streams.log.envelope import decode_event


def letters_of(log: MemoryLog) -> list[DeadLettered]:
    return [decode_event(record) for record in log.records["dead-letters"]]


def reasons(log: MemoryLog) -> list[str]:
    return [letter.data.reason for letter in letters_of(log)]


async def test_lone_surrogates_in_a_letter_do_not_block_the_next_one():
    log = MemoryLog()
    letters = DeadLetters(log)
    sending = asyncio.create_task(letters.run())
    async with limit():
        await letters.put("feed \ud83d", "BTC\udc00 1", "no number: \ud800", b"\xff")
        await letters.put("feed", "", "the next", b"")
    sending.cancel()
    assert reasons(log) == ["no number: ?", "the next"]


async def test_a_flood_of_garbage_while_the_broker_is_away_is_bounded_and_counted(monkeypatch):
    monkeypatch.setattr(dead_letters, "WAITING_MAX", 3)
    log = MemoryLog()
    letters = DeadLetters(log)
    for number in range(10):
        letters.from_source(f"garbage {number}", "x")
    sending = asyncio.create_task(letters.run())
    async with limit():
        while len(reasons(log)) < 4:
            await asyncio.sleep(0.01)
    letters.from_source("later", "y")
    async with limit():
        while len(reasons(log)) < 5:
            await asyncio.sleep(0.01)
    sending.cancel()
    assert reasons(log) == [
        *("garbage 0", "garbage 1", "garbage 2"),
        "7 more came meanwhile, too many to keep; the last: garbage 9",
        "later",
    ]


async def sent_letters(texts):
    """What one process sends for these unreadable lines of a source."""
    log = MemoryLog()
    letters = DeadLetters(log)
    sending = asyncio.create_task(letters.run())
    for text in texts:
        letters.from_source("no JSON", text)
    async with limit():
        while len(reasons(log)) < len(texts):
            await asyncio.sleep(0.01)
    sending.cancel()
    return [letter.id for letter in letters_of(log)]


async def test_a_repeated_line_is_a_letter_each_time_and_the_same_letters_after_a_restart():
    texts = ["x", "x", "y", "x"]
    letter_ids = await sent_letters(texts)
    assert len(set(letter_ids)) == 4
    assert await sent_letters(texts) == letter_ids


async def test_the_counted_texts_are_bounded(monkeypatch):
    monkeypatch.setattr(dead_letters, "WAITING_MAX", 3)
    letters = DeadLetters(MemoryLog())
    for number in range(50):
        letters._put_from_source("no JSON", f"line {number}")
        assert len(letters._times_seen) <= 3
