"""The log as a list: topics of bytes, and an owner that drives a real stage over them and can be killed.

`MemoryLog` holds the topics; offsets are places in a list. `Author` writes made-up decisions into a source topic under
a claim of its own. `Owner` does what streams/agents/owning/tenure.py and ownership.py do, without a broker: it claims, hands
its own counted decisions to `remember`, folds each source from the stage's `need`, decides nothing at or before
`upto`, and numbers its sends. A `Budget` kills it after so many sends.

`counted(topic)` is what every reader sees: the counted decisions' records with epochs set to 0. Two logs are equal
when these are, byte for byte.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence

from coordinator.streams.events import AnyEvent, Event
from coordinator.streams.log import recorded
from coordinator.streams.log.counting import Counter, Decision
from coordinator.streams.log.envelope import (
    ENVELOPE_VERSION,
    Append,
    Need,
    Position,
    decode_event,
    encode_append,
    encode_decision,
    encode_event,
)
from coordinator.streams.log.plain_topics import PlainCounter, counter_for
from coordinator.streams.log.stage import Stage
from coordinator.streams.topology import BY_TOPIC


class KilledError(Exception):
    """The owner's process is gone; nothing more of it runs."""


class Budget:
    """How many sends are left until the owner is killed. None: it lives for ever."""

    def __init__(self, sends: int | None = None) -> None:
        self.left = sends
        self.sent = 0

    def spend(self) -> None:
        """Called after each send is in the log. Raises KilledError with the last one."""
        self.sent += 1
        if self.left is not None:
            self.left -= 1
            if self.left <= 0:
                raise KilledError


class MemoryLog:
    """Topics as lists of records."""

    def __init__(self, topics: dict[str, list[bytes]] | None = None) -> None:
        self.topics: dict[str, list[bytes]] = {
            name: list(records) for name, records in (topics or {}).items()
        }
        self.zombies: list[tuple[str, bytes]] = []
        """Sends of killed owners that are still on their way; they arrive behind the next claim."""

    def __getitem__(self, topic: str) -> list[bytes]:
        return self.topics.setdefault(topic, [])

    def append(self, topic: str, record: bytes) -> int:
        """Put a record at the end; gives its offset."""
        self[topic].append(record)
        return len(self[topic]) - 1

    def copy(self, *topics: str) -> MemoryLog:
        """A log with these topics only (all when none is named)."""
        return MemoryLog({name: self[name] for name in topics or self.topics})

    def decisions(self, topic: str, start: Need | None = None) -> list[Decision]:
        """Every counted decision from a position on."""
        counter = Counter(topic, start)
        begin = counter.next_offset
        found = (
            counter.read(offset, record) for offset, record in enumerate(self[topic][begin:], start=begin)
        )
        return [one for one in found if one is not None]

    def events(self, topic: str) -> list[AnyEvent]:
        """Every counted event."""
        if not BY_TOPIC[topic].enveloped:
            return [decode_event(record) for record in self[topic]]
        return [event for one in self.decisions(topic) for event in one.events]

    def counted(self, topic: str) -> list[list[bytes]]:
        """Per counted decision its records (parts), as bytes, with every epoch 0."""
        return [normalised(one) for one in self.decisions(topic)]


def normalised(decision: Decision) -> list[bytes]:
    """The records of a decision with epochs set to 0, also inside `need`."""
    need = {source: Need(one.offset, 0, one.seq) for source, one in decision.need.items()}
    n = len(decision.bodies)
    return [
        encode_append(
            Append(
                e=ENVELOPE_VERSION,
                epoch=0,
                seq=decision.seq,
                part=(k, n),
                upto=dict(decision.upto),
                need=need,
                events=body,
            )
        )
        for k, body in enumerate(decision.bodies, start=1)
    ]


class Author:
    """Writes counted decisions of made-up events into an enveloped topic, or plain events into the others."""

    def __init__(self, log: MemoryLog, topic: str) -> None:
        self.log = log
        self.topic = topic
        self._seq = 0
        if BY_TOPIC[topic].enveloped:
            log.append(topic, encode_append(Append(e=ENVELOPE_VERSION, epoch=1, seq=0, claim="author")))

    def write(self, *events: Event) -> int:
        """One decision; gives the offset of its (last) record."""
        if not BY_TOPIC[self.topic].enveloped:
            return [self.log.append(self.topic, encode_event(event)) for event in events][-1]
        self._seq += 1
        records = encode_decision(list(events), epoch=1, seq=self._seq, upto={}, need={})
        return [self.log.append(self.topic, record) for record in records][-1]


