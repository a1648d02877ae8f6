"""Kills the checkpoint stage at every read, and before and after every send, from open to paid.

The script takes checkpoints through everything that can happen to them: opened (several in one decision, in parts),
withheld, released, submitted, failed, submitted again, claimable, paid, corrected. Each command comes twice, as from a
client whose connection broke before it got the answer. Each place is a crash of its own. Afterwards the counted log
must be that of an undisturbed run, byte for byte.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter as Tally
from functools import cache
from typing import Any

import msgspec
import pytest
from tests import memory_io
from tests.memory_log import Author, KilledError, MemoryLog
from tests.streams.build import HOUR, T0, TX_A, TX_B, configured, period_closed, shelf, snapshot
from tests.streams.checkpoints.test_checkpoint_commands import CKP, OTHER, advance, confirm, fail, release
from tests.streams.checkpoints.test_corrections import correct

from coordinator.streams import events as ev
from coordinator.streams.agents.owning.ownership import LostOwnershipError
from coordinator.streams.agents.owning.tenure import Tenure
from coordinator.streams.checkpoints.stage import CheckpointStage
from coordinator.streams.log import envelope, lifecycle
from coordinator.streams.log.envelope import decode_append, decode_events

PERIOD = 6 * HOUR
MOVES = {kind for _, kind in lifecycle.CHECKPOINT}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Cuts an append into parts at 2,500 bytes, so that there are places between them."""
    monkeypatch.setattr(envelope, "PART_BYTES_MAX", 2500)
    monkeypatch.setattr(memory_io, "WAIT_SECONDS", 0)


class Places:
    """Counts every contact with the log, and kills at the chosen ones."""

    def __init__(self, kill_at: set[int] | None = None) -> None:
        self.kill_at = kill_at or set()
        self.met: list[str] = []

    def killed_here(self, what: str) -> bool:
        self.met.append(what)
        return len(self.met) - 1 in self.kill_at


class Life:
    """`LogIO` of one process over the log. After its kill nothing reaches the log or comes from it."""

    states_often = False

    def __init__(self, log: memory_io.MemoryLog, places: Places) -> None:
        self.log, self.places, self.dead = log, places, False

    def pass_by(self, what: str) -> None:
        if not self.dead:
            self.dead = self.places.killed_here(what)
        if self.dead:
            raise KilledError(what)

    async def reader(self, topic: str, offset: int, *, patient: bool = False) -> FragileReader:
        return FragileReader(self, topic, offset)

    async def writer(self) -> FragileWriter:
        return FragileWriter(self)


class FragileReader(memory_io.MemoryReader):
    """Kills before it returns what it read. Reads of the owner's own topic are not counted, since they are no step of
    the work.
    """

    def __init__(self, life: Life, topic: str, offset: int) -> None:
        super().__init__(life.log, topic, offset)
        self.life = life

    async def read(self, until: int | None = None) -> list[tuple[int, bytes]]:
        batch = await super().read(until)
        if self.life.dead:
            raise KilledError
        if batch and not (until is None and self._topic == "checkpoints"):
            self.life.pass_by(f"read {self._topic}")
        return batch


class FragileWriter(memory_io.MemoryWriter):
    """Kills before a record is in the log, or after it and before the writer learns that it is."""

    def __init__(self, life: Life) -> None:
        super().__init__(life.log)
        self.life = life

    async def send(self, topic: str, value: bytes) -> asyncio.Future[int]:
        what = described(value)
        self.life.pass_by(f"before {what}")
        sent = await super().send(topic, value)
        self.life.pass_by(f"after {what}")
        return sent


def described(record: bytes) -> str:
    """What a record contains: a claim, nothing, or the kinds of its part."""
    append: Any = decode_append(record)
    if append.claim:
        return "claim"
    kinds = sorted({type(event).__name__ for event in decode_events(append.events)})
    return f"part {append.part[0]} of {append.part[1]}: {' '.join(kinds) or 'nothing'}"


def again(command: ev.Event) -> ev.Event:
    """The same request from a client that did not get the answer: a command of its own."""
    return msgspec.structs.replace(command, id=f"{command.id}-again")


def correct_by(micro_usdc: int, name: str) -> ev.CorrectCheckpoint:
    """b should have had so much of what the first checkpoint paid a."""
    rewards = [(0, 625_000_000), (1, 375_000_000)]
    (_, a), (_, b) = rewards
    amounts = {"a": (a, a - micro_usdc), "b": (b, b + micro_usdc)}
    return correct(amounts, name=name, shares=ev.CheckpointShares(model_ids=["a", "b"], rewards=rewards))


