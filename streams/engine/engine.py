"""A whole node in one process over a log in memory: every stage wired as `streams/topology.py` says, and no broker.

    engine = Engine(contracts, Functions({"up": lambda data, call: 0.5}))
    engine.configure(terms)
    for at, records in merge_by_time(histories):
        engine.feed(at, records)

Takes feed records, terms and commands; writes all topics of a `MemoryLog`. The stages decide everything and Kafka only
carries it, so an engine gives the same integers as a node. The same feed, models and contract give the same counted
log, byte for byte: nothing here reads a clock or draws an id.

- `Output(taps=..)` get each counted decision of a topic.
- With `Output(keeps_log=False)` the log is not written, and is trimmed behind what the stages still need, so that
  memory stays flat.
- `keep` returns the engine's state as bytes, and an engine with `state_bytes=` resumes there. The bytes are a cache: an
  engine that begins at the first event decides the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import msgspec

from coordinator.streams.checkpoints.stage import CheckpointStage
from coordinator.streams.contract.contract import Contracts
from coordinator.streams.engine.memory_log import LogReader, MemoryLog
from coordinator.streams.engine.models import Models, NoModels
from coordinator.streams.engine.owner import Owner, SavedOwner
from coordinator.streams.engine.period_end import Ending, SeenSnapshotStage, end_now
from coordinator.streams.engine.round_owners import ModelsOwner, RoundsOwner
from coordinator.streams.events import ApplyContract, Event, Terms
from coordinator.streams.feeds.stage import FeedStage
from coordinator.streams.inputs.stage import InputStage
from coordinator.streams.log.birth import Birth, birth_records
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.envelope import Need, encode_event
from coordinator.streams.log.errors import LogError
from coordinator.streams.log.recorded_state import form_of
from coordinator.streams.log.stage import Draft
from coordinator.streams.ports import BlobReader, FeedRecord, Subscription
from coordinator.streams.scores.stage import RecordedRound, ScoreStage
from coordinator.streams.topology import TOPICS

CRUNCH_ID = "engine"
BIRTH_ID = "e" * 32
TRIMMED_EVERY = 64
"""How many instants of the feed pass between two trims of a log that is not kept. So most decisions are dropped before
they would be written (`memory_log.py`).
"""

Tap = Callable[[Decision], None]


class Output(NamedTuple):
    """Where the decisions go: each counted decision is passed to the tap of its topic once the work of that instant
    is done. All of them are in the engine's log, unless the log is not kept.
    """

    taps: Mapping[str, Tap] = MappingProxyType({})
    keeps_log: bool = True


class Recorded(NamedTuple):
    """What exists already and is not made again: the scores of rounds, and large tables and answers."""

    scores: RecordedRound | None = None
    blobs: BlobReader | None = None


WRITTEN, NOTHING_RECORDED = Output(), Recorded()


class SavedEngine(msgspec.Struct, frozen=True):
    """An engine's state: the state of each owner (by topic), and the records that they still need.

    `bases` is topic -> the offset of the first of these records; `latest` is that of `SeenSnapshotStage`.
    """

    crunch_id: str
    owners: dict[str, SavedOwner]
    bases: dict[str, int]
    topics: dict[str, list[bytes]]
    latest: int


class StaleStateError(LogError):
    """A kept state is of another version or crunch. The caller begins at the first event."""


class Engine:
    """All stages over one log. Raises what a stage raises. An engine that raised must not be used again."""

    def __init__(
        self,
        contracts: Contracts,
        models: Models | None = None,
        *,
        crunch_id: str = CRUNCH_ID,
        terms_of: Callable[[ApplyContract], Terms] | None = None,
        output: Output = WRITTEN,
        recorded: Recorded = NOTHING_RECORDED,
        state_bytes: bytes | None = None,
    ) -> None:
        """`terms_of` gives the terms of a contract that a command applies. `state_bytes` is the state that `keep` of an
        engine with the same stages returned. Raises StaleStateError.
        """
        self.crunch_id, self.log = crunch_id, MemoryLog(writes=output.keeps_log)
        self._contracts, self._keeps_log = contracts, output.keeps_log
        log = self.log
        self.feeds = FeedStage(terms_of)
        self.inputs = InputStage(contracts)
        self.snapshots = SeenSnapshotStage(contracts)
        self.checkpoints = CheckpointStage(crunch_id, contracts, settle_rehearsals=True)
        self._feeds = Owner(log, self.feeds)
        self.models = ModelsOwner(log, models or NoModels())
        self._rounds = RoundsOwner(
            log, models or NoModels(), contracts, self.models, lambda: self.feeds.own.clock, recorded.blobs
        )
        self.owners: tuple[Owner, ...] = (
            self._feeds,
            self.models,
            Owner(log, self.inputs),
            self._rounds,
            Owner(log, ScoreStage(contracts, *recorded)),
            Owner(log, self.snapshots),
            Owner(log, self.checkpoints),
        )
        """In the order of the topology, so that one pass over them decides everything that is due."""
        if state_bytes is None:
            self._begin()
        else:
            self._go_on(state_bytes)
        self._taps = [(LogReader(log, topic, self._end_of(topic)), tap) for topic, tap in output.taps.items()]
        self._instants = 0

    def _begin(self) -> None:
        for topic, record in birth_records(self.crunch_id, Birth(BIRTH_ID, 0)).items():
            self.log.append(topic, record)
        for owner in self.owners:
            owner.start()

    def _end_of(self, topic: str) -> Need:
        owner = next((owner for owner in self.owners if owner.stage.topic == topic), None)
        return Need(self.log.end(topic), owner.epoch if owner else 0, owner.seq if owner else 0)

    # --- what goes in ------------------------------------------------------------------------------

    @property
    def subscriptions(self) -> list[Subscription]:
        """What the newest terms subscribe to; empty before the first terms."""
        configured = self.feeds.own.terms.events
        if not configured:
            return []
        feed, subjects = configured[-1].data.feed, configured[-1].data.subjects
        return [Subscription(feed.source, subject, feed.kind, feed.granularity) for subject in subjects]

    def configure(self, terms: Terms) -> None:
        """Put terms into the log. The first terms apply at once, later ones from the next checkpoint boundary. Raises
        OperatorError if scores under the terms cannot be compared with the recorded ones.
        """
        self.tell(self.feeds.configure(terms, max(self.feeds.own.clock, 0)))

    def feed(self, at: int, records: Sequence[FeedRecord]) -> None:
        """Take the records of one instant (their `at`, in ms) and set the clock to it; then decide what is due.

        Questions that open or close before it do so at their own times.
        """
        while (turn := self.feeds.turn_before(at)) is not None:
            self.tell(self.feeds.replayed(turn, self.subscriptions, []))
        self.tell(self.feeds.replayed(at, self.subscriptions, records))

    def tell(self, draft: Draft | None) -> None:
        """Append a draft of the stage `feeds`; then decide what is due."""
        if self._feeds.put(draft):
            self.run()

    def command(self, event: Event) -> None:
        """Append an operator's command; then decide what is due."""
        self.log.append("commands", encode_event(event))
        self.run()

    def settle(self) -> None:
        """Wait for models that still think (models in processes of their own), and decide what follows.

        Call it after the last instant. Until then the newest round may be open.
        """
        self._rounds.collect()
        self.run()

    def run(self) -> None:
        """Decide everything that is due, tell the taps, and trim a log that is not kept."""
        for owner in self.owners:
            owner.run()
        for reader, tap in self._taps:
            while not reader.at_end:
                if (decision := reader.step()) is not None:
                    tap(decision)
        self._instants += 1
        if not self._keeps_log and self._instants % TRIMMED_EVERY == 0:
            self._trim()

    # --- what comes out ----------------------------------------------------------------------------

    def end_now(self) -> Ending:
        """What the running period would pay if it ended now. Changes nothing. Raises WorldError before a score.

        Call `settle` before it where models run in processes of their own.
        """
        return end_now(
            self.snapshots.state,
            self.snapshots.latest,
            self.checkpoints.state,
            self.crunch_id,
            self._contracts,
        )

    def keep(self) -> bytes:
        """The engine's state as bytes, for `state_bytes=`. Raises LogError while something waits to be decided."""
        needs = self._needs()
        return msgspec.msgpack.encode(
            SavedEngine(
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

    def _go_on(self, state_bytes: bytes) -> None:
        try:
            state = msgspec.msgpack.decode(state_bytes, type=SavedEngine)
        except msgspec.DecodeError as error:
            raise StaleStateError(f"the kept state cannot be read: {error}") from error
        forms = {owner.stage.topic: form_of(owner.stage) for owner in self.owners}
        if (
            state.crunch_id != self.crunch_id
            or {topic: kept_owner.form for topic, kept_owner in state.owners.items()} != forms
        ):
            raise StaleStateError("the kept state is of another version or crunch")
        self.log.topics.update({topic: list(records) for topic, records in state.topics.items()})
        self.log.bases.update(state.bases)
        self.snapshots.latest = state.latest
        for owner in self.owners:
            owner.go_on(state.owners[owner.stage.topic])
        self._fold_kept()

    def _fold_kept(self) -> None:
        """Fold what the sources hold from the needs on. All of it is decided already, so no topic may grow."""
        ends = {topic: self.log.end(topic) for topic in TOPICS}
        for owner in self.owners:
            owner.run()
        if ends != {topic: self.log.end(topic) for topic in TOPICS}:
            raise StaleStateError("the kept state decides anew what it had decided")

    def _needs(self) -> dict[str, int]:
        """Topic -> the first offset that any stage still needs; of a topic that no stage reads, its end."""
        needs = {topic: self.log.end(topic) for topic in TOPICS}
        for owner in self.owners:
            for source, need in owner.stage.need.items():
                needs[source] = min(needs[source], need.offset)
        needs["snapshots"] = min(needs["snapshots"], self._rounds.snapshots_needed)
        return needs

    def _trim(self) -> None:
        for topic, need in self._needs().items():
            self.log.forget(topic, need)
