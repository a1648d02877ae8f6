"""Ids are made of content, so that a decision made twice is the same decision.

They never hold positions or epochs: a mirrored log gives the same ids.
"""

from __future__ import annotations

import hashlib


def feed_record_id(
    source: str, subject: str, kind: str, granularity: str, ts_event: int, revision: int
) -> str:
    """The same record from stream and history has one id; a correction has its own."""
    return f"feed/{source}/{subject}/{kind}/{granularity}/{ts_event}/r{revision}"


def tick_id(at: int) -> str:
    """One tick per instant."""
    return f"tick/{at}"


def input_id(subject: str, point: int) -> str:
    """One input per subject and grid point."""
    return f"inp/{subject}/{point}"


def prediction_id(the_input_id: str, scope_key: str, model_id: str) -> str:
    """One prediction per input, scope and model."""
    return f"{the_input_id}/{scope_key}/{model_id}"


def snapshot_id(model_id: str, period_start: int, period_end: int) -> str:
    """One snapshot per model and period."""
    return f"snap/{model_id}/{period_start}-{period_end}"


def checkpoint_id(crunch_id: str, period_start: int, period_end: int) -> str:
    """`ckp_` and 24 hex digits of sha256 over crunch and period: one checkpoint per period by construction."""
    text = f"{crunch_id}\n{period_start}\n{period_end}"
    return "ckp_" + hashlib.sha256(text.encode()).hexdigest()[:24]


def content_id(prefix: str, *content: str) -> str:
    """`prefix/` and 24 hex digits of sha256 over the content."""
    return f"{prefix}/" + hashlib.sha256("\n".join(content).encode()).hexdigest()[:24]
