"""The positions in the log of a round's events, and of a period's scored rounds, for an explanation.

Reads the rows of `predictions.py`, each of which has the offset of the decision that wrote it.
"""

from __future__ import annotations

from coordinator.projections.folding.base import key
from coordinator.projections.views.predictions import Predictions


def told_at(predictions: Predictions, input_id: str, scope_key: str) -> dict[str, list[int]]:
    """Topic -> the offsets of the decisions about one scope of a round: in `inputs` the input and its truths, in
    `predictions` its opening and answers, in `scores` its scores.
    """
    both, written = key(input_id, scope_key), predictions.store.written_at
    return {
        "inputs": written(b"I" + key(input_id)),
        "predictions": [*written(b"R" + key(input_id)), *written(b"A" + both)],
        "scores": written(b"S" + both),
    }


def scored_at(
    predictions: Predictions, start: int, end: int, opened: tuple[int, int], most: int
) -> list[tuple[str, str, int]]:
    """(input_id, scope_key, offset in `scores`) of about the first `most` closed rounds that are resolvable in
    [start, end) and were opened in the span `opened` (all in ms). The scopes of one input are not separated.
    """
    closed: list[tuple[str, str, int]] = []
    for name, _ in predictions.store.scan(b"O", start=b"O" + key(opened[0])):
        if int.from_bytes(name[1:9], "big") > opened[1] or len(closed) >= most:
            break
        input_id = name[9:-1].decode()
        row = predictions.input(input_id)
        for scope_key, (_, _, resolvable_at) in row.scopes.items() if row else ():
            if start <= resolvable_at < end:
                offsets = predictions.store.written_at(b"S" + key(input_id, scope_key))
                closed += [(input_id, scope_key, offset) for offset in offsets]
    return closed
