"""Times on the wire. The log has Unix ms; the web app wants two different texts.

Charts append "Z" themselves, so what they plot (`performed_at`) is ISO without a zone. Feeds and checkpoints
are parsed as they are, so they carry Z. Sending the wrong one empties the charts or shifts the times.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from coordinator.streams.durations import EPOCH
from coordinator.streams.setting_checks import FAR_FUTURE_MS, SECONDS_LIKE

_NAIVE_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001
_NUMBER = re.compile(r"-?\d{1,16}")


MOMENT_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "string", "format": "date-time", "maxLength": 64},
        {"type": "integer", "minimum": 0, "maximum": SECONDS_LIKE.start - 1},
        {"type": "integer", "minimum": SECONDS_LIKE.stop, "maximum": FAR_FUTURE_MS},
    ]
}
"""What `parse_ms` takes, for the document: what looks like seconds is between the two ranges."""


@lru_cache(4096)  # the rows of a round share theirs, and half of the cost of a page was to write times
def naive(ms: int) -> str:
    """`2023-03-10T00:00:00.000`: for charts."""
    return (_NAIVE_EPOCH + timedelta(milliseconds=ms)).isoformat(timespec="milliseconds")


def zulu(ms: int) -> str:
    """`2023-03-10T00:00:00.000Z`: for feeds and checkpoints."""
    return naive(ms) + "Z"


def zulu_or_none(ms: int | None) -> str | None:
    """As `zulu`; None stays None."""
    return None if ms is None else zulu(ms)


def parse_ms(text: str) -> int:
    """ISO 8601 (without a zone it is UTC) or epoch ms; before 1970 is 1970. Raises ValueError naming the
    text, of seconds that were meant as ms too.
    """
    if _NUMBER.fullmatch(text):
        ms = int(text)
        if ms in SECONDS_LIKE:
            raise ValueError(f"{text!r} is {zulu(ms)[:10]}: times are in milliseconds, {text}000?")
    else:
        try:
            moment = datetime.fromisoformat(text.upper())  # RFC 3339 allows t and z
        except ValueError:
            raise ValueError(f"{text!r} is neither ISO 8601 nor epoch ms") from None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        ms = max(0, (moment - EPOCH) // timedelta(milliseconds=1))  # nothing of ours is older
    if not 0 <= ms <= FAR_FUTURE_MS:
        raise ValueError(f"{text!r} is not between 1970 and 9999")
    return ms
