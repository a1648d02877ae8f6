"""Birth: the first record of each topic says whose topic it is."""

from __future__ import annotations

from coordinator.streams.events.base import Data, Event


class TopicBornData(Data, frozen=True):
    """Whose topic this is. `format` is the envelope's version; `birth_id` is the same in all topics of a crunch.

    `before` is the birth id of the log whose records were copied after this one, `copy_of` its crunch id. Both are
    empty for a new crunch.
    """

    crunch_id: str
    topic: str
    format: int
    birth_id: str
    before: str = ""
    copy_of: str = ""


class TopicBorn(Event, frozen=True):
    """The first record of each topic. It describes the topic: it is not a decision, and no stage sees it."""

    data: TopicBornData
