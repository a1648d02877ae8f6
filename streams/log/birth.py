"""Birth records: the first record of each topic says whose topic it is, and a log without them is none of ours.

A crunch is born once: nine topics, one `TopicBorn` in each, at offset 0, with one random birth id in all of them. A
topic that was deleted and made anew has no birth or another one, so no reader takes it for the topic that it was.
A birth is about the topic and not about the crunch's history: every reader passes over it, it counts as nothing.

Randomness and the clock come in as a `Birth`; `infra/kafka/topics.py` makes one when it makes topics.
"""

from __future__ import annotations

import msgspec

from coordinator.streams.events import TopicBorn, TopicBornData
from coordinator.streams.log.envelope import ENVELOPE_VERSION, decode_event, encode_event
from coordinator.streams.topology import TOPICS

HEAD_BYTES = 200  # an event begins with its kind; an append does not


class Birth(msgspec.Struct, frozen=True):
    """One crunch's birth. Of a log whose records were copied in, `before` is the birth id, `copy_of` the crunch id."""

    birth_id: str
    at_ms: int
    before: str = ""
    copy_of: str = ""


def birth_records(crunch_id: str, birth: Birth) -> dict[str, bytes]:
    """Topic -> its first record."""
    return {topic: encode_event(_born(crunch_id, topic, birth)) for topic in TOPICS}


def _born(crunch_id: str, topic: str, birth: Birth) -> TopicBorn:
    data = TopicBornData(
        crunch_id=crunch_id,
        topic=topic,
        format=ENVELOPE_VERSION,
        birth_id=birth.birth_id,
        before=birth.before,
        copy_of=birth.copy_of,
    )
    return TopicBorn(id=f"birth/{birth.birth_id}/{topic}", at=birth.at_ms, data=data)


def read_birth(record: bytes | None) -> TopicBorn | None:
    """The birth in a record, None for anything else. Raises UnknownEventError for a birth of a newer version."""
    if record is None or b'"TopicBorn"' not in record[:HEAD_BYTES]:
        return None
    try:
        event = decode_event(record)
    except msgspec.DecodeError:
        return None
    return event if isinstance(event, TopicBorn) else None


def is_birth(offset: int, record: bytes | None) -> bool:
    """Is this a topic's birth record? Only the first record can be. Raises UnknownEventError as `read_birth` does."""
    return offset == 0 and read_birth(record) is not None
