"""Ids of traces and spans, derived from the ids in the log: whoever has the log can name the trace of any figure.

The log holds nothing of a trace, so tracing changes no decision and no hash. Sizes are those of W3C Trace Context:
16 bytes a trace, 8 bytes a span.
"""

from __future__ import annotations

import hashlib

from coordinator.streams.log.ids import question_of


def round_trace(crunch_id: str, input_id: str) -> int:
    """The trace of an input, from its feed record to the board. All rounds that ask one question have one."""
    return _number(16, "trace", crunch_id, question_of(input_id))


def period_trace(crunch_id: str, until_ms: int) -> int:
    """The trace of a snapshot period that ends at `until_ms`."""
    return _number(16, "period", crunch_id, str(until_ms))


def checkpoint_trace(crunch_id: str, checkpoint_id: str) -> int:
    """The trace of a checkpoint, from its period's end to its settlement."""
    return _number(16, "checkpoint", crunch_id, checkpoint_id)


def span_id(trace_id: int, *names: str) -> int:
    """The id of the span of these names in a trace."""
    return _number(8, "span", f"{trace_id:032x}", *names)


def _number(size: int, *parts: str) -> int:
    # Zero means "no id" to every reader of traces.
    return int.from_bytes(hashlib.sha256("\n".join(parts).encode()).digest()[:size], "big") or 1