def script() -> list[tuple[str, list[ev.Event]]]:
    """(topic, events) in the order in which they arrive from outside."""
    hold = ev.WithholdCheckpoint(
        id="hold", at=T0, data=ev.WithholdCheckpointData(reason="look", period_at=T0)
    )
    steps: list[tuple[str, list[ev.Event]]] = [("snapshots", [configured()]), ("commands", [hold])]
    shown: list[ev.Event] = [
        snapshot(name, T0 + i * PERIOD, value) for i in range(3) for name, value in (("a", 9 - i), ("b", i))
    ]
    steps.append(("snapshots", [*shown, period_closed(T0 + HOUR, T0 + 3 * PERIOD)]))  # three at once
    for command in (
        confirm(TX_A),  # withheld: refused
        release(),
        confirm(TX_A),
        advance("CLAIMABLE", OTHER),  # skips a step: refused
        confirm(TX_A, OTHER),  # used: refused
        fail(TX_A),
        confirm(TX_A),  # failed before: refused
        confirm(TX_B),
        advance("CLAIMABLE"),  # of the failed transaction: refused
        advance("CLAIMABLE", tx_hash=TX_B),
        advance("PAID", tx_hash=TX_B),
        correct_by(200, "corrected"),
        correct_by(250, "corrected-again"),
    ):
        steps += [("commands", [command]), ("commands", [again(command)])]
    steps.append(
        ("snapshots", [snapshot("b", T0 + 3 * PERIOD, 1), period_closed(T0 + 3 * PERIOD, T0 + 4 * PERIOD)])
    )
    late = correct_by(400, "corrected-late")
    steps += [("commands", [late]), ("commands", [again(late)])]
    steps.append(
        ("snapshots", [snapshot("b", T0 + 4 * PERIOD, 1), period_closed(T0 + 4 * PERIOD, T0 + 5 * PERIOD)])
    )
    return steps


async def lived(places: Places) -> MemoryLog:
    """Plays the script step by step. A new owner follows each killed one. The shells are the real ones."""
    sources = MemoryLog()
    log = memory_io.MemoryLog(batch_max=50)
    authors = {"snapshots": Author(sources, "snapshots"), "commands": Author(sources, "commands")}
    tenure = None
    for topic, events in script():
        authors[topic].write(*events)
        log.records["snapshots"], log.records["commands"] = sources["snapshots"], sources["commands"]
        while True:
            try:
                if tenure is None:
                    tenure = Tenure(Life(log, places), CheckpointStage("btc-up", shelf()), "owner")
                    await tenure.start()
                await work(tenure, log)
                break
            except (KilledError, LostOwnershipError):
                assert tenure is not None
                await tenure.close()
                tenure = None
    assert tenure is not None
    await tenure.close()
    return MemoryLog({"checkpoints": log.records["checkpoints"]})


async def work(tenure: Tenure, log: memory_io.MemoryLog) -> None:
    """Delivers the new records of the driving topic, and waits until the tail has read the commands."""
    for offset, record in enumerate(log.records["snapshots"][tenure.position :], start=tenure.position):
        await tenure.deliver(offset, record)
    while tenure.stage.upto["commands"][0] < len(log.records["commands"]) - 1:
        await asyncio.sleep(0)
        if (error := tenure.tails_failed()) is not None:
            raise error
        if tenure.owned.lost.done():
            raise tenure.owned.lost.result()


@cache
def undisturbed() -> tuple[list[list[bytes]], tuple[str, ...]]:
    """(the counted log, the list of contacts with it) of an undisturbed run."""
    places = Places()
    log = asyncio.run(lived(places))
    return log.counted("checkpoints"), tuple(places.met)


def test_the_script_contains_every_transition_of_the_lifecycle():
    log = asyncio.run(lived(Places()))
    kinds = Tally(type(event).__name__ for event in log.events("checkpoints"))
    assert set(kinds) >= MOVES | {"CommandRefused", "CheckpointCorrected"}
    assert (kinds["CheckpointOpened"], kinds["CheckpointSubmitted"], kinds["CheckpointPaid"]) == (5, 2, 1)
    for kind in MOVES | {"CheckpointCorrected"}:
        for place in ("before", "after"):
            assert any(line.startswith(place) and kind in line for line in undisturbed()[1]), (place, kind)
    assert any("part 2 of" in line for line in undisturbed()[1])


def test_the_log_is_the_same_after_a_kill_at_each_contact():
    expected, met = undisturbed()
    for place, what in enumerate(met):
        places = Places({place})
        log = asyncio.run(lived(places))
        assert places.met[place] == what
        assert log.counted("checkpoints") == expected, f"killed at contact {place}: {what}"


@pytest.mark.parametrize("seed", range(5))
def test_the_log_is_the_same_after_many_kills_in_one_run(seed):
    expected, met = undisturbed()
    rng = random.Random(seed)
    for _ in range(20):
        log = asyncio.run(lived(Places(set(rng.sample(range(3 * len(met)), rng.randint(2, 40))))))
        assert log.counted("checkpoints") == expected


def test_no_period_is_ever_offered_twice_after_any_kill():
    """The only second opening is the release. A hash is submitted once. An offered checkpoint keeps its shares."""
    log = asyncio.run(lived(Places(set(range(7, 400, 13)))))
    offered: dict[str, list[str]] = {}
    for event in log.events("checkpoints"):
        if isinstance(event, ev.CheckpointOpened):
            offered.setdefault(event.data.checkpoint_id, []).append(event.data.emission_sha256)
    assert [len(hashes) for hashes in offered.values()] == [1] * 5
    sent = [
        event.data.tx_hash for event in log.events("checkpoints") if isinstance(event, ev.CheckpointSubmitted)
    ]
    assert sent == [TX_A, TX_B]
    assert CKP in offered


def test_a_correction_is_carried_once_after_any_kill():
    log = asyncio.run(lived(Places(set(range(5, 500, 11)))))
    opened = [event.data for event in log.events("checkpoints") if isinstance(event, ev.CheckpointOpened)]
    credits_of = [[(credit.checkpoint_id, credit.prizes) for credit in data.credits] for data in opened]
    assert credits_of == [[], [], [], [(CKP, {"b": 250})], [(CKP, {"b": 150})]]