class Owner:
    """One life of a stage's owner: `start`, then `run` as often as the sources grow."""

    def __init__(self, log: MemoryLog, stage: Stage, budget: Budget | None = None) -> None:
        self.log = log
        self.stage = stage
        self.budget = budget or Budget()
        self.epoch = 0
        self.seq = 0
        self._unsent: list[bytes] = []
        self._counters: dict[str, Counter | PlainCounter] = {}
        self.taken_up = False
        """Did this life begin at a recorded state?"""
        self._bytes_since = self._state_bytes = 0

    def start(self) -> None:
        """Claim, take up the newest recorded state, remember the own decisions behind it, stand at what the stage needs
        of its sources.
        """
        topic = self.stage.topic
        counter = Counter(topic, self._take_up())
        self._remember(counter)
        epoch = counter.epoch + 1
        self._send(encode_append(Append(e=ENVELOPE_VERSION, epoch=epoch, seq=0, claim="owner")))
        self._remember(counter)
        assert counter.epoch == epoch, "the claim did not count"
        for late_topic, record in self.log.zombies:
            self.log.append(late_topic, record)
        self.log.zombies.clear()
        self.epoch, self.seq = epoch, counter.seq
        for source in self.stage.sources:
            need = self.stage.need[source]
            assert need.offset <= len(self.log[source]), f"{source} was cut"
            self._counters[source] = counter_for(source, need)

    def _take_up(self) -> Need:
        states = recorded.StatesRead(recorded.form_of(self.stage))
        for record in self.log[self.stage.topic]:
            states.read(record)
        if states.newest is None:
            return Need()
        recorded.take(self.stage, states.newest)
        self.taken_up = True
        self._state_bytes = sum(map(len, states.newest.parts))
        return states.newest.after

    def _remember(self, counter: Counter) -> None:
        records = self.log[self.stage.topic]
        while counter.next_offset < len(records):
            decision = counter.read(counter.next_offset, records[counter.next_offset])
            if decision is not None:
                self._bytes_since += sum(len(bytes(body)) for body in decision.bodies)
                self.stage.remember(decision)

    def run(self, order: Sequence[str] | None = None) -> None:
        """Fold each source to its end, one source wholly before the next."""
        for source in order or self.stage.sources:
            while self.step(source):
                pass

    def run_mixed(self, rng: random.Random) -> None:
        """Fold the sources to their ends, a few records of a random one at a time."""
        going = list(self.stage.sources)
        while going:
            source = rng.choice(going)
            for _ in range(rng.randint(1, 4)):
                if not self.step(source):
                    going.remove(source)
                    break

    def step(self, source: str) -> bool:
        """Fold one record of a source and send what it makes due. False at its end."""
        counter = self._counters[source]
        offset = counter.next_offset
        if offset >= len(self.log[source]):
            return False
        decision = counter.read(offset, self.log[source][offset])
        if decision is not None:
            self.stage.absorb(decision)
            self.pump()
        return True

    def pump(self) -> None:
        """Send every decision that is due."""
        while (draft := self.stage.step()) is not None:
            self.send(draft.events, dict(self.stage.upto), dict(self.stage.need))

    def send(self, events: Sequence[Event], upto: dict[str, Position], need: dict[str, Need]) -> None:
        """One decision as the next number, part by part."""
        self.seq += 1
        self._unsent = encode_decision(events, epoch=self.epoch, seq=self.seq, upto=upto, need=need)
        self._bytes_since += sum(map(len, self._unsent))
        while self._unsent:
            self._send(self._unsent.pop(0))
        if recorded.is_due(self._bytes_since, self._state_bytes):
            parts = recorded.parts_of(self.stage.state.own)
            self._bytes_since, self._state_bytes = 0, sum(map(len, parts))
            after = Need(len(self.log[self.stage.topic]), self.epoch, self.seq)
            form = recorded.form_of(self.stage)
            self._unsent = recorded.records_of(
                form, parts, epoch=self.epoch, after=after, upto=upto, need=need
            )
            while self._unsent:
                self._send(self._unsent.pop(0))

    def leave_zombie(self) -> None:
        """What a killed owner still had on its way: the other parts of its decision, or a whole next one."""
        late = self._unsent
        if not late and self.epoch:
            draft = self.stage.step()
            if draft is not None:
                late = encode_decision(
                    draft.events,
                    epoch=self.epoch,
                    seq=self.seq + 1,
                    upto=dict(self.stage.upto),
                    need=dict(self.stage.need),
                )
        self.log.zombies += [(self.stage.topic, record) for record in late]

    def _send(self, record: bytes) -> None:
        self.log.append(self.stage.topic, record)
        self.budget.spend()


NewStage = Callable[[], Stage]


def undisturbed(sources: MemoryLog, new_stage: NewStage, order: Sequence[str] | None = None) -> MemoryLog:
    """The log after one owner's whole life."""
    log = sources.copy()
    owner = Owner(log, new_stage())
    owner.start()
    owner.run(order)
    return log


def live(log: MemoryLog, new_stage: NewStage, sends: int | None, run: Callable[[Owner], None]) -> bool:
    """One life over a log, killed after `sends` sends (the claim is one). True when it outlived its work."""
    owner = Owner(log, new_stage(), Budget(sends))
    try:
        owner.start()
        run(owner)
    except KilledError:
        owner.leave_zombie()
        return False
    return True


def killed_everywhere(
    sources: MemoryLog, new_stage: NewStage, orders: Iterable[Sequence[str]]
) -> Iterable[tuple[str, MemoryLog]]:
    """Logs of runs that were killed: once after each send, and after every send, restarted in each order of sources."""
    whole = undisturbed(sources, new_stage)
    topic = new_stage().topic
    sends = len(whole[topic])
    for order in orders:
        for position in range(1, sends + 1):
            log = sources.copy()
            live(log, new_stage, position, lambda owner, order=order: owner.run(order))
            assert live(log, new_stage, None, lambda owner, order=order: owner.run(order))
            yield f"killed after send {position}, restarted with {order[0]} first", log
        log = sources.copy()
        # Two sends a life: the claim and one record; a decision of many parts needs as many.
        parts = max(len(one) for one in whole.counted(topic))
        lives = 0
        while not live(log, new_stage, 1 + parts, lambda owner, order=order: owner.run(order)):
            lives += 1
            assert lives <= 2 * sends + 10, "no progress"
        yield f"killed after every send, restarted with {order[0]} first", log
