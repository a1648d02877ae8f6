"""The predict worker's tenure over a log in memory. Models are functions, or real ones behind a real gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from tests.fakes import FakeGateway
from tests.memory_io import MemoryLog
from tests.waiting import limit

from coordinator.infra.models.crash_notes import CrashNotes
from coordinator.streams import events as ev
from coordinator.streams.agents.owning.tenure import OnGarbage, Tenure
from coordinator.streams.agents.predict.models_asked import ModelsAsked
from coordinator.streams.agents.predict.worker import PredictTenure
from coordinator.streams.contract import CrunchContract
from coordinator.streams.inputs.stage import InputStage
from coordinator.streams.log.counting import Counter
from coordinator.streams.log.envelope import (
    ENVELOPE_VERSION,
    Append,
    Need,
    encode_append,
    encode_decision,
    encode_event,
)
from coordinator.streams.log.transitions import Rosters, transitions
from coordinator.streams.ports import Blobs, ModelNotice


class Scene:
    """A tenure over a log. Inputs that are `asked` stand in the log; `delivered` hands them over one by one."""

    def __init__(self, contract: CrunchContract | None = None, gateway: Any = None) -> None:
        self.log = MemoryLog()
        self.gateway = gateway or FakeGateway()
        self.contract = contract or CrunchContract()
        self.noticed: list[ModelNotice] = []
        self.now = 0.0
        self.tenure: PredictTenure | None = None
        self.in_hand: CrashNotes | None = None
        self.blobs: Blobs | None = None
        self.on_garbage: OnGarbage | None = None
        self._seq = 0
        self._next = 0
        self._feeds = 0

    async def start(self) -> None:
        """Begins a tenure, after the end of the previous one."""
        if self.tenure is not None:
            await self.tenure.close()
        self.tenure = PredictTenure(
            self.log,
            "tests",
            ModelsAsked(self.gateway, self.noticed, in_hand=self.in_hand),
            lambda _: self.contract,
            self.on_garbage,
            monotonic=self.clock,
            blobs=self.blobs,
        )
        await self.tenure.start()

    def tick(self, at: int) -> None:
        """Moves the feed's clock to `at`."""
        self.told(ev.ClockTicked(id=f"tick/{at}", at=at, data=ev.ClockTickedData(rehearsal=False)))

    def told(self, *events: ev.AnyEvent) -> None:
        """Adds these events of the feed, in one decision."""
        records = self.log.records["feeds"]
        if not records:
            records.append(encode_append(Append(e=ENVELOPE_VERSION, epoch=1, seq=0, claim="feed")))
        self._feeds += 1
        records.extend(encode_decision(list(events), epoch=1, seq=self._feeds, upto={}, need={}))

    def clock(self) -> float:
        return asyncio.get_running_loop().time() + self.now

    def asked(self, *inputs: ev.InputReceived | ev.InputClosed) -> None:
        """Adds inputs, each a decision of its own."""
        records = self.log.records["inputs"]
        if not records:
            records.append(encode_append(Append(e=ENVELOPE_VERSION, epoch=1, seq=0, claim="feed")))
        for data in inputs:
            self._seq += 1
            records.extend(encode_decision([data], epoch=1, seq=self._seq, upto={}, need={"feeds": Need()}))

    async def inputs_made(self) -> None:
        """The input stage decides on all of `feeds` that is due. Each call is a new owner."""
        tenure = Tenure(self.log, InputStage(lambda _: self.contract), "feed")
        await tenure.start()
        await tenure.close()

    def command(self, event: ev.Event) -> None:
        self.log.records["commands"].append(encode_event(event))

    async def deliver(self, count: int | None = None) -> None:
        """Delivers the next records of `inputs`, as Faust would."""
        assert self.tenure is not None
        records = self.log.records["inputs"]
        end = len(records) if count is None else min(self._next + count, len(records))
        for offset in range(self._next, end):
            async with limit():
                await self.tenure.deliver(offset, records[offset])
        self._next = end
        async with limit():
            await self.tenure.settled()

    def decisions(self, topic: str = "predictions") -> list[list[ev.AnyEvent]]:
        counter = Counter(topic)
        decisions = (
            counter.read(offset, decision) for offset, decision in enumerate(self.log.records[topic])
        )
        return [decision.events for decision in decisions if decision is not None]

    def kinds(self, topic: str = "predictions") -> list[list[str]]:
        """For each decision the kinds of its events; for a ScopeAnswered the status of each model instead."""
        rosters: Rosters = {}
        kinds_of_decisions: list[list[str]] = []
        for decision in self.decisions(topic):
            kinds_of_decisions.append([])
            for event in decision:
                moves = [move.after for move in transitions(event, rosters)]
                kinds_of_decisions[-1] += (
                    moves if isinstance(event, ev.ScopeAnswered) else [type(event).__name__]
                )
        return kinds_of_decisions

    def answers(self) -> list[list[tuple[ev.ScopeAnswered, ev.AnswerEntry]]]:
        """For each decision every model's answer, with the event that contains it."""
        rosters: dict[str, list[ev.RosterEntry]] = {}
        decided = []
        for decision in self.decisions():
            rosters |= {e.data.input_id: e.data.roster for e in decision if isinstance(e, ev.RoundOpened)}
            decided.append(
                [
                    (event, entry)
                    for event in decision
                    if isinstance(event, ev.ScopeAnswered)
                    for entry in event.data.entries(rosters[event.data.input_id])
                ]
            )
        return decided

    def missed(self) -> list[tuple[str, str, str]]:
        """(model, fault, reason) of every absent or failed answer, in order."""
        return [
            (entry.model_id, entry.fault or "", entry.reason)
            for decision in self.answers()
            for _, entry in decision
            if entry.status != "PENDING"
        ]

    async def until(self, done: Callable[[], bool]) -> None:
        async with limit():
            while not done():
                await asyncio.sleep(0.01)
