"""Gathers the answers of two models that `/reports/models/copies` compares, for `streams/audit/explain`.

Reads the rows of `predictions`, as that report does, and the decisions in which the newest of these answers stand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice

import msgspec
import numpy as np

from coordinator.projections.explaining.log_reading import ReadAppends, of_scope, read_placed
from coordinator.projections.explaining.typed_ids import UnknownFigureError, shown
from coordinator.projections.folding.as_of import Readable
from coordinator.projections.views.agreement import (
    NUMBERS_PER_ANSWER_MAX,
    SeriesRound,
    answers_in_series,
    numbers_in,
)
from coordinator.projections.views.prediction_places import told_at
from coordinator.streams.audit.copies import find_copies
from coordinator.streams.audit.copy_rules import CopyRules
from coordinator.streams.audit.explain.copies import ComparedRound, CopyFacts
from coordinator.streams.audit.explain.rescoring import AnsweredRound
from coordinator.streams.audit.explain.steps import LISTED_MAX, Source, of_kind
from coordinator.streams.events import AnswerEntry, RoundOpened, ScopeAnswered


def copy_facts(
    read: Readable,
    pair: tuple[str, str],
    span: tuple[int, int],
    rounds_max: int,
    rules: CopyRules,
    appends: ReadAppends,
) -> CopyFacts:
    """The facts of two models over the newest rounds that opened in `span` (ms, both included). Raises
    UnknownFigureError, WorldError, LogError.
    """
    if pair[0] == pair[1]:
        raise UnknownFigureError(
            f"model {shown(pair[0])} is compared with a second model: name that one as `other`"
        )
    pair = (min(pair), max(pair))
    series, rounds = answers_in_series(read.predictions, *span, rounds_max)
    for model_id in pair:
        if model_id not in series:
            raise UnknownFigureError(
                f"model {shown(model_id)} answered no number in the {len(rounds):,} rounds that are compared: "
                "/reports/models/copies has the models that did"
            )
    both = {model_id: series[model_id] for model_id in pair}
    listed = [place for place in rounds if _answered(both, place)][-LISTED_MAX:]
    rounds_told = _answered_rounds(read, appends, listed)
    return CopyFacts(
        pair=pair,
        rounds=len(rounds),
        opened=(rounds[0].opened_at, rounds[-1].opened_at),
        series=[values.tolist() for values in both.values()],
        compared=[
            _compared(both, place, rounds_told.get((place.input_id, place.scope_key))) for place in listed
        ],
        rules=rules,
        evidence=next(iter(find_copies(both, rules)), None),
    )


def _answered(both: Mapping[str, np.ndarray], place: SeriesRound) -> bool:
    end = place.first + place.width
    return any(not np.isnan(values[place.first : end]).all() for values in both.values() if place.width)


def _answered_rounds(
    read: Readable, appends: ReadAppends, listed: Sequence[SeriesRound]
) -> dict[tuple[str, str], AnsweredRound]:
    """(input_id, scope_key) -> the opening of the round and the answers of the scope, as the log has them."""
    offsets: set[int] = set()
    for place in listed:
        offsets.update(told_at(read.predictions, place.input_id, place.scope_key)["predictions"])
    placed = read_placed(appends, {"predictions": sorted(offsets)})
    opened = {item.event.data.input_id: item for item in of_kind(placed, RoundOpened)}
    answered = of_kind(placed, ScopeAnswered)
    return {
        (place.input_id, place.scope_key): AnsweredRound(
            opened[place.input_id], of_scope(answered, place.input_id, place.scope_key)
        )
        for place in listed
        if place.input_id in opened
    }


def _compared(
    both: Mapping[str, np.ndarray], place: SeriesRound, the_round: AnsweredRound | None
) -> ComparedRound:
    """The numbers of both models in one round, the event of their answers, and whether the log has these numbers."""
    numbers: list[list[float]] = []
    source: Source | None = None
    agrees = the_round is not None
    for model_id, values in both.items():
        own = values[place.first : place.first + place.width]
        numbers.append([float(number) for number in own[~np.isnan(own)]])
        answer = the_round.answer_of(model_id) if the_round is not None else None
        if answer is not None:
            source = answer[1].source
        if numbers[-1]:  # a large answer is in the log alone, and has no number here
            agrees = agrees and answer is not None and _numbers(answer[0]) == numbers[-1]
    return ComparedRound(f"{place.input_id}/{place.scope_key}", numbers, source, agrees)


def _numbers(entry: AnswerEntry) -> list[float]:
    return [*islice(numbers_in(msgspec.json.decode(entry.output)), NUMBERS_PER_ANSWER_MAX)]
