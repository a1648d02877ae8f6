"""Who answered a posted question, read from the read model of predictions: one line per model.

A question may be asked several times. Each asking is a round of its own, `<input id>` or `<input id>~...`. Whatever is
hidden there is hidden here: all goes through `Predictions.round`.
"""

from __future__ import annotations

import math
from typing import Any

from coordinator.projections.folding.projection import key
from coordinator.projections.views.prediction_rows import Prediction
from coordinator.projections.views.predictions import Predictions
from coordinator.projections.views.round_rows import QuestionRow

SUFFIX = "~"
VALUE_NAMES = ("prediction", "probability", "yes_price", "outcome", "value")


def askings_of(predictions: Predictions, input_id: str) -> list[str]:
    """The ids of the rounds that asked this question, the first one first."""
    prefix = b"R" + input_id.encode()
    return [
        name[1:-1].decode()
        for start in (b"\x00", SUFFIX.encode())
        for name, _ in predictions.store.scan(prefix + start)
    ]


def was_asked(predictions: Predictions, input_id: str) -> bool:
    """Whether a round of this id was opened."""
    return predictions.store.get(b"R" + key(input_id)) is not None


def have_left(predictions: Predictions, question: QuestionRow) -> bool:
    """Whether the question was asked, and its answers have left the store (PAST_DAYS)."""
    horizon, asked = predictions.store.horizon, question.asked
    return (
        horizon is not None
        and asked is not None
        and asked.opened_at is not None
        and asked.opened_at < horizon.from_ms
        and not was_asked(predictions, asked.input_id)
    )


def answers_of(predictions: Predictions, question: QuestionRow) -> list[Prediction]:
    """One prediction per model: that which counted; before that is decided the newest valid one, else the newest."""
    if question.asked is None or not question.asked.input_id:
        return []
    of_model: dict[str, Prediction] = {}
    for round_id in askings_of(predictions, question.asked.input_id):
        for prediction in predictions.round(round_id, question.asked.scope_key):
            before = of_model.get(prediction.model_id)
            if before is None or _weight(prediction) >= _weight(before):
                of_model[prediction.model_id] = prediction
    return [of_model[model_id] for model_id in sorted(of_model)]


def _weight(prediction: Prediction) -> tuple[int, int, str]:
    order = {"SCORED": 2, "PENDING": 1}
    return order.get(prediction.status, 0), prediction.performed_at, prediction.input_id


def number_in(value: Any) -> float | None:
    """The number that an answer, a payload or a truth is about: itself, the first known name, or its only number."""
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, int | float):
        return float(value) if math.isfinite(value) else None
    if not isinstance(value, dict):
        return None
    for name in VALUE_NAMES:
        if name in value:
            return number_in(value[name])
    numbers = [number for part in value.values() if (number := number_in(part)) is not None]
    return numbers[0] if len(numbers) == 1 else None


def said_in(payload: Any, name: str) -> Any:
    """The field of a payload that is an object; None if it has none."""
    return payload.get(name) if isinstance(payload, dict) else None
