"""Where in the log the rows of the read model of predictions were written: positions for an explanation."""

from __future__ import annotations

from coordinator.projections.folding.base import key
from coordinator.projections.views.predictions import Predictions


def told_at(predictions: Predictions, input_id: str, scope_key: str) -> dict[str, list[int]]:
    """Topic -> the offsets of the decisions that tell of one scope of a round: `inputs` of the input and its truths,
    `predictions` of its opening and answers, `scores` of its closing.
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
    """(input_id, scope_key, offset in `scores`) of the first `most` closed rounds that are resolvable in [start, end),
    among those that were opened in the span `opened` (all ms).
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
