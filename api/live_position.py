"""The id of a live message: a position in the log, as text. Pure.

`checkpoints:12.feeds:345.scores:90` names, per topic, the offset of the next record: everything before it was sent. The
id names records of the log and nothing of this process, so it means the same after a restart.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

CHARS_MAX = 400
_PART = re.compile(r"([a-z-]{1,40}):(\d{1,18})")


def position_text(positions: Mapping[str, int]) -> str:
    """The id for these next offsets (topic -> offset)."""
    return ".".join(f"{topic}:{positions[topic]}" for topic in sorted(positions))


def parse_position(text: str) -> dict[str, int]:
    """The next offsets that an id names (topic -> offset). Raises ValueError with a sentence."""
    offsets: dict[str, int] = {}
    for part in text.split(".") if len(text) <= CHARS_MAX else ("",):
        match = _PART.fullmatch(part)
        if match is None:
            raise ValueError("Last-Event-ID is not an id of this stream: topic:offset pairs, joined by '.'")
        offsets[match[1]] = int(match[2])
    return offsets


def reached(positions: Mapping[str, int], by: Mapping[str, int]) -> bool:
    """Whether `by` is at or after `positions` in every topic."""
    return all(by.get(topic, 0) >= offset for topic, offset in positions.items())
