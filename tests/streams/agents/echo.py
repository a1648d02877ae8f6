"""A stage small enough to be read completely, for the tests of the shells that drive stages."""

from __future__ import annotations

from typing import ClassVar

import msgspec
from tests.memory_io import MemoryLog

from coordinator.streams import events as ev
from coordinator.streams.log.counting import Counter
from coordinator.streams.log.envelope import Append, encode_append, encode_decision
from coordinator.streams.log.stage import Draft, PlacedEvent, Stage, State


class OwnEcho(msgspec.Struct):
    said: list[int] = []


class EchoState(State):
    own: OwnEcho = msgspec.field(default_factory=OwnEcho)


class EchoStage(Stage[EchoState]):
    """scores -> snapshots: decides PeriodClosed for every ScoredUntil, with the sum of all that it has read."""

    topic: ClassVar[str] = "snapshots"
    drivers: ClassVar[tuple[str, ...]] = ("scores",)
    memory: ClassVar[tuple[str, ...]] = ("PeriodClosed",)

    def __init__(self) -> None:
        super().__init__(EchoState())

    @property
    def said(self) -> list[int]:
        return self.state.own.said

    def fold(self, state: EchoState, placed: PlacedEvent) -> None:
        if isinstance(placed.event, ev.PeriodClosed):
            state.own.said.append(placed.event.data.until_ms)

    def decide(self, state: EchoState, placed: PlacedEvent) -> Draft | None:
        if not isinstance(placed.event, ev.ScoredUntil):
            return None
        until, untils = placed.event.data.until, state.own.said
        data = ev.PeriodClosedData(
            from_ms=sum(untils), until_ms=until, snapshot_count=len(untils), rehearsal=False
        )
        event = ev.PeriodClosed(id=f"closed/{until}", at=until, data=data)
        return Draft([event], {"scores": placed.position}, {"scores": placed.after})


def claim_of(epoch: int) -> bytes:
    return encode_append(Append(e=1, epoch=epoch, seq=0, claim=f"owner-{epoch}"))


def score_until(seq: int, epoch: int = 1) -> bytes:
    """Decision `seq` of `scores`: scored until `seq`."""
    event = ev.ScoredUntil(
        id=f"scored-until/{seq}", at=seq, data=ev.ScoredUntilData(until=seq, rehearsal=False)
    )
    return encode_decision([event], epoch=epoch, seq=seq, upto={}, need={})[0]


def untils_in(io: MemoryLog, topic: str = "snapshots") -> list[int]:
    """The stage's counted decisions, after a check that each was taken once."""
    counter = Counter(topic)
    decisions = [counter.read(offset, record) for offset, record in enumerate(io.records[topic])]
    events = [event for decision in decisions if decision is not None for event in decision.events]
    for number, event in enumerate(events):
        assert event.data.snapshot_count == number
        assert event.data.from_ms == sum(earlier.data.until_ms for earlier in events[:number])
    return [event.data.until_ms for event in events]


def claims(io: MemoryLog, topic: str = "snapshots") -> int:
    counter = Counter(topic)
    for offset, record in enumerate(io.records[topic]):
        counter.read(offset, record)
    return counter.claims


def log_of_ten() -> MemoryLog:
    """A log whose `scores` has a claim and ten decisions."""
    log = MemoryLog()
    log.records["scores"] = [claim_of(1), *(score_until(seq) for seq in range(1, 11))]
    return log
