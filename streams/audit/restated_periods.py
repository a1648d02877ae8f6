"""Computes again what truths that were corrected in a period make of the periods before it, score by score.

Reads a `Chain` and the sums of `SnapshotsAgain`; returns values. Pure. The stage keeps the periods and replaces rounds
in them; this code picks for each round the scores of its newest truth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec

from coordinator.streams.audit.differences import difference
from coordinator.streams.audit.facts import Chain, broken
from coordinator.streams.contract.contract import Contracts
from coordinator.streams.events import PeriodRestated, RoundRescoredData, SeriesValue, SnapshotTakenData
from coordinator.streams.snapshots.past import needs_order
from coordinator.streams.snapshots.state import Place
from coordinator.streams.snapshots.summary import NO_SCORES, Scored, Summary, Weights, summaries


class Values(Protocol):
    """What the first truths make of one model's period."""

    scores: list[Scored]
    series: list[tuple[Place, int, bool]]


class _PeriodByTruths(NamedTuple):
    """A period by the truths of a time: of each model its scores, its values in order, and its summary."""

    scored: dict[str, int]
    series: dict[str, list[tuple[int, bool]]]
    summary: dict[str, Summary]


class RestatedAgain:
    """The earlier periods of snapshots, as the truths that were corrected in theirs make them."""

    def __init__(
        self,
        chain: Chain,
        values_of: Mapping[tuple[int, str], Values],
        weights: Mapping[int, Weights],
        contracts: Contracts,
    ) -> None:
        """`values_of`: (start of a period, model) -> its values by the first truths."""
        self._chain, self._values_of, self._weights, self._contracts = chain, values_of, weights, contracts
        self._corrections = _corrections(chain)
        self._then: dict[tuple[int, int], _PeriodByTruths] = {}
        """(start of a period, ms until which truths are known) -> the period."""

    def of(self, snapshot: SnapshotTakenData) -> list[PeriodRestated]:
        """What the snapshot must say of earlier periods. An error is "error": its text may differ."""
        start, model_id = snapshot.period_start, snapshot.model_id
        restated: list[PeriodRestated] = []
        for first in sorted({first for first, came, _ in self._corrections if came == start}):
            (n, series, summary), (n_after, series_after, summary_after) = (
                self._of_model(first, until, model_id) for until in (start, start + 1)
            )
            if (n, series, summary) != (n_after, series_after, summary_after):
                restated.append(
                    PeriodRestated(
                        period_start=first,
                        scored_before=n,
                        scored_count=n_after,
                        summary_before=summary.units,
                        summary_units=summary_after.units,
                        summary_error=summary_after.error and "error",
                        series=[SeriesValue(*value) for value in series_after],
                    )
                )
        return restated

    def _of_model(
        self, first: int, until: int, model_id: str
    ) -> tuple[int, Sequence[tuple[int, bool]], Summary]:
        then = self._then.get((first, until))
        if then is None:
            then = self._then[first, until] = self._period(first, until)
        return (
            then.scored.get(model_id, 0),
            then.series.get(model_id, []),
            then.summary.get(model_id, NO_SCORES),
        )

    def _period(self, first: int, until: int) -> _PeriodByTruths:
        """A period by the truths that came before `until` (ms)."""
        terms = self._chain.terms.at(first)
        newest = {
            (data.input_id, data.scope_key): data
            for first_start, came, data in self._corrections
            if first_start == first and came < until
        }
        scores: dict[str, list[Scored]] = {}
        series: dict[str, list[tuple[Place, int, bool]]] = {}
        for (start, model_id), values in self._values_of.items():
            if start != first:
                continue
            # A value for newcomers, or of an ensemble, is of nobody whom the question asked, and stays.
            gone = {key for key, data in newest.items() if model_id in data.before.models}
            scores[model_id] = [score for score in values.scores if score[1:3] not in gone]
            series[model_id] = [value for value in values.series if value[0][1:] not in gone]
        for (input_id, scope_key), data in newest.items():
            place = (data.first_resolvable_at, input_id, scope_key)
            for entry in data.entries():
                if entry.status == "SCORED":
                    scores.setdefault(entry.model_id, []).append((*place, entry.units))
                value = entry.units.get(terms.value_field)
                units = entry.charge_units if value is None else value
                if units is not None:
                    series.setdefault(entry.model_id, []).append((place, units, value is not None))
        contract = self._contracts(terms.contract_hash)
        return _PeriodByTruths(
            {model_id: len(of_model) for model_id, of_model in scores.items()},
            {model_id: [value[1:] for value in sorted(of_model)] for model_id, of_model in series.items()}
            if needs_order(terms)
            else {},
            summaries(contract, scores, self._weights.get(first)),
        )


def _corrections(chain: Chain) -> list[tuple[int, int, RoundRescoredData]]:
    """(start of the first truth's period, start of the correction's, the scores) in the order of the log."""
    terms = chain.terms
    return [
        (
            terms.snapshot_period(data.first_resolvable_at)[0],
            terms.snapshot_period(data.resolvable_at)[0],
            data,
        )
        for data in chain.corrected_later
        if terms.adds_up(data.contract_hash, terms.snapshot_period(data.resolvable_at)[0])
    ]


def restated_agrees(snapshot: SnapshotTakenData, computed: Sequence[PeriodRestated], chain: Chain) -> bool:
    """Whether a snapshot says of earlier periods what the scores give, but for a unit of rounding in a summary."""
    if snapshot.restated == computed:
        return True
    recorded = [_numbers_apart(restated) for restated in snapshot.restated]
    again = [_numbers_apart(restated) for restated in computed]
    return [exact for exact, _ in recorded] == [exact for exact, _ in again] and all(
        chain.roundings.near(f"the metrics of {snapshot.snapshot_id}, restated", of_log, of_scores)
        for (_, of_log), (_, of_scores) in zip(recorded, again, strict=True)
    )


def compare_restated(snapshot: SnapshotTakenData, computed: Sequence[PeriodRestated], chain: Chain) -> None:
    """Raise ChainBrokenError if a snapshot says something else of earlier periods than the scores give."""
    if not restated_agrees(snapshot, computed, chain):
        broken(
            "snapshots",
            f"{snapshot.snapshot_id}, restated: "
            + difference(list(snapshot.restated), list(computed), "the scores give"),
        )


def _numbers_apart(restated: PeriodRestated) -> tuple[PeriodRestated, tuple[dict[str, int], dict[str, int]]]:
    """(what is exact, the summaries). The text of an error may differ from machine to machine."""
    exact = msgspec.structs.replace(
        restated, summary_before={}, summary_units={}, summary_error=restated.summary_error and "error"
    )
    return exact, (restated.summary_before, restated.summary_units)
