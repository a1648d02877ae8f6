"""Birth records: the first record of each topic says which crunch and topic it is. A log without them is not ours.

A crunch is born once: each of its nine topics has a `TopicBorn` at offset 0, all with the same random birth id. A topic
that was deleted and created again has no birth record or another birth id, so no reader takes it for the original. A
birth record says something about the topic, and nothing about the crunch's history: readers skip it.

The random id and the time are arguments (`Birth`); `infra/kafka/topics.py` makes them when it creates topics.
"""

from __future__ import annotations

import msgspec

from coordinator.streams.events import TopicBorn, TopicBornData
from coordinator.streams.log.envelope import ENVELOPE_VERSION, decode_event, encode_event
from coordinator.streams.topology import TOPICS

HEAD_BYTES = 200  # the JSON of an event begins with its kind, that of an append does not


class Birth(msgspec.Struct, frozen=True):
    """One crunch's birth.

    In a restored copy of another crunch, `before` is its birth id and `copy_of` its crunch id.
    """

    birth_id: str
    at_ms: int
    before: str = ""
    copy_of: str = ""


def birth_records(crunch_id: str, birth: Birth) -> dict[str, bytes]:
    """Topic -> its birth record."""
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
    """The birth in a record; None if it holds anything else. Raises UnknownEventError for a newer version's birth."""
    if record is None or b'"TopicBorn"' not in record[:HEAD_BYTES]:
        return None
    try:
        event = decode_event(record)
    except msgspec.DecodeError:
        return None
    return event if isinstance(event, TopicBorn) else None


def is_birth(offset: int, record: bytes | None) -> bool:
    """Whether this is a topic's birth record, which only its first record can be. Raises as `read_birth` does."""
    return offset == 0 and read_birth(record) is not None
