"""Sums up what the models of a backtest did, while it runs.

Reads the counted decisions of `inputs`, `predictions`, `scores` and `checkpoints`, in this order for each instant.
Sums are of integers. The memory grows with the number of hours, and not with that of rounds.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from coordinator.streams.durations import HOUR_MS
from coordinator.streams.events import (
    CheckpointData,
    CheckpointOpened,
    CheckpointWithheld,
    InputResolved,
    RosterEntry,
    RoundOpened,
    RoundOpenedData,
    RoundScored,
    ScopeAnswered,
)
from coordinator.streams.log import ids
from coordinator.streams.log.counting import Decision

BINS = 20
"""The number of bins for answers in [-1, 1]; each is 0.1 wide."""
REASONS_MAX = 200
OTHER = "other reasons"
Sum = list[int]
"""[sum of units, number of values]"""


def _sum() -> Sum:
    return [0, 0]


def _sums() -> defaultdict[Any, Sum]:
    return defaultdict(_sum)


class ModelSums(msgspec.Struct):
    """One model's sums of the value field: by start of the hour (ms), by hour of the day (UTC), and by scope."""

    hours: defaultdict[int, Sum] = msgspec.field(default_factory=_sums)
    hours_of_day: defaultdict[int, Sum] = msgspec.field(default_factory=_sums)
    scopes: defaultdict[str, Sum] = msgspec.field(default_factory=_sums)
    missing: Counter[tuple[str, str]] = msgspec.field(default_factory=Counter)
    """(status, reason) of every answer that failed or did not come."""
    bins: dict[int, list[float]] = {}
    """Bin of the answer's `value` -> [number of answers, sum of values, sum of the signs of the returns]."""
    scored: int = 0
    failed: int = 0
    absent: int = 0
    charged: int = 0

    @property
    def total(self) -> Sum:
        """The sum over all hours."""
        return [
            sum(of_hour[0] for of_hour in self.hours.values()),
            sum(of_hour[1] for of_hour in self.hours.values()),
        ]


class OutcomeSums:
    """The taps of one backtest, and the sums that they made."""

    def __init__(self, value_field: str) -> None:
        self.models: defaultdict[str, ModelSums] = defaultdict(ModelSums)
        self.rounds = 0
        self.first_point = self.last_point = -1
        self.checkpoints: list[CheckpointData] = []
        self._value_field = value_field
        self._rosters: dict[str, list[RosterEntry]] = {}
        self._values: dict[str, dict[str, float]] = {}
        """`input id/scope key` -> model -> the `value` of its answer, until that is scored."""
        self._returns: dict[str, float] = {}
        """`input id/resolvable time` -> the return of the truth, until the scores come."""

    @property
    def taps(self) -> Mapping[str, Callable[[Decision], None]]:
        """Topic -> the function to call with each of its decisions."""
        return {
            "inputs": self._inputs,
            "predictions": self._predictions,
            "scores": self._scores,
            "checkpoints": self._checkpoints,
        }

    def _inputs(self, decision: Decision) -> None:
        self._returns.clear()  # everything that resolved before this instant is scored by now
        for event in decision.events:
            if isinstance(event, InputResolved) and isinstance(event.data.truth, dict):
                change = event.data.truth.get("return")
                if isinstance(change, (int, float)):
                    self._returns[f"{event.data.input_id}/{event.data.resolvable_at}"] = change

    def _predictions(self, decision: Decision) -> None:
        for event in decision.events:
            match event:
                case RoundOpened(data=data):
                    self.rounds += 1
                    self._rosters = {data.input_id: data.roster}
                    self.last_point = asked_at(data)
                    if self.first_point < 0:
                        self.first_point = self.last_point
                case ScopeAnswered(data=data):
                    self._answered(event)

    def _answered(self, event: ScopeAnswered) -> None:
        data = event.data
        values: dict[str, float] = {}
        roster = self._rosters[data.input_id]
        unanswered = {answer.place: answer for answer in data.unanswered}
        for place, (index, output) in enumerate(zip(data.models, data.outputs, strict=True)):
            model_id, missed = roster[index].model_id, unanswered.get(place)
            if missed is None:
                value = _number(output)
                if value is not None:
                    values[model_id] = value
            else:
                missing = self.models[model_id].missing
                key = (missed.status, data.reasons[missed.reason])
                missing[key if key in missing or len(missing) < REASONS_MAX else (missed.status, OTHER)] += 1
        self._values[f"{ids.question_of(data.input_id)}/{data.scope_key}"] = values

    def _scores(self, decision: Decision) -> None:
        for event in decision.events:
            if isinstance(event, RoundScored):
                self._scored(event)

    def _scored(self, event: RoundScored) -> None:
        data = event.data
        values = self._values.pop(f"{data.input_id}/{data.scope_key}", {})
        change = self._returns.get(f"{data.input_id}/{data.resolvable_at}")
        hour = data.resolvable_at // HOUR_MS
        scope = f"{data.subject} {data.scope_key}"
        column = data.units.get(self._value_field) or [None] * len(data.models)
        unscored = {entry.model: entry for entry in data.unscored}
        for i, (model_id, score_units) in enumerate(zip(data.models, column, strict=True)):
            model, missed, units = self.models[model_id], unscored.get(i), score_units
            if missed is None:
                model.scored += 1
            else:
                units = missed.charge_units
                model.failed += missed.status == "FAILED"
                model.absent += missed.status == "ABSENT"
                model.charged += units is not None
                if missed.reason is not None and (reason := data.reasons[missed.reason]):
                    model.missing[missed.status, reason[:200]] += 1
            if units is not None:
                for total in (
                    model.hours[hour * HOUR_MS],
                    model.hours_of_day[hour % 24],
                    model.scopes[scope],
                ):
                    total[0] += units
                    total[1] += 1
            value = values.get(model_id)
            if value is not None and change is not None and -1 <= value <= 1:
                in_bin = model.bins.setdefault(min(int((value + 1) * BINS / 2), BINS - 1), [0, 0.0, 0.0])
                in_bin[0] += 1
                in_bin[1] += value
                in_bin[2] += (change > 0) - (change < 0)

    def _checkpoints(self, decision: Decision) -> None:
        for event in decision.events:
            if isinstance(event, CheckpointOpened):
                self.checkpoints.append(event.data)
            elif isinstance(event, CheckpointWithheld):
                self.checkpoints.append(event.data.checkpoint)


def asked_at(data: RoundOpenedData) -> int:
    """The point of a round's input in ms; of a posted question, whose id has none, the clock when it was asked."""
    return data.clock if ids.is_question(data.input_id) else int(data.input_id.rpartition("/")[2])


def _number(output: msgspec.Raw) -> float | None:
    """The `value` of an answer; None if it has none, or one that is no number."""
    try:
        return _decode_value(output).value
    except msgspec.DecodeError:
        return None


class _Valued(msgspec.Struct):
    value: float


_decode_value = msgspec.json.Decoder(_Valued).decode
