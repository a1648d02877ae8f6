"""The topics that anybody may write to: every record that is an event counts, as a decision of its own.

What is no event is garbage. Every reader passes over it alike, so that no record from outside stops one.
"""

from __future__ import annotations

import msgspec

from coordinator.streams.log.birth import is_birth
from coordinator.streams.log.counting import Counter, Decision
from coordinator.streams.log.envelope import Need, decode_outside, record_named
from coordinator.streams.topology import BY_TOPIC


class PlainCounter:
    """`Counter` for a topic of many writers."""

    def __init__(self, topic: str, start: Need | None = None) -> None:
        self.topic = topic
        self.next_offset = (start or Need()).offset
        self.uncounted = 0
        self.garbage = ""
        """Why the last record read was no event; empty for one that was, and for the topic's birth."""

    def read(self, offset: int, record: bytes | None) -> Decision | None:
        """The event as a decision, or None for what this version cannot take."""
        self.next_offset = offset + 1
        self.garbage = ""
        try:
            with record_named(self.topic, offset):
                if is_birth(offset, record):
                    return None
            event = decode_outside(record)
        except msgspec.DecodeError as error:
            self.uncounted += 1
            self.garbage = str(error)
            return None
        bodies = (msgspec.Raw(b"[" + (record or b"") + b"]"),)
        decision = Decision(self.topic, offset, offset, 0, Need(offset), {}, {}, bodies)
        decision.__dict__["events"] = [event]  # the cached property is filled: it is decoded already
        return decision

    def state(self) -> Need:
        """Where this reader stands."""
        return Need(self.next_offset)


def counter_for(topic: str, start: Need | None = None) -> Counter | PlainCounter:
    """The counting rule of a topic, from its start or from where it may be resumed."""
    return Counter(topic, start) if BY_TOPIC[topic].enveloped else PlainCounter(topic, start)
