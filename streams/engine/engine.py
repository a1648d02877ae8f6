"""A whole node in one process over a log in memory: every stage wired as `streams/topology.py` says, and no broker.

    engine = Engine(contracts, Functions({"up": lambda data, call: 0.5}))
    engine.configure(terms)
    for at, records in merge_by_time(histories):
        engine.feed(at, records)

The stages decide everything; Kafka only carries it. So this gives the very integers that a node gives. The same feed,
models and contract give the same counted log, byte for byte: nothing here reads a clock or makes an id.

What it offers beside that: `taps` see each counted decision as it is made; a log that is not kept is trimmed behind
what the stages still need, so that memory stays flat; `keep` gives the engine's state as bytes, and an engine that is
given them goes on there. They are a cache: an engine that begins at the first event makes the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from coordinator.streams.checkpoints.stage import CheckpointStage
from coordinator.streams.contract import CrunchContract
from coordinator.streams.engine.ending import Ending, SeenSnapshotStage, end_now
from coordinator.streams.engine.log import LogReader, MemoryLog
from coordinator.streams.engine.models import Models, NoModels
from coordinator.streams.engine.owner import Kept, Owner
from coordinator.streams.engine.rounds import ModelsOwner, RoundsOwner
from coordinator.streams.events import ApplyContract, Event, Terms
from coordinator.streams.feeds.stage import FeedStage
from coordinator.streams.inputs.stage import InputStage
from coordinator.streams.log.birth import Birth, birth_records
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.envelope import Need, encode_event
from coordinator.streams.log.errors import LogError
from coordinator.streams.log.recorded import form_of
from coordinator.streams.log.stage import Draft
from coordinator.streams.ports import FeedRecord, Subscription
from coordinator.streams.scores.stage import RecordedRound, ScoreStage
from coordinator.streams.topology import TOPICS

CRUNCH_ID = "engine"
BIRTH_ID = "e" * 32
TRIMMED_EVERY = 256
"""Instants of the feed between two looks at what a log that is not kept may forget."""

Tap = Callable[[Decision], None]


class KeptEngine(msgspec.Struct, frozen=True):
    """An engine's state: each owner's, and what the topics hold that they still need."""

    crunch_id: str
    owners: dict[str, Kept]
    bases: dict[str, int]
    topics: dict[str, list[bytes]]
    latest: int


class StaleStateError(LogError):
    """A kept state is of another version or crunch: begin at the first event."""


class Engine:
    """All stages over one log. Raises what a stage raises; an engine that raised is not to be used again."""

    def __init__(
        self,
        contracts: Callable[[str], CrunchContract],
        models: Models | None = None,
        *,
        crunch_id: str = CRUNCH_ID,
        settle_rehearsals: bool = True,
        terms_of: Callable[[ApplyContract], Terms] | None = None,
        taps: Mapping[str, Tap] | None = None,
        scores: RecordedRound | None = None,
        keeps_log: bool = True,
        kept: bytes | None = None,
    ) -> None:
        """`contracts` gives a contract by its hash, `terms_of` the terms of one that a command applies. `taps` are
        called with each counted decision of a topic, once the instant's work is done. `scores` gives rounds that need
        not be scored again. Raises StaleStateError.
        """
        self.crunch_id, self.log = crunch_id, MemoryLog()
        self._contracts, self._keeps_log = contracts, keeps_log
        log = self.log
        self.feeds = FeedStage(terms_of)
        self.inputs = InputStage(contracts)
        self.snapshots = SeenSnapshotStage(contracts)
        self.checkpoints = CheckpointStage(crunch_id, contracts, settle_rehearsals=settle_rehearsals)
        self._feeds = Owner(log, self.feeds)
        self.models = ModelsOwner(log, models or NoModels())
        self._rounds = RoundsOwner(
            log, models or NoModels(), contracts, self.models, lambda: self.feeds.own.clock
        )
        self.owners: tuple[Owner, ...] = (
            self._feeds,
            self.models,
            Owner(log, self.inputs),
            self._rounds,
            Owner(log, ScoreStage(contracts, scores)),
            Owner(log, self.snapshots),
            Owner(log, self.checkpoints),
        )
        """In the order of the flow, so that one pass over them leaves nothing to decide."""
        if kept is None:
            self._begin()
        else:
            self._go_on(kept)
        self._taps = [
            (LogReader(log, topic, self._end_of(topic)), tap) for topic, tap in (taps or {}).items()
        ]
        self._instants = 0

    def _begin(self) -> None:
        for topic, record in birth_records(self.crunch_id, Birth(BIRTH_ID, 0)).items():
            self.log.append(topic, record)
        for owner in self.owners:
            owner.start()

    def _end_of(self, topic: str) -> Need:
        owner = next((one for one in self.owners if one.stage.topic == topic), None)
        return Need(self.log.end(topic), owner.epoch if owner else 0, owner.seq if owner else 0)

    # --- what it is told ---------------------------------------------------------------------------

    @property
    def subscriptions(self) -> list[Subscription]:
        """What the newest terms ask of a feed; empty before the first."""
        told = self.feeds.own.terms.events
        if not told:
            return []
        feed, subjects = told[-1].data.feed, told[-1].data.subjects
        return [Subscription(feed.source, subject, feed.kind, feed.granularity) for subject in subjects]

    def configure(self, terms: Terms) -> None:
        """Put terms into the log: the first hold at once, others from the next checkpoint boundary on. Raises
        OperatorError for terms whose scores could not stand beside those that are recorded.
        """
        self.tell(self.feeds.configure(terms, max(self.feeds.own.clock, 0)))

    def feed(self, at: int, records: Sequence[FeedRecord]) -> None:
        """One instant of history: the records with this `at` (ms), after which it is `at`."""
        self.tell(self.feeds.replayed(at, self.subscriptions, records))

    def tell(self, draft: Draft | None) -> None:
        """A draft that the stage `feeds` made of what it heard; then everything that becomes due."""
        if self._feeds.put(draft):
            self.run()

    def command(self, event: Event) -> None:
        """An operator's command; then everything that becomes due."""
        self.log.append("commands", encode_event(event))
        self.run()

    def run(self) -> None:
        """Decide everything that is due."""
        for owner in self.owners:
            owner.run()
        for reader, tap in self._taps:
            while (decision := reader.next()) is not None:
                tap(decision)
        self._instants += 1
        if not self._keeps_log and self._instants % TRIMMED_EVERY == 0:
            self._trim()

    # --- what it gives -----------------------------------------------------------------------------

    def end_now(self) -> Ending:
        """What the running period would pay if it ended now; nothing is changed. Raises WorldError before a score."""
        return end_now(
            self.snapshots.state,
            self.snapshots.latest,
            self.checkpoints.state,
            self.crunch_id,
            self._contracts,
        )

    def keep(self) -> bytes:
        """The engine's state, to go on from (`kept=`). Raises LogError while something waits to be decided."""
        needs = self._needs()
        return msgspec.msgpack.encode(
            KeptEngine(
                self.crunch_id,
                {owner.stage.topic: owner.keep() for owner in self.owners},
                needs,
                {
                    topic: [self.log.record(topic, at) for at in range(need, self.log.end(topic))]
                    for topic, need in needs.items()
                },
                self.snapshots.latest,
            )
        )

    def _go_on(self, kept: bytes) -> None:
        try:
            state = msgspec.msgpack.decode(kept, type=KeptEngine)
        except msgspec.DecodeError as error:
            raise StaleStateError(f"the kept state cannot be read: {error}") from error
        forms = {owner.stage.topic: form_of(owner.stage) for owner in self.owners}
        if state.crunch_id != self.crunch_id or {key: one.form for key, one in state.owners.items()} != forms:
            raise StaleStateError("the kept state is of another version or crunch")
        self.log.topics.update({topic: list(records) for topic, records in state.topics.items()})
        self.log.bases.update(state.bases)
        self.snapshots.latest = state.latest
        for owner in self.owners:
            owner.go_on(state.owners[owner.stage.topic])
        self._fold_kept()

    def _fold_kept(self) -> None:
        """Fold what the sources hold from the needs on: it is decided already, and makes nothing."""
        ends = {topic: self.log.end(topic) for topic in TOPICS}
        for owner in self.owners:
            owner.run()
        if ends != {topic: self.log.end(topic) for topic in TOPICS}:
            raise StaleStateError("the kept state decides anew what it had decided")

    def _needs(self) -> dict[str, int]:
        """Topic -> the first offset that any stage still needs; of one that nobody folds its end."""
        needs = {topic: self.log.end(topic) for topic in TOPICS}
        for owner in self.owners:
            for source, need in owner.stage.need.items():
                needs[source] = min(needs[source], need.offset)
        needs["snapshots"] = min(needs["snapshots"], self._rounds.snapshots_needed)
        return needs

    def _trim(self) -> None:
        for topic, need in self._needs().items():
            self.log.forget(topic, need)
