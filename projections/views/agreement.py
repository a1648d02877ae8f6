"""Makes series of numbers from the answers of all models, in which `streams/audit/copies.py` looks for copies.

An answer is split into its numbers, in the order of their places in its JSON: `{"value": 0.4}` has one, a density
several. All answers are read through `Predictions`, which shows only those that nobody can copy any more.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from coordinator.projections.views.predictions import Predictions

NUMBERS_PER_ANSWER_MAX = 32
"""Only the first numbers of a longer answer are compared. Two answers that differ nearly always differ there."""

Series = dict[str, NDArray[np.float64]]


class SeriesRound(NamedTuple):
    """A round and scope, and the place of its numbers in every series: `width` of them from `first` on."""

    opened_at: int
    input_id: str
    scope_key: str
    first: int
    width: int


def answers_in_series(
    predictions: Predictions, start: int, until: int, rounds_max: int
) -> tuple[Series, list[SeriesRound]]:
    """(model_id -> its numbers, NaN if it did not answer; the (round, scope) pairs that were read, oldest first).

    Reads the newest `rounds_max` pairs of rounds that opened in [start, until] (ms).
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
    places: list[SeriesRound] = []
    end = 0
    for of_round, answers in sorted(rounds.items()):
        places.append(SeriesRound(*of_round, end, max(map(len, answers.values()), default=0)))
        end += places[-1].width
    model_ids = sorted({model_id for answers in rounds.values() for model_id in answers})
    series = {model_id: np.full(end, np.nan) for model_id in model_ids}
    for of_series in places:
        for model_id, numbers in rounds[of_series[:3]].items():
            series[model_id][of_series.first : of_series.first + len(numbers)] = numbers
    return series, places


def numbers_in(answer: Any) -> Iterator[float]:
    """The numbers of a JSON value in the order of their places: objects by key, lists by index."""
    if isinstance(answer, dict):
        for name in sorted(answer):
            yield from numbers_in(answer[name])
    elif isinstance(answer, list):
        for item in answer:
            yield from numbers_in(item)
    elif isinstance(answer, bool):
        yield float(answer)
    elif isinstance(answer, (int, float)):
        # JSON has integers of any length. All that are beyond the range of a float count as equal.
        try:
            yield float(answer)
        except OverflowError:
            yield float("inf")
