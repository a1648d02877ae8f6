"""The newest recorded state of a topic, looked for from its end."""

from __future__ import annotations

from coordinator.streams.agents.owning.log_io import LogIO, records_until
from coordinator.streams.log.recorded import StateFound, StatesRead

LOOK_RECORDS = 512
"""A topic that is not longer is read from its first record: looking would cost more."""
LOOK_FURTHER = 8


async def newest_state(io: LogIO, topic: str, end: int, form: str) -> StateFound | None:
    """The newest whole state of this form before the offset `end`; None where there is none, or too little to look.

    Each look goes eight times as far back as the one before, so what is read is in proportion to what lies behind
    the state, whatever lies before it. Where one of another form comes first, those before it are taken to be too: an
    upgrade changed the form, and the topic is read from its first record, once.
    """
    if end <= LOOK_RECORDS:
        return None
    states, upper, look = StatesRead(form), end, LOOK_RECORDS
    while upper > 0 and states.newest is None and not states.others:
        lower = max(0, upper - look)
        reader = await io.reader(topic, lower)
        try:
            async for _, record in records_until(reader, upper):
                states.read(record)
        finally:
            await reader.close()
        upper, look = lower, LOOK_FURTHER * look
    return states.newest
