"""The positions in the log of a round's events, and of a period's scored rounds, for an explanation.

Reads the rows of `predictions.py`, each of which has the offset of the decision that wrote it.
"""

from __future__ import annotations

from coordinator.projections.folding.projection import key
from coordinator.projections.views.predictions import Predictions
from coordinator.streams.log.ids import question_of


def told_at(predictions: Predictions, input_id: str, scope_key: str) -> dict[str, list[int]]:
    """Topic -> the offsets of the decisions about one scope of a round: in `inputs` the input and its truths, in
    `predictions` its opening and answers, in `scores` its scores. Truths and scores of a posted question belong to
    the input that represents it.
    """
    both, written = key(input_id, scope_key), predictions.store.written_at
    asked = question_of(input_id)
    return {
        "inputs": sorted({at for name in (asked, input_id) for at in written(b"I" + key(name))}),
        "predictions": [*written(b"R" + key(input_id)), *written(b"A" + both)],
        "scores": written(b"S" + key(asked, scope_key)),
    }


def scored_at(predictions: Predictions, start: int, end: int, most: int) -> list[int]:
    """The offsets in `scores` of the first `most` rounds and scopes that count in [start, end) (ms): scored, or scored
    again by a corrected truth.
    """
    offsets: list[int] = []
    for name, _ in predictions.store.scan(b"X", start=b"X" + key(start)):
        if int.from_bytes(name[1:9], "big") >= end or len(offsets) >= most:
            break
        offsets += predictions.store.written_at(name)
    return offsets
