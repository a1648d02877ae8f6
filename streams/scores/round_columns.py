"""What a scorer of whole rounds gets and gives: the answers of a scope, and their scores, in columns of its models.

Pure. Models are in the order of their ids, and a place in the columns names a model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from coordinator.streams.events import NO_OUTPUT, Fault, RosterEntry, ScopeAnsweredData, Unscored
from coordinator.streams.scores.raised_rounds import Places
from coordinator.streams.scores.scorer import MODEL, NODE

UnscoredPlaces = dict[int, tuple[Any, Fault, str]]
"""Place in the columns -> (status, fault, reason) of each model without a score. The reason is empty if the answer
itself was missing."""


class AskedModels(msgspec.Struct, frozen=True):
    """The models that were asked in a scope, and their answers: columns of n, in the order of model ids."""

    models: list[str]
    crunchers: list[str]
    outputs: list[msgspec.Raw]
    missed: dict[int, tuple[Any, Fault]]
    """Place in the columns -> (status, fault), for each model without a valid answer."""


def asked_in(parts: Iterable[ScopeAnsweredData], roster: Sequence[RosterEntry]) -> AskedModels:
    """The answers of one scope, sorted by model id. Raises IndexError for a model that is not on the roster."""
    answered = list(parts)
    if len(answered) == 1:
        (data,) = answered
        models = [roster[index].model_id for index in data.models]
        if models == sorted(models):  # the usual case: a roster is sorted by id, and a round has one part
            crunchers = [roster[index].cruncher_id for index in data.models]
            missed_at = {missed.place: (missed.status, missed.fault) for missed in data.unanswered}
            return AskedModels(models, crunchers, data.outputs, missed_at)
    rows: list[tuple[str, str, msgspec.Raw, Any, Fault]] = []
    for data in answered:
        unanswered = {missed.place: missed for missed in data.unanswered}
        for place, (index, output) in enumerate(zip(data.models, data.outputs, strict=True)):
            entry, missed = roster[index], unanswered.get(place)
            if missed is None:
                rows.append((entry.model_id, entry.cruncher_id, output, None, NODE))
            else:
                rows.append((entry.model_id, entry.cruncher_id, NO_OUTPUT, missed.status, missed.fault))
    rows.sort(key=lambda row: row[0])
    return AskedModels(
        models=[row[0] for row in rows],
        crunchers=[row[1] for row in rows],
        outputs=[row[2] for row in rows],
        missed={i: (row[3], row[4]) for i, row in enumerate(rows) if row[3] is not None},
    )


def with_only(asked: AskedModels, places: Places, output: msgspec.Raw | None) -> AskedModels:
    """The round with the answers at these places, or with `output` there. Each other model that answered failed."""
    failed = dict.fromkeys(set(range(len(asked.models))).difference(places), ("FAILED", MODEL))
    outputs = [NO_OUTPUT if place in failed else output or own for place, own in enumerate(asked.outputs)]
    return msgspec.structs.replace(asked, outputs=outputs, missed=failed | asked.missed)


class RoundOutcome(msgspec.Struct, frozen=True):
    """The result of one round: the columns of its RoundScored without charges, and the states that changed."""

    units: dict[str, list[int | None]]
    unscored: UnscoredPlaces
    charges: dict[int, int]
    """Place -> the number that the function returned for a missing or failed answer, in units of the value field."""
    states: dict[str, msgspec.Raw] = {}
    shared: list[msgspec.Raw] = []
    raised: bool = False
    """True: the function raised or returned no valid scores. Then no model is scored, and no answer is to blame."""


def columns_of(asked: AskedModels, outcome: RoundOutcome, charges: Mapping[int, int]) -> dict[str, Any]:
    """The columns of RoundScoredData: `RoundScoredData(.., **columns_of(..))`. `charges`: place -> units.

    Equal reasons are recorded once, and each unscored model has the index of its reason.
    """
    reasons: dict[str, int] = {}
    return {
        "models": asked.models,
        "crunchers": asked.crunchers if any(asked.crunchers) else [],
        "units": {
            name: column for name, column in outcome.units.items() if any(u is not None for u in column)
        },
        "unscored": [
            Unscored(
                place,
                status,
                fault,
                charges.get(place),
                reasons.setdefault(why, len(reasons)) if why else None,
            )
            for place, (status, fault, why) in sorted(outcome.unscored.items())
        ],
        "reasons": list(reasons),
    }
