"""Finds the newest recorded state of a topic, backwards from the topic's end."""

from __future__ import annotations

from coordinator.streams.agents.owning.log_io import LogIO, records_until
from coordinator.streams.log.recorded_state import StateFound, StatesRead

LOOK_RECORDS = 512
"""How many records the first look reads. A topic that is not longer is read from its first record."""
LOOK_RECORDS_OFTEN = 4
"""As LOOK_RECORDS, where states are recorded often."""
LOOK_GROWTH = 8


async def newest_state(io: LogIO, topic: str, end: int, form: str) -> StateFound | None:
    """The newest complete state of this form before the offset `end`; None if there is none, or if the topic is short.

    Each look reads LOOK_GROWTH times as many records as the one before. So the cost is in proportion to the distance of
    the state from the end, however long the topic is. The search stops at a state of another form: an upgrade changed
    the form, older states have the old one, too, and the topic is read from its first record once.
    """
    look = LOOK_RECORDS_OFTEN if io.states_often else LOOK_RECORDS
    if end <= look:
        return None
    states, upper = StatesRead(form), end
    while upper > 0 and states.newest is None and not states.others:
        lower = max(0, upper - look)
        reader = await io.reader(topic, lower)
        try:
            async for _, record in records_until(reader, upper):
                states.read(record)
        finally:
            await reader.close()
        upper, look = lower, LOOK_GROWTH * look
    return states.newest
