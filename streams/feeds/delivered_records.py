"""Checks the records that an operator's command, or a source of another package, delivers. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation

from coordinator.streams.events import GivenRecord, RecordFeedData
from coordinator.streams.feeds.clock_witness import time_fault

VALUE_CHARS_MAX = 100
NAME_CHARS_MAX = 200
VALUES_MAX = 1000
REVISION_MAX = 1 << 31


def value_fault(values: Mapping[str, str]) -> str | None:
    """Why one of these values is not a finite decimal, or None. Such a value would spoil every input that holds it, as
    would one that is no finite float: contracts get floats.
    """
    for name, text in values.items():
        try:
            finite = len(text) <= VALUE_CHARS_MAX and Decimal(text).is_finite() and math.isfinite(float(text))
        except InvalidOperation:
            finite = False
        if not finite:
            return f"{name} is not a finite decimal: {text[:40]!r}"
    return None


def given_fault(data: RecordFeedData, record: GivenRecord, now_ms: int) -> str | None:
    """Why a command's record of the past cannot be recorded; None if it can."""
    names = (data.source, data.subject, data.kind, data.granularity, *record.values)
    if len(names) > VALUES_MAX or max(map(len, names)) > NAME_CHARS_MAX:
        return f"more than {VALUES_MAX} values, or a name of more than {NAME_CHARS_MAX} characters"
    if not 0 <= record.revision < REVISION_MAX:
        return f"its revision {record.revision} is not between 0 and {REVISION_MAX}"
    return time_fault(record.ts_event, record.at, now_ms, 0) or value_fault(record.values)
