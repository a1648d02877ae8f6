"""Owners that can be killed, over the product's log in memory (streams/engine).

`Author` writes made-up decisions into a source topic under a claim of its own. `Owner` is the engine's. A `Budget`
kills it after a number of sends, and `leave_zombie` adds the sends that were still on their way.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence

from coordinator.streams import engine
from coordinator.streams.events import Event
from coordinator.streams.log.envelope import (
    ENVELOPE_VERSION,
    Append,
    encode_append,
    encode_decision,
    encode_event,
)
from coordinator.streams.log.stage import Stage
from coordinator.streams.topology import BY_TOPIC

__all__ = [
    "Author",
    "Budget",
    "KilledError",
    "MemoryLog",
    "Owner",
    "killed_everywhere",
    "live",
    "undisturbed",
]


class KilledError(Exception):
    """The owner's process is dead and runs no further."""


class Budget:
    """The number of sends until the owner is killed. None: it is never killed."""

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


class MemoryLog(engine.MemoryLog):
    """The log in memory, and the sends of killed owners that have not arrived yet."""

    def __init__(self, topics: Mapping[str, Iterable[bytes]] | None = None) -> None:
        super().__init__(topics)
        self.zombies: list[tuple[str, bytes]] = []
        """Sends of killed owners that are still on their way. They arrive after the next claim."""

    def copy(self, *topics: str) -> MemoryLog:
        """A log with these topics only (with all, if none is named)."""
        return MemoryLog({name: self[name] for name in topics or self.topics})


class Author:
    """Writes counted decisions of made-up events into an enveloped topic, or plain events into the others."""

    def __init__(self, log: MemoryLog, topic: str) -> None:
        self.log = log
        self.topic = topic
        self._seq = 0
        if BY_TOPIC[topic].enveloped:
            log.append(topic, encode_append(Append(e=ENVELOPE_VERSION, epoch=1, seq=0, claim="author")))

    def write(self, *events: Event) -> int:
        """Writes one decision and returns the offset of its last record."""
        if not BY_TOPIC[self.topic].enveloped:
            return [self.log.append(self.topic, encode_event(event)) for event in events][-1]
        self._seq += 1
        records = encode_decision(list(events), epoch=1, seq=self._seq, upto={}, need={})
        return [self.log.append(self.topic, record) for record in records][-1]


class Owner(engine.Owner):
    """One life of a stage's owner. It ends when its budget is spent."""

    log: MemoryLog

    def __init__(self, log: MemoryLog, stage: Stage, budget: Budget | None = None) -> None:
        super().__init__(log, stage, records_states=True)
        self.budget = budget or Budget()

    def _open(self) -> None:
        for late_topic, record in self.log.zombies:
            self.log.append(late_topic, record)
        self.log.zombies.clear()
        super()._open()

    def run_mixed(self, rng: random.Random) -> None:
        """Fold the sources to their ends, a few records of a random one at a time."""
        going = list(self.stage.sources)
        while going:
            source = rng.choice(going)
            for _ in range(rng.randint(1, 4)):
                if not self.step(source):
                    going.remove(source)
                    break

    def leave_zombie(self) -> None:
        """The killed owner's unfinished sends: the remaining parts of its decision, or the whole next one."""
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

    def send_record(self, record: bytes) -> None:
        super().send_record(record)
        self.budget.spend()


NewStage = Callable[[], Stage]


def undisturbed(sources: MemoryLog, new_stage: NewStage, order: Sequence[str] | None = None) -> MemoryLog:
    """The log after the life of an owner that is not killed."""
    log = sources.copy()
    owner = Owner(log, new_stage())
    owner.start()
    owner.run(order)
    return log


def live(log: MemoryLog, new_stage: NewStage, sends: int | None, run: Callable[[Owner], None]) -> bool:
    """One life over a log, killed after `sends` sends (the claim counts as one). True if it finished before that."""
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
    """Logs of killed runs: killed once, after each of its sends in turn; and killed after every send, with the sources
    read in each order after a restart.
    """
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
        # Two sends a life: the claim and one record. A decision of several parts needs more.
        parts = max(len(decision) for decision in whole.counted(topic))
        lives = 0
        while not live(log, new_stage, 1 + parts, lambda owner, order=order: owner.run(order)):
            lives += 1
            assert lives <= 2 * sends + 10, "no progress"
        yield f"killed after every send, restarted with {order[0]} first", log
