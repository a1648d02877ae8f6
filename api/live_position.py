"""The id of a live message: a position in the log, as text. Pure.

`checkpoints:12.feeds:345.scores:90` says, per topic, the offset of the next record: all before it is in what was sent.
It names records of the log and nothing of this process, so that it means the same after a restart.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

CHARS_MAX = 400
_PART = re.compile(r"([a-z-]{1,40}):(\d{1,18})")


def position_text(positions: Mapping[str, int]) -> str:
    """The id of these next offsets."""
    return ".".join(f"{topic}:{positions[topic]}" for topic in sorted(positions))


def parse_position(text: str) -> dict[str, int]:
    """The next offsets that an id names. Raises ValueError."""
    turn_of: dict[str, int] = {}
    for part in text.split(".") if len(text) <= CHARS_MAX else ("",):
        match = _PART.fullmatch(part)
        if match is None:
            raise ValueError("Last-Event-ID is not one of ours: topic:offset joined by '.'")
        turn_of[match[1]] = int(match[2])
    return turn_of


def reached(positions: Mapping[str, int], by: Mapping[str, int]) -> bool:
    """Whether `by` lies at or behind `positions` in every topic."""
    return all(by.get(topic, 0) >= offset for topic, offset in positions.items())
