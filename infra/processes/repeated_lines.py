"""Bounds what other libraries log: of the same line many times the first few stand, the others are counted.

A client of Kafka logs each of its tries. While a topic is deleted, or a broker is gone, these are a thousand lines a
second, which fill a disk and hide the line that says what happened.
"""

from __future__ import annotations

import logging
import re

LINES_MAX = 5
PERIOD_SECONDS = 10.0
KINDS_MAX = 500
_NUMBER = re.compile(r"\d+")


class RepeatedLines(logging.Filter):
    """Lets LINES_MAX lines of a kind through in PERIOD_SECONDS. The next one that passes says how many were left out.

    Lines are of one kind if they differ in numbers alone: ports, offsets, ids of requests.
    """

    def __init__(self) -> None:
        super().__init__()
        self._kinds: dict[tuple[str, int, str], _Period] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line stands."""
        text = record.getMessage()
        kind = (record.name, record.levelno, _NUMBER.sub("#", text))
        period = self._kinds.get(kind)
        if period is None or record.created - period.began >= PERIOD_SECONDS:
            self._kinds[kind] = _Period(record.created)
            if period is not None and period.left_out:
                record.msg, record.args = f"{text} ({period.left_out:,} more lines like it were left out)", ()
            elif len(self._kinds) > KINDS_MAX:
                self._forget(record.created)
            return True
        period.lines += 1
        period.left_out = max(0, period.lines - LINES_MAX)
        return period.left_out == 0

    def counts(self) -> dict[str, int]:
        """How many lines were left out and not told yet, by logger: for the last line of a process."""
        left: dict[str, int] = {}
        for (name, _, _), period in self._kinds.items():
            if period.left_out:
                left[name] = left.get(name, 0) + period.left_out
        return left

    def _forget(self, now: float) -> None:
        """Of texts that never come again nothing is remembered; one with a count is told when it comes again."""
        over = [
            kind
            for kind, period in self._kinds.items()
            if not period.left_out and now - period.began >= PERIOD_SECONDS
        ]
        for kind in over:
            del self._kinds[kind]


class _Period:
    def __init__(self, began: float) -> None:
        self.began, self.lines, self.left_out = began, 1, 0
