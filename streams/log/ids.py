"""Ids made from content: a decision that is made twice has the same ids.

They hold no positions and no epochs, so a mirrored log has the same ids.
"""

from __future__ import annotations

import hashlib

ENSEMBLE_PREFIX = "__ensemble_"
"""Ids of what a node made of several models: on no chain, and never paid."""


def feed_record_id(
    source: str, subject: str, kind: str, granularity: str, ts_event: int, revision: int
) -> str:
    """One id per record and revision, whether the record came from the stream or from history."""
    return f"feed/{source}/{subject}/{kind}/{granularity}/{ts_event}/r{revision}"


def tick_id(at: int) -> str:
    """One id per time of a tick, in ms."""
    return f"tick/{at}"


def input_id(subject: str, point: int) -> str:
    """One id per subject and grid point."""
    return f"inp/{subject}/{point}"


def prediction_id(input_id: str, scope_key: str, model_id: str) -> str:
    """One id per input, scope and model."""
    return f"{input_id}/{scope_key}/{model_id}"


def snapshot_id(model_id: str, period_start: int, period_end: int) -> str:
    """One id per model and period."""
    return f"snap/{model_id}/{period_start}-{period_end}"


def checkpoint_id(crunch_id: str, period_start: int, period_end: int) -> str:
    """`ckp_` and 24 hex digits of the sha256 of crunch and period: there can be only one checkpoint per period."""
    text = f"{crunch_id}\n{period_start}\n{period_end}"
    return "ckp_" + hashlib.sha256(text.encode()).hexdigest()[:24]


def content_id(prefix: str, *content: str) -> str:
    """`prefix/` and 24 hex digits of the sha256 of the content."""
    return f"{prefix}/" + hashlib.sha256("\n".join(content).encode()).hexdigest()[:24]


def ensemble_id(name: str) -> str:
    """The model id of a declared ensemble."""
    return f"{ENSEMBLE_PREFIX}{name}__"


def is_ensemble(model_id: str) -> bool:
    """Is it the id of an ensemble, and of no participant?"""
    return model_id.startswith(ENSEMBLE_PREFIX)


def ensemble_name(model_id: str) -> str:
    """The name of the ensemble that has this id."""
    return model_id.removeprefix(ENSEMBLE_PREFIX).removesuffix("__")
