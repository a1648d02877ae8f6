"""Every model's answers side by side, as series of numbers: what `streams/audit/copies.py` looks for copies in.

An answer is cut into its numbers, by their place in its JSON: `{"value": 0.4}` gives one, a density several. Only
answers that nobody could still copy are read, since all reading goes through `Predictions`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coordinator.projections.views.predictions import Predictions

NUMBERS_PER_ANSWER_MAX = 32
"""Of a longer answer the first so many are compared: two that differ at all differ there with near certainty."""

Series = dict[str, NDArray[np.float64]]


def answers_in_series(
    predictions: Predictions, start: int, until: int, rounds_max: int
) -> tuple[Series, int]:
    """(model id -> its numbers, NaN where it gave none; how many (round, scope) pairs were read).

    The newest `rounds_max` pairs of rounds opened in [start, until] (ms), oldest first.
    """
    rounds: dict[tuple[int, str, str], dict[str, list[float]]] = {}
    for prediction in predictions.newest(start, until):
        place = (prediction.opened_at, prediction.input_id, prediction.scope_key)
        if place not in rounds and len(rounds) == rounds_max:
            break
        answers = rounds.setdefault(place, {})
        if prediction.output is not None:
            numbers = list(islice(numbers_in(prediction.output), NUMBERS_PER_ANSWER_MAX))
            if numbers:
                answers[prediction.model_id] = numbers
    widths = [max(map(len, answers.values()), default=0) for _, answers in sorted(rounds.items())]
    model_ids = sorted({model_id for answers in rounds.values() for model_id in answers})
    series = {model_id: np.full(sum(widths), np.nan) for model_id in model_ids}
    first = 0
    for (_, answers), width in zip(sorted(rounds.items()), widths, strict=True):
        for model_id, numbers in answers.items():
            series[model_id][first : first + len(numbers)] = numbers
        first += width
    return series, len(rounds)


def numbers_in(answer: Any) -> Iterator[float]:
    """The numbers of a JSON value in the order of their places: keys by name, lists as they stand."""
    if isinstance(answer, dict):
        for name in sorted(answer):
            yield from numbers_in(answer[name])
    elif isinstance(answer, list):
        for item in answer:
            yield from numbers_in(item)
    elif isinstance(answer, bool):
        yield float(answer)
    elif isinstance(answer, (int, float)):
        # Whole numbers of any length are JSON: one beyond a float's range agrees with every other such one.
        try:
            yield float(answer)
        except OverflowError:
            yield float("inf")
