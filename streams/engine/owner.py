"""Drives one stage over a log in memory, as an owner of its topic does (`streams/agents/owning`), without a broker.

An owner claims the topic, folds its own counted decisions with `remember`, folds each source from the stage's `need`
on, decides nothing at or before `upto`, and numbers what it sends. It may begin with a state that was recorded in its
topic, or with one that an engine kept (`SavedOwner`); both are caches.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from coordinator.streams.engine.memory_log import LogReader, MemoryLog
from coordinator.streams.events import AnyEvent
from coordinator.streams.log import recorded_state
from coordinator.streams.log.counting import Counter, Decision
from coordinator.streams.log.envelope import (
    ENVELOPE_VERSION,
    Append,
    Need,
    Position,
    encode_append,
    encode_parts,
    parts_of,
)
from coordinator.streams.log.errors import LogError
from coordinator.streams.log.stage import AnyStage, Draft


class SavedOwner(msgspec.Struct, frozen=True):
    """The saved state of an owner, from which another can continue under the same claim and with the next number."""

    form: str
    epoch: int
    seq: int
    upto: dict[str, Position]
    need: dict[str, Need]
    parts: tuple[bytes, ...]


class Owner:
    """One life of a stage's owner: call `start` or `go_on`, then `run` whenever the sources have grown."""

    def __init__(self, log: MemoryLog, stage: AnyStage, *, records_states: bool = False) -> None:
        self.log = log
        self.stage = stage
        self.epoch = 0
        self.seq = 0
        self.readers: dict[str, LogReader] = {}
        self.taken_up = False
        """Whether this life began with a recorded state."""
        self._states = recorded_state.StateRecorder(stage) if records_states else None
        self._unsent: list[bytes] = []

    def start(self) -> None:
        """Claim the topic, load the newest recorded state, fold the own decisions after it, and open the sources.

        Raises LogError if the claim does not count, or if a source was cut.
        """
        topic = self.stage.topic
        counter = Counter(topic, self._take_up())
        self._remember(counter)
        epoch = counter.epoch + 1
        self.send_record(encode_append(Append(e=ENVELOPE_VERSION, epoch=epoch, seq=0, claim="owner")))
        self._remember(counter)
        if counter.epoch != epoch:
            raise LogError(f"the claim on {topic} did not count")
        self.epoch, self.seq = epoch, counter.seq
        self._open()

    def go_on(self, owner_state: SavedOwner) -> None:
        """Go on with the state of another owner, under its claim. The log must have the sources from its needs on."""
        recorded_state.take(
            self.stage,
            recorded_state.StateFound(Need(), owner_state.upto, owner_state.need, owner_state.parts),
        )
        self.epoch, self.seq = owner_state.epoch, owner_state.seq
        self._open()

    def keep(self) -> SavedOwner:
        """The state of this owner. Raises LogError while something waits to be decided."""
        if self.stage.waits() or not all(reader.at_end for reader in self.readers.values()):
            raise LogError(f"{self.stage.topic} is not at rest: something waits to be decided")
        return SavedOwner(
            recorded_state.form_of(self.stage),
            self.epoch,
            self.seq,
            dict(self.stage.upto),
            dict(self.stage.need),
            recorded_state.parts_of(self.stage.state.own),
        )

    def _open(self) -> None:
        for source in self.stage.sources:
            need = self.stage.need[source]
            if need.offset > self.log.end(source):
                raise LogError(f"{source} was cut: it ends before offset {need.offset}")
            self.readers[source] = LogReader(self.log, source, need)

    def _take_up(self) -> Need:
        states = recorded_state.StatesRead(recorded_state.form_of(self.stage))
        for record in self.log[self.stage.topic]:
            states.read(record)
        if states.newest is None:
            return Need()
        if self._states is None:
            recorded_state.take(self.stage, states.newest)
        else:
            self._states.take(states.newest)
        self.taken_up = True
        return states.newest.after

    def _remember(self, counter: Counter) -> None:
        while counter.next_offset < self.log.end(self.stage.topic):
            decision = counter.read(
                counter.next_offset, self.log.record(self.stage.topic, counter.next_offset)
            )
            if decision is not None:
                if self._states is not None:
                    self._states.note(sum(len(bytes(body)) for body in decision.bodies))
                self.stage.remember(decision)

    def run(self, order: Sequence[str] | None = None) -> None:
        """Fold each source to its end, one source after the other."""
        readers = self.readers
        for reader in readers.values() if order is None else [readers[source] for source in order]:
            while not reader.at_end:
                if (decision := reader.step()) is not None:
                    self.take(decision)

    def step(self, source: str) -> bool:
        """Fold one record of a source, and send what becomes due. Returns False at the end of the source."""
        reader = self.readers[source]
        if reader.at_end:
            return False
        decision = reader.step()
        if decision is not None:
            self.take(decision)
        return True

    def take(self, decision: Decision) -> None:
        """Fold one counted decision of a source, and send what becomes due."""
        self.stage.absorb(decision)
        self.pump()

    def pump(self) -> None:
        """Send every decision that is due."""
        while (draft := self.stage.step()) is not None:
            self._send(draft)

    def put(self, draft: Draft | None) -> bool:
        """Send the draft that the stage made from a call from outside. Returns False if it made none."""
        if draft is not None:
            self.stage.remember(draft)
            self._send(draft)
        return draft is not None

    def _send(self, draft: Draft) -> None:
        state = self.stage.state
        self.send(draft.events, dict(state.upto), dict(state.need))

    def send(self, events: Sequence[AnyEvent], upto: dict[str, Position], need: dict[str, Need]) -> None:
        """Sends one decision with the next number: part by part, or as an object if the log is not written."""
        self.seq += 1
        if not self.log.writes:
            topic, offset = self.stage.topic, self.log.end(self.stage.topic)
            before = Need(offset, self.epoch, self.seq - 1)
            self.log.pass_on(
                Decision(topic, offset, offset, self.seq, before, upto, need, None, list(events))
            )
            return
        events, bodies = parts_of(events)
        records = encode_parts(bodies, epoch=self.epoch, seq=self.seq, upto=upto, need=need)
        topic, first = self.stage.topic, self.log.end(self.stage.topic)
        self._put_out(records)
        if self.log[topic][-len(records) :] == records:  # false if a test put another record between them
            last, before = first + len(records) - 1, Need(first, self.epoch, self.seq - 1)
            raws = tuple(map(msgspec.Raw, bodies))
            self.log.share(Decision(topic, first, last, self.seq, before, upto, need, raws, list(events)))
        if self._states is not None:
            self._states.made(self.seq, sum(map(len, records)))
            after = Need(self.log.end(topic), self.epoch, self.seq)
            self._put_out(self._states.records_after(after, self.epoch))

    def _put_out(self, records: list[bytes]) -> None:
        self._unsent = list(records)
        while self._unsent:
            self.send_record(self._unsent.pop(0))

    def send_record(self, record: bytes) -> None:
        """Append one record to the own topic."""
        self.log.append(self.stage.topic, record)
