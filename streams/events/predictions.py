"""Events of `predictions`: who was asked, and what each said or did not say."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from operator import itemgetter
from typing import Any, Literal

import msgspec

from coordinator.streams.events.base import Data, Event, Fault

AnswerStatus = Literal["PENDING", "ABSENT", "FAILED"]
NO_OUTPUT = msgspec.Raw(b"null")


class RosterEntry(Data, frozen=True):
    """A model that was asked."""

    model_id: str
    deployment_id: str
    cruncher_id: str = ""
    """Whose model it is; empty where the orchestrator does not say."""


class RoundHistory(Data, frozen=True):
    """Which models get the longer first tick in a round, and what it says."""

    subject: str
    models: list[int]
    """Indices into the roster, ascending."""
    sha256: str = ""
    """Of its JSON; empty where nobody gets it."""
    reason: str = ""
    """Why it could not be made: then they get the tick of the others, and this one in the next round."""


class RoundPerformance(Data, frozen=True):
    """What each model of a round is told of its own performance."""

    snapshots_seq: int
    """The last decision of `snapshots` that closed a period and was known; -1 where none was."""
    sha256: str
    """Of the JSON list of what each on the roster is told, in its order."""


class RoundOpenedData(Data, frozen=True):
    """Who is asked, before the first call. The round's id is its input's."""

    input_id: str
    roster: list[RosterEntry]
    scope_keys: list[str]
    clock: int
    contract_hash: str
    models_seq: int
    """The last decision of `models` that the roster knows: whoever reads both can tell whom it had to name."""
    history: RoundHistory | None = None
    """Where the contract gives a model more with its first tick."""
    performance: RoundPerformance | None = None
    """Where the contract tells a model its own performance."""


class RoundOpened(Event, frozen=True):
    """A round of predictions began."""

    data: RoundOpenedData


class AnswerEntry(msgspec.Struct, frozen=True, gc=False):
    """One model's answer to one scope, or why there is none: what the columns of a ScopeAnswered say about it.

    `output` is JSON of the contract's output type, where PENDING; `reason` and `fault` stand where not.
    """

    model_id: str
    deployment_id: str
    status: AnswerStatus
    output: msgspec.Raw = NO_OUTPUT
    exec_time_us: int = 0
    reason: str = ""
    fault: Fault | None = None


class Unanswered(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """[place in the columns, status, fault, index of its reason]."""

    place: int
    status: Literal["ABSENT", "FAILED"]
    fault: Fault
    reason: int


class ScopeAnsweredData(Data, frozen=True):
    """What models of a round said in one scope, in columns: place i of each is that of `models[i]`.

    Large answers of a scope stand in several of these, each with models of its own. Raises ValueError for columns that
    do not fit together.
    """

    input_id: str
    scope_key: str
    models: list[int]
    """Indices into the roster of the round's RoundOpened, ascending."""
    outputs: list[msgspec.Raw]
    """Plain JSON of the contract's output type; null where there is no valid answer."""
    exec_times_us: list[int]
    unanswered: list[Unanswered]
    """Who has no valid answer, in the order of `models`; everybody else is PENDING."""
    reasons: list[str]
    deployments: list[tuple[int, str]] = []
    """(place, deployment_id) where another deployment answered than the roster names."""

    def __post_init__(self) -> None:
        n = len(self.models)
        lengths = [len(self.outputs), len(self.exec_times_us)]
        if lengths != [n, n] or any(a >= b for a, b in pairwise(self.models)) or (n and self.models[0] < 0):
            message = f"{n} models, ascending, but columns of {lengths}"
            raise ValueError(message)
        if not self.unanswered and not self.deployments:
            return  # nearly always: every answer is valid, and none of another deployment
        places = [-1, *(one.place for one in self.unanswered), n]
        if any(a >= b for a, b in pairwise(places)):
            message = f"places {places[1:-1]} of {n} models"
            raise ValueError(message)
        if any(not 0 <= one.reason < len(self.reasons) for one in self.unanswered) or any(
            not 0 <= place < n for place, _ in self.deployments
        ):
            message = "a reason or a deployment of nobody"
            raise ValueError(message)

    def status_counts(self) -> tuple[int, int, int]:
        """How many are (PENDING, ABSENT, FAILED)."""
        failed = sum(one.status == "FAILED" for one in self.unanswered)
        return len(self.models) - len(self.unanswered), len(self.unanswered) - failed, failed

    def entries(self, roster: Sequence[RosterEntry]) -> list[AnswerEntry]:
        """The columns as an entry per model, for whoever looks at each. Raises IndexError for another roster."""
        unanswered = {one.place: one for one in self.unanswered}
        deployments = dict(self.deployments)
        entries: list[AnswerEntry] = []
        for place, (index, output, spent) in enumerate(
            zip(self.models, self.outputs, self.exec_times_us, strict=True)
        ):
            asked, one = roster[index], unanswered.get(place)
            deployment_id = deployments.get(place, asked.deployment_id)
            if one is None:
                entries.append(AnswerEntry(asked.model_id, deployment_id, "PENDING", output, spent))
            else:
                reason = self.reasons[one.reason]
                entries.append(
                    AnswerEntry(
                        asked.model_id, deployment_id, one.status, NO_OUTPUT, spent, reason, one.fault
                    )
                )
        return entries


class ScopeAnswered(Event, frozen=True):
    """Models answered one scope of a round, or did not: PENDING, ABSENT or FAILED for each."""

    data: ScopeAnsweredData


def answers_in_columns(roster: Sequence[RosterEntry], entries: Sequence[AnswerEntry]) -> dict[str, Any]:
    """The columns of ScopeAnsweredData from its entries: `ScopeAnsweredData(.., **answers_in_columns(..))`.

    Raises KeyError for a model that is not on the roster.
    """
    index_of = {asked.model_id: index for index, asked in enumerate(roster)}
    ordered = sorted(((index_of[entry.model_id], entry) for entry in entries), key=itemgetter(0))
    reasons: dict[str, int] = {}
    return {
        "models": [index for index, _ in ordered],
        "outputs": [entry.output for _, entry in ordered],
        "exec_times_us": [entry.exec_time_us for _, entry in ordered],
        "unanswered": [
            Unanswered(
                place, entry.status, entry.fault or "node", reasons.setdefault(entry.reason, len(reasons))
            )
            for place, (_, entry) in enumerate(ordered)
            if entry.status != "PENDING"
        ],
        "reasons": list(reasons),
        "deployments": [
            (place, entry.deployment_id)
            for place, (index, entry) in enumerate(ordered)
            if entry.deployment_id != roster[index].deployment_id
        ],
    }


class RoundAnsweredInPartData(Data, frozen=True):
    """The models whose answers for every scope stand before this one, in this same decision."""

    input_id: str
    models: list[int]
    """Indices into the round's roster, ascending."""
    clock: int


class RoundAnsweredInPart(Event, frozen=True):
    """Some models of a round are recorded while others are still asked."""

    data: RoundAnsweredInPartData


class RoundAnsweredData(Data, frozen=True):
    """Every roster entry of every scope has its answer now, in this decision or in a part before it."""

    input_id: str
    clock: int


class RoundAnswered(Event, frozen=True):
    """A round of predictions is complete."""

    data: RoundAnsweredData
