"""What a replay waits for: the rounds of all inputs, by the counting rule, read from the end of `predictions` alone."""

from __future__ import annotations

import asyncio

import pytest
from tests.memory_io import MemoryLog
from tests.streams.build import T0, inputs_until, received
from tests.waiting import in_time

from coordinator.streams.agents.feed import rounds_finished
from coordinator.streams.agents.feed.rounds_finished import RoundsFinished
from coordinator.streams.agents.owning.ownership import LostOwnershipError
from coordinator.streams.events import Event, RoundAnswered, RoundAnsweredData
from coordinator.streams.log.envelope import (
    ENVELOPE_VERSION,
    Append,
    Position,
    encode_append,
    encode_decision,
)

MINUTE = 60_000


class Topic:
    """The owners of one topic, in turn."""

    def __init__(self, log: MemoryLog, name: str) -> None:
        self.records, self.epoch, self.seq = log.records[name], 0, 0
        self.claim()

    def claim(self) -> None:
        self.epoch += 1
        self.records.append(
            encode_append(Append(e=ENVELOPE_VERSION, epoch=self.epoch, seq=0, claim=f"owner-{self.epoch}"))
        )

    def write(self, *events: Event, upto: dict[str, Position] | None = None, epoch: int = 0) -> int:
        self.seq += 1 if not epoch else 0
        seq = self.seq + (1 if epoch else 0)
        self.records += encode_decision(
            list(events), epoch=epoch or self.epoch, seq=seq, upto=upto or {}, need={}
        )
        return len(self.records) - 1


def answered(number: int) -> RoundAnswered:
    data = RoundAnsweredData(input_id=f"i{number}", clock=T0)
    return RoundAnswered(id=f"i{number}:answered", at=T0, data=data)


class Scene:
    def __init__(self) -> None:
        self.log = MemoryLog()
        self.inputs, self.predictions = Topic(self.log, "inputs"), Topic(self.log, "predictions")
        self.offsets: list[int] = []

    def open(self) -> int:
        number = len(self.offsets)
        self.offsets.append(self.inputs.write(received(T0 + number * MINUTE)))
        self.inputs.write(inputs_until(T0 + number * MINUTE))
        return self.offsets[-1]

    def answer(self, number: int, *, epoch: int = 0, upto: int | None = None) -> None:
        decided = self.offsets[number] if upto is None else self.offsets[upto]
        self.predictions.write(answered(number), upto={"inputs": (decided, 0)}, epoch=epoch)

    async def waits(self, rounds: RoundsFinished) -> bool:
        """Whether it still waits after it has read all there is."""
        lost: asyncio.Future[LostOwnershipError] = asyncio.get_running_loop().create_future()
        read = rounds._reader.read

        async def read_to_the_end() -> list[tuple[int, bytes]]:
            records = await read()
            if not records:
                lost.set_result(LostOwnershipError("nothing more is there", foreign=False))
            return records

        rounds._reader.read = read_to_the_end
        try:
            await in_time(rounds.wait(lost))
        except LostOwnershipError:
            return True
        else:
            return False
        finally:
            rounds._reader.read = read


@pytest.fixture
def scene() -> Scene:
    return Scene()


async def test_a_restarted_replay_waits_for_the_inputs_without_a_finished_round(scene):
    for _ in range(3):
        scene.open()
    scene.answer(0)
    rounds = RoundsFinished(scene.log)
    await rounds.start()
    assert await scene.waits(rounds)
    scene.answer(2, upto=0)  # out of order: 1 is still open
    assert await scene.waits(rounds)
    scene.answer(1, upto=2)
    assert not await scene.waits(rounds)


async def test_rounds_that_were_finished_long_ago_are_not_waited_for(scene, monkeypatch):
    """Their inputs may still be open, because a truth is resolved hours later."""
    monkeypatch.setattr(rounds_finished, "RECORDS_LOOKED_AT", 3)
    for number in range(50):
        scene.open()
        scene.answer(number)
    rounds = RoundsFinished(scene.log)
    await rounds.start()
    assert not await scene.waits(rounds)


async def test_an_input_that_is_opened_later_is_waited_for(scene):
    rounds = RoundsFinished(scene.log)
    await rounds.start()
    assert not await scene.waits(rounds)
    rounds.expect((scene.open(), 0))
    assert await scene.waits(rounds)
    scene.answer(0)
    assert not await scene.waits(rounds)


@pytest.mark.parametrize("told", ["by the log", "as it opens"])
async def test_each_input_that_one_decision_opens_is_waited_for(scene, told):
    """Two subjects at one minute are two inputs in one append. The end of the first round is not that of the second."""
    rounds = RoundsFinished(scene.log)
    if told == "as it opens":
        await rounds.start()
    both = [received(T0, subject) for subject in ("BTCUSDT", "ETHUSDT")]
    offset = scene.inputs.write(*both)
    if told == "as it opens":
        rounds.expect((offset, 1))
    else:
        await rounds.start()
    scene.predictions.write(answered(0), upto={"inputs": (offset, 0)})
    assert await scene.waits(rounds)
    scene.predictions.write(answered(1), upto={"inputs": (offset, 1)})
    assert not await scene.waits(rounds)


async def test_a_late_append_of_a_replaced_owner_finishes_nothing(scene):
    scene.open()
    scene.predictions.write(answered(9))
    scene.predictions.claim()
    rounds = RoundsFinished(scene.log)
    await rounds.start()
    scene.answer(0, epoch=1)
    assert await scene.waits(rounds)
    scene.answer(0)
    assert not await scene.waits(rounds)


async def test_an_owner_that_lost_the_topic_stops_waiting(scene):
    scene.open()
    rounds = RoundsFinished(scene.log)
    await rounds.start()
    lost: asyncio.Future[LostOwnershipError] = asyncio.get_running_loop().create_future()
    lost.set_result(LostOwnershipError("another claimed", foreign=True))
    with pytest.raises(LostOwnershipError):
        await rounds.wait(lost)
