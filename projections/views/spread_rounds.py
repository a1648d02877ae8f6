"""Selects predictions of rounds that are spread evenly over a time, for charts of a long time, at a bounded cost."""

from __future__ import annotations

from itertools import islice

from coordinator.projections.folding.projection import key
from coordinator.projections.views.prediction_rows import Prediction
from coordinator.projections.views.predictions import ROUND_LOOKS, Predictions
from coordinator.streams.setting_checks import FAR_FUTURE_MS

MOMENT_MS = 1_000
"""The rounds of one point, one for each subject, open within this time."""
ROUNDS_PER_MOMENT_MAX = 500
Rounds = list[tuple[bytes, bytes]]


def spread(
    read: Predictions, start: int, until: int, model_ids: set[str] | None, rows_max: int, look: int
) -> list[Prediction]:
    """At most `rows_max` predictions of rounds that opened in [start, until] (ms), the oldest first.

    The rounds are spread evenly from the first to the last round in that time, both included. The rounds of all
    subjects at a moment are taken together, so that no subject is left out. `look` limits how much is read: a
    prediction counts one, a round ROUND_LOOKS.
    """
    oldest = _moment(read, start, until)
    newest = next(read.newest(start, until), None)
    if not oldest or newest is None:
        return []
    first, last = _opened_at(oldest[0]), newest.opened_at
    samples = [oldest, _moment(read, last, until)]
    cost = max(ROUND_LOOKS * len(sample) + len(_rows(read, sample, None)) for sample in samples)
    rows = max(len(_rows(read, sample, model_ids)) for sample in samples)
    count = max(2, min(rows_max // max(1, rows), look // max(1, cost)))
    spreads: list[list[Prediction]] = []
    last_taken = -1
    for i in range(count):
        moment = _moment(read, max(last_taken + 1, first + (last - first) * i // (count - 1)), until)
        if not moment:
            break
        last_taken = _opened_at(moment[-1])
        spreads.append(_rows(read, moment, model_ids))
    chosen = spreads
    while (total := sum(map(len, chosen))) > rows_max and len(chosen) > 2:  # noqa: PLR2004 - both ends stay
        # The count was estimated from the rounds at both ends. Those between them are larger, so take fewer.
        count = max(2, min(len(chosen) - 1, len(chosen) * rows_max // total))
        chosen = [spreads[(len(spreads) - 1) * i // (count - 1)] for i in range(count)]
    return [prediction for predictions in chosen for prediction in predictions][:rows_max]


def is_rehearsing(read: Predictions) -> bool:
    """Whether the newest round is one of a rehearsal (replayed time)."""
    newest = next(read.newest(0, FAR_FUTURE_MS), None)
    input_row = read.input(newest.input_id) if newest is not None else None
    return input_row is not None and input_row.rehearsal


def _moment(read: Predictions, at: int, until: int) -> Rounds:
    """The first round that opened at or after `at`, and those that opened within MOMENT_MS after it."""
    rounds: Rounds = []
    for entry in islice(read.store.scan(b"O", start=b"O" + key(at)), ROUNDS_PER_MOMENT_MAX):
        if _opened_at(entry) > until or (rounds and _opened_at(entry) - _opened_at(rounds[0]) > MOMENT_MS):
            break
        rounds.append(entry)
    return rounds


def _rows(read: Predictions, rounds: Rounds, model_ids: set[str] | None) -> list[Prediction]:
    return [prediction for name, row in rounds for prediction in read.of_round(name, row, None, model_ids)]


def _opened_at(entry: tuple[bytes, bytes]) -> int:
    return int.from_bytes(entry[0][1:9], "big")
