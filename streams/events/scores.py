"""Events of `scores`: each prediction, scored by the truth of its horizon."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from coordinator.streams.events.base import Data, Event, Fault, FinalStatus


class ScoreEntry(msgspec.Struct, frozen=True, gc=False):
    """The result of one prediction: the row of a RoundScored as an object.

    `units` are its score's numeric fields, empty unless SCORED. `reason` is why it could not be scored, empty if it was
    scored or never PENDING.
    """

    model_id: str
    status: FinalStatus
    fault: Fault | None = None
    charge_units: int | None = None
    cruncher_id: str = ""
    units: dict[str, int] = {}
    reason: str = ""

    @property
    def player(self) -> str:
        """The owner of this history: the cruncher, or the model itself if no cruncher is known."""
        return self.cruncher_id or self.model_id


class Unscored(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """[index of its model, status, fault, charge in units or null, index of its reason or null].

    It has a reason here if it was PENDING and could not be scored. Otherwise its answer failed or did not come, and
    `predictions` has the reason.
    """

    model: int
    status: Literal["FAILED", "ABSENT"]
    fault: Fault
    charge_units: int | None = None
    reason: int | None = None


class RoundScoredData(Data, frozen=True):
    """Every answer of one scope of a round, in columns: index i of each column belongs to `models[i]`.

    Raises ValueError for columns that do not fit together: another length, an index that names no model, a score
    although the status says that there is none.
    """

    input_id: str
    scope_key: str
    subject: str
    point: int
    resolvable_at: int
    horizon_seconds: int
    rehearsal: bool
    contract_hash: str
    models: list[str]
    crunchers: list[str]
    """The cruncher of each model; empty if no cruncher is known."""
    units: dict[str, list[int | None]]
    """Score field -> its units, null for a model without this number."""
    unscored: list[Unscored]
    """The models that are not SCORED, in the order of `models`. All others are."""
    reasons: list[str]
    rounds: list[str] = []
    """For a posted question: the round of each model's answer, as AnswersClosed names its rounds; if several count, the
    latest. Empty where it is the first round for all.
    """
    replaced: dict[str, list[int]] = {}
    """Round -> indices of the models with a valid answer in it that a later one replaced."""
    merged: dict[str, list[int]] = {}
    """Round -> indices of the models with a valid answer in it that counts together with the one in `rounds`."""

    def __post_init__(self) -> None:
        n = len(self.models)
        lengths = [*map(len, self.units.values()), len(self.crunchers) or n, len(self.rounds) or n]
        if set(lengths) != {n} or len(set(self.models)) != n:
            message = f"{n} models, each named once, but columns of {lengths}"
            raise ValueError(message)
        before = -1
        for entry in self.unscored:
            if not before < entry.model < n or (
                entry.reason is not None and not 0 <= entry.reason < len(self.reasons)
            ):
                message = f"{entry} names no model behind {before}, or no reason"
                raise ValueError(message)
            if any(column[entry.model] is not None for column in self.units.values()):
                message = f"model {self.models[entry.model]} is {entry.status} and has a score"
                raise ValueError(message)
            before = entry.model
        for indices in (*self.replaced.values(), *self.merged.values()):
            if any(not 0 <= index < n for index in indices):
                message = f"answers of {indices}, but there are {n} models"
                raise ValueError(message)

    def entry_of(self, model_id: str) -> ScoreEntry | None:
        """The entry of one model, as `entries` has it; None if the round does not have it."""
        if model_id not in self.models:
            return None
        i = self.models.index(model_id)
        whose = self.crunchers[i] if self.crunchers else ""
        missed = next((entry for entry in self.unscored if entry.model == i), None)
        if missed is None:
            return ScoreEntry(model_id, "SCORED", cruncher_id=whose, units=units_of(self.units, i))
        reason = "" if missed.reason is None else self.reasons[missed.reason]
        return ScoreEntry(
            model_id, missed.status, missed.fault, missed.charge_units, whose, units_of(self.units, i), reason
        )

    def entries(self) -> list[ScoreEntry]:
        """The columns as an entry per model, for whoever looks at each; a hot fold reads the columns."""
        unscored = {entry.model: entry for entry in self.unscored}
        whose = self.crunchers or [""] * len(self.models)
        entries: list[ScoreEntry] = []
        for i, (model_id, cruncher_id) in enumerate(zip(self.models, whose, strict=True)):
            entry = unscored.get(i)
            units = units_of(self.units, i)
            if entry is None:
                entries.append(ScoreEntry(model_id, "SCORED", cruncher_id=cruncher_id, units=units))
            else:
                reason = "" if entry.reason is None else self.reasons[entry.reason]
                entries.append(
                    ScoreEntry(
                        model_id, entry.status, entry.fault, entry.charge_units, cruncher_id, units, reason
                    )
                )
        return entries


class RoundScored(Event, frozen=True):
    """A round and scope is scored: PENDING -> SCORED or FAILED for each prediction that was PENDING."""

    data: RoundScoredData


class ScoreColumns(Data, frozen=True):
    """The columns of a RoundScored that a correction replaces."""

    models: list[str]
    units: dict[str, list[int | None]]
    unscored: list[Unscored]
    reasons: list[str] = []


class RoundRescoredData(RoundScoredData, frozen=True, kw_only=True):
    """The scores of a posted question by its corrected truth. `resolvable_at` is when that truth came, `before` has the
    scores that it replaces.

    Both stay in the log: the difference is what the correction changes in the running checkpoint period.
    """

    revision: int
    """The revision of the truth."""
    first_resolvable_at: int
    """When the first truth came (ms)."""
    before: ScoreColumns


class RoundRescored(Event, frozen=True):
    """A question was scored again, by a corrected truth, within the checkpoint period in which it was first scored."""

    data: RoundRescoredData


def units_of(columns: dict[str, list[int | None]], i: int) -> dict[str, int]:
    """The score fields of the model at index i."""
    return {name: units for name, column in columns.items() if (units := column[i]) is not None}


def units_of_all(columns: dict[str, list[int | None]]) -> list[dict[str, int]]:
    """`units_of` for every index, four times faster than to ask for one after another."""
    rows: list[dict[str, int]] = [{} for _ in next(iter(columns.values()), [])]
    for name, column in columns.items():
        for row, units in zip(rows, column, strict=True):
            if units is not None:
                row[name] = units
    return rows


def in_columns(entries: Sequence[ScoreEntry]) -> dict[str, Any]:
    """The columns of RoundScoredData from its entries: `RoundScoredData(.., **in_columns(entries))`."""
    names = dict.fromkeys(name for entry in entries for name in entry.units)
    reasons: dict[str, int] = {}
    unscored = [
        Unscored(
            i,
            entry.status,
            entry.fault or "node",
            entry.charge_units,
            reasons.setdefault(entry.reason, len(reasons)) if entry.reason else None,
        )
        for i, entry in enumerate(entries)
        if entry.status != "SCORED"
    ]
    return {
        "models": [entry.model_id for entry in entries],
        "crunchers": [entry.cruncher_id for entry in entries] if any(e.cruncher_id for e in entries) else [],
        "units": {name: [entry.units.get(name) for entry in entries] for name in names},
        "unscored": unscored,
        "reasons": list(reasons),
    }


class StateCarriedData(Data, frozen=True):
    """The changes of a scored round to the state that its contract carries from round to round. Other state stays.

    It follows the RoundScored of its round, in the same decision. A large state is in several of these events.
    """

    input_id: str
    scope_key: str
    subject: str
    holder: str
    """The rounds that share it: `subject/scope_key`, or empty if all rounds of a contract do."""
    states: dict[str, msgspec.Raw]
    """model id -> its state as JSON; null if it is removed."""
    shared: list[msgspec.Raw] = []
    """[the state of all], if it changed; otherwise empty."""


class StateCarried(Event, frozen=True):
    """The state with which the next round of the same holder begins has changed."""

    data: StateCarriedData


class EnsemblesScoredData(RoundScoredData, frozen=True, kw_only=True):
    """What the contract's ensembles answered in one scope of a round, and its scores: columns as RoundScored has them,
    with an ensemble in the place of a model. An ensemble that could not be made is FAILED by the node, with the reason.
    This event follows the RoundScored of its round, in the same decision. Raises ValueError like RoundScored's.
    """

    answered: list[str]
    """The models that answered, ascending."""
    weights: list[list[int | None]]
    """For each ensemble the weight of each of `answered`, in parts of 10**9; null for a model that is no member. Empty
    where there are no weights.
    """
    outputs: list[msgspec.Raw]
    """For each ensemble its answer as JSON; null if it has none."""
    states: dict[str, msgspec.Raw] = {}
    """Ensemble -> its carried state from now on, if `score_round` changed it; null if it is removed."""
    holder: str = ""
    """Which rounds share these states, as `StateCarriedData.holder`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        n, most = len(self.models), len(self.answered)
        if {len(self.weights), len(self.outputs)} != {n} or any(
            len(column) not in (0, most) for column in self.weights
        ):
            message = f"{n} ensembles of {most} answers, but other columns of weights or outputs"
            raise ValueError(message)


class EnsemblesScored(Event, frozen=True):
    """The virtual models of a round and scope have their scores, which change no other score."""

    data: EnsemblesScoredData


class ScoredUntilData(Data, frozen=True):
    """Every round with resolvable time < `until` is closed. `until` is a period boundary."""

    until: int
    rehearsal: bool


class ScoredUntil(Event, frozen=True):
    """The scores of all periods up to `until` are complete."""

    data: ScoredUntilData
