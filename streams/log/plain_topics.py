"""Topics that anybody may write to: every record that is an event counts as a decision of its own.

A record that is not an event is garbage. Every reader skips it, so that no record from outside stops a reader.
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
        """Why the last record read is not an event; "" if it is one, or the topic's birth record."""

    def read(self, offset: int, record: bytes | None) -> Decision | None:
        """The event as a decision, or None for a record that this version cannot take."""
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
        return Decision(self.topic, offset, offset, 0, Need(offset), {}, {}, bodies, [event])

    def take(self, decision: Decision) -> bool:
        """As `Counter.take`: pass over an event that another reader has read, if it is the next one."""
        if decision.before.offset != self.next_offset:
            return False
        self.next_offset, self.garbage = decision.offset + 1, ""
        return True

    def state(self) -> Need:
        """Where another reader can resume."""
        return Need(self.next_offset)


def counter_for(topic: str, start: Need | None = None) -> Counter | PlainCounter:
    """The counting rule of a topic, from its start or from where it is resumed."""
    return Counter(topic, start) if BY_TOPIC[topic].enveloped else PlainCounter(topic, start)
