"""Predictions of rounds spread evenly over a time: what a chart of a long time needs, at a bounded cost."""

from __future__ import annotations

from itertools import islice

from coordinator.projections.folding.base import key
from coordinator.projections.views.prediction_rows import Prediction
from coordinator.projections.views.predictions import ROUND_LOOKS, Predictions
from coordinator.streams.setting_checks import FAR_FUTURE_MS

MOMENT_MS = 1_000
"""Rounds of one point, one for each subject, are opened within this."""
ROUNDS_PER_MOMENT_MAX = 500
Rounds = list[tuple[bytes, bytes]]


def spread(
    read: Predictions, start: int, until: int, model_ids: set[str] | None, rows_max: int, look: int
) -> list[Prediction]:
    """At most `rows_max` predictions of rounds opened in [start, until] (ms), the rounds spread evenly over the part of
    it that has any, both ends among them, oldest first. All rounds of a moment stand together, so that no subject is
    left out. `look` bounds what is read: a prediction is one, a round ROUND_LOOKS more.
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
    found: list[list[Prediction]] = []
    behind = -1
    for i in range(count):
        moment = _moment(read, max(behind + 1, first + (last - first) * i // (count - 1)), until)
        if not moment:
            break
        behind = _opened_at(moment[-1])
        found.append(_rows(read, moment, model_ids))
    kept = found
    while (total := sum(map(len, kept))) > rows_max and len(kept) > 2:  # noqa: PLR2004 - both ends stay
        # Rounds between were larger than those at the ends: fewer of them.
        count = max(2, min(len(kept) - 1, len(kept) * rows_max // total))
        kept = [found[(len(found) - 1) * i // (count - 1)] for i in range(count)]
    return [one for some in kept for one in some][:rows_max]


def is_rehearsing(read: Predictions) -> bool:
    """Is the newest round one of a rehearsal?"""
    newest = next(read.newest(0, FAR_FUTURE_MS), None)
    found = read.input(newest.input_id) if newest is not None else None
    return found is not None and found.rehearsal


def _moment(read: Predictions, at: int, until: int) -> Rounds:
    """The first rounds opened at or after `at`, and those within MOMENT_MS of the first."""
    found: Rounds = []
    for one in islice(read.store.scan(b"O", start=b"O" + key(at)), ROUNDS_PER_MOMENT_MAX):
        if _opened_at(one) > until or (found and _opened_at(one) - _opened_at(found[0]) > MOMENT_MS):
            break
        found.append(one)
    return found


def _rows(read: Predictions, rounds: Rounds, model_ids: set[str] | None) -> list[Prediction]:
    return [one for name, row in rounds for one in read.of_round(name, row, None, model_ids)]


def _opened_at(one: tuple[bytes, bytes]) -> int:
    return int.from_bytes(one[0][1:9], "big")
