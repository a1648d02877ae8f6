"""Events of `dead-letters`: what came from outside and could not be read. Many writers, no envelope."""

from __future__ import annotations

from coordinator.streams.events.base import Data, Event


class DeadLetteredData(Data, frozen=True):
    """Garbage from outside: where it came from, why it was refused, its hash and its first 1,000 characters."""

    origin: str
    position: str
    reason: str
    sha256: str
    head: str


class DeadLettered(Event, frozen=True):
    """Something from outside could not be read and was set aside."""

    data: DeadLetteredData
