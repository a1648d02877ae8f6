"""Counts the rounds of a period again: those that some model could answer, and those that a model is excused.

Reads a `Chain`; returns numbers. Pure.
"""

from __future__ import annotations

import msgspec

from coordinator.streams.audit.facts import Chain
from coordinator.streams.events import RoundRescoredData, RoundScoredData, SnapshotTakenData
from coordinator.streams.snapshots.state import is_answerable


class Answerable:
    """The rounds that at least one model could answer. Each period is looked for once, and not for each model."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._of_period: dict[tuple[int, int], list[RoundScoredData]] = {}

    def between(self, start: int, end: int) -> list[RoundScoredData]:
        """Those of a period [start, end) in ms."""
        if (start, end) not in self._of_period:
            terms = self._chain.terms
            self._of_period[start, end] = [
                scored_round
                for scored_round in self._chain.closed.values()
                if start <= scored_round.resolvable_at < end
                and terms.adds_up(scored_round.contract_hash, scored_round.resolvable_at)
                and is_answerable(scored_round)
            ]
        return self._of_period[start, end]


def participation(chain: Chain, snapshot: SnapshotTakenData, answerable: Answerable) -> tuple[int, int]:
    """(rounds of the period that some model could answer, less those that this one missed by no fault of its own; how
    many these are).
    """
    model_id, start = snapshot.model_id, snapshot.period_start
    rounds = answerable.between(start, snapshot.period_end)
    rounds_count = len(rounds)
    excused = sum(_is_excused(model_id, scored_round) for scored_round in rounds)
    for corrected in corrected_in(chain, start):
        first = with_first_scores(corrected)
        was, now = is_answerable(first), is_answerable(corrected)
        rounds_count += now and not was
        excused += (now or was) * _is_excused(model_id, corrected) - was * _is_excused(model_id, first)
    return rounds_count - excused, excused


def corrected_in(chain: Chain, start: int) -> list[RoundRescoredData]:
    """The corrections of earlier periods' rounds that came in the period from `start` (ms) on."""
    return [
        corrected
        for corrected in chain.corrected_later
        if chain.terms.snapshot_period(corrected.resolvable_at)[0] == start
        and chain.terms.adds_up(corrected.contract_hash, start)
    ]


def _is_excused(model_id: str, scored_round: RoundScoredData) -> bool:
    """Whether a model missed this round by no fault of its own."""
    return any(
        entry.fault != "model" and scored_round.models[entry.model] == model_id
        for entry in scored_round.unscored
    )


def with_first_scores(data: RoundRescoredData) -> RoundScoredData:
    """The round as its first truth scored it."""
    first = data.before
    return msgspec.structs.replace(
        data,
        models=first.models,
        crunchers=[],
        units=first.units,
        unscored=first.unscored,
        reasons=first.reasons,
        rounds=[],
        replaced={},
        merged={},
    )
