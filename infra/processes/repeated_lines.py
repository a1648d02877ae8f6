"""Bounds what other libraries log: of the same line many times the first few stand, the others are counted.

A client of Kafka logs each of its tries. While a topic is deleted, or a broker is gone, these are a thousand lines a
second, which fill a disk and hide the line that says what happened.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Hashable

LINES_MAX = 5
PERIOD_SECONDS = 10.0
KINDS_MAX = 500
"""So many are remembered, each by a hash. The oldest is forgotten first; its count goes to its logger's total."""
OUR_LOGGERS = "coordinator."
"""Their lines always stand: in them a number tells one model, or one error, from another."""
_NUMBER = re.compile(r"\d+")


class RepeatedLines:
    """Lets LINES_MAX lines of a kind through in PERIOD_SECONDS. The next one that passes says how many were left out.

    Lines are of one kind if they differ in numbers alone: ports, offsets, ids of requests. An error of another type is
    another kind. One thread at a time.
    """

    def __init__(self) -> None:
        self._kinds: dict[int, _Period] = {}
        self._forgotten: dict[str, int] = {}

    def passes(self, record: logging.LogRecord) -> bool:
        """Whether the line stands. Raises what its text raises if its values do not fit it."""
        if record.name.startswith(OUR_LOGGERS):
            return True
        text = record.getMessage()
        error_type = record.exc_info[0] if record.exc_info else None
        kind = (record.name, record.levelno, error_type, _NUMBER.sub("#", text))
        left_out = self.count(kind, record.name, record.created)
        if left_out:
            record.msg, record.args = f"{text} ({left_out})", ()
        return left_out is not None

    def count(self, kind: Hashable, logger: str, now_seconds: float) -> str | None:
        """Count a line. None: it is left out. Otherwise it stands, and the text says what was left out before it, if
        anything was.
        """
        hashed = hash(kind)
        period = self._kinds.get(hashed)
        if period is not None and now_seconds - period.began < PERIOD_SECONDS:
            period.lines += 1
            return "" if period.left_out == 0 else None
        alike = self._kinds.pop(hashed).left_out if period is not None else 0
        others = self._forgotten.pop(logger, 0)
        self._kinds[hashed] = _Period(logger, now_seconds)
        if len(self._kinds) > KINDS_MAX:
            self._forget_oldest()
        like_it = f"{alike:,} more lines like it" if alike else ""
        of_logger = f"{others:,} other lines of {logger}" if others else ""
        both = " and ".join(filter(None, (like_it, of_logger)))
        return f"{both} were left out" if both else ""

    def counts(self) -> dict[str, int]:
        """How many lines were left out and not told yet, by logger: for the last line of a process."""
        left = dict(self._forgotten)
        for period in self._kinds.values():
            if period.left_out:
                left[period.logger] = left.get(period.logger, 0) + period.left_out
        return left

    def _forget_oldest(self) -> None:
        period = self._kinds.pop(next(iter(self._kinds)))
        if period.left_out:
            self._forgotten[period.logger] = self._forgotten.get(period.logger, 0) + period.left_out


class _Period:
    def __init__(self, logger: str, began: float) -> None:
        self.logger, self.began, self.lines = logger, began, 1

    @property
    def left_out(self) -> int:
        return max(0, self.lines - LINES_MAX)
