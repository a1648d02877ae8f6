"""Events of `predictions`: the models that were asked, and their answers or why there are none."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from operator import itemgetter
from typing import Any, Literal

import msgspec

from coordinator.streams.events.base import Data, Event, Fault
from coordinator.streams.events.feeds import Blob

AnswerStatus = Literal["PENDING", "ABSENT", "FAILED"]
NO_OUTPUT = msgspec.Raw(b"null")


class RosterEntry(Data, frozen=True):
    """A model that was asked."""

    model_id: str
    deployment_id: str
    cruncher_id: str = ""
    """The cruncher that the model belongs to; empty if the orchestrator does not say."""


class RoundHistory(Data, frozen=True):
    """The models that get the longer first tick in a round, and the hash of that tick."""

    subject: str
    models: list[int]
    """Indices into the roster, ascending."""
    sha256: str = ""
    """SHA-256 of its JSON; empty if no model gets it."""
    reason: str = ""
    """Why it could not be made. The models then get the normal tick, and this one in the next round."""


class RoundPerformance(Data, frozen=True):
    """What each model of a round gets about its own performance."""

    snapshots_seq: int
    """The last decision of `snapshots` that closed a period and was known; -1 if there was none."""
    sha256: str
    """SHA-256 of the JSON list of what each model on the roster receives, in the order of the roster."""


class RoundOpenedData(Data, frozen=True):
    """The models that are asked, before the first call. The round's id is its input's."""

    input_id: str
    roster: list[RosterEntry]
    scope_keys: list[str]
    clock: int
    contract_hash: str
    models_seq: int
    """The last decision of `models` from which the roster was made. So a reader of both topics can check the roster."""
    history: RoundHistory | None = None
    """Where the contract gives a model more with its first tick."""
    performance: RoundPerformance | None = None
    """If the contract gives a model its own performance: the hash of it."""
    closes_at: int | None = None
    """When answers close (ms), if the round asks a posted question."""


class RoundOpened(Event, frozen=True):
    """A round of predictions began."""

    data: RoundOpenedData


class AnswerEntry(msgspec.Struct, frozen=True, gc=False):
    """One model's answer to one scope, or why there is none: the row of a ScopeAnswered as an object.

    `output` is JSON of the contract's output type if PENDING; otherwise there are `reason` and `fault`. For a large
    answer `output` is null, and `blob` names its JSON.
    """

    model_id: str
    deployment_id: str
    status: AnswerStatus
    output: msgspec.Raw = NO_OUTPUT
    exec_time_us: int = 0
    reason: str = ""
    fault: Fault | None = None
    blob: Blob | None = None

    @property
    def text(self) -> str:
        """The answer as text for people: the JSON, or the name of the blob that holds it."""
        if self.blob is None:
            return bytes(self.output).decode(errors="replace")
        return f"blob {self.blob.sha256} of {self.blob.bytes} bytes"


class Unanswered(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """[place in the columns, status, fault, index of its reason]."""

    place: int
    status: Literal["ABSENT", "FAILED"]
    fault: Fault
    reason: int


class ScopeAnsweredData(Data, frozen=True):
    """The answers of a round's models in one scope, in columns: index i of each column belongs to `models[i]`.

    Large answers of a scope are in several of these events, each with other models. Raises ValueError for columns that
    do not fit together.
    """

    input_id: str
    scope_key: str
    models: list[int]
    """Indices into the roster of the round's RoundOpened, ascending."""
    outputs: list[msgspec.Raw]
    """Plain JSON of the contract's output type; null if there is no valid answer, or if `blobs` has it."""
    exec_times_us: list[int]
    unanswered: list[Unanswered]
    """The models without a valid answer, in the order of `models`. All others are PENDING."""
    reasons: list[str]
    deployments: list[tuple[int, str]] = []
    """(index, deployment_id) if another deployment answered than the roster names."""
    blobs: list[tuple[int, Blob]] = []
    """(index, its JSON beside the log) of each large answer."""

    def __post_init__(self) -> None:
        n = len(self.models)
        lengths = [len(self.outputs), len(self.exec_times_us)]
        ascending = n <= 1 or self.models == sorted(set(self.models))
        if lengths != [n, n] or not ascending or (n and self.models[0] < 0):
            message = f"{n} models, ascending, but columns of {lengths}"
            raise ValueError(message)
        if not self.unanswered and not self.deployments and not self.blobs:
            return  # nearly always: every answer is valid and in here, and none of another deployment
        places = [-1, *(answer.place for answer in self.unanswered), n]
        if any(a >= b for a, b in pairwise(places)):
            message = f"places {places[1:-1]} of {n} models"
            raise ValueError(message)
        if any(not 0 <= answer.reason < len(self.reasons) for answer in self.unanswered) or any(
            not 0 <= place < n for place, _ in self.deployments
        ):
            message = "a reason or a deployment of nobody"
            raise ValueError(message)
        beside, missed = [place for place, _ in self.blobs], set(places[1:-1])
        if any(a >= b for a, b in pairwise([-1, *beside, n])) or not missed.isdisjoint(beside):
            message = f"blobs of the places {beside} of {n} models"
            raise ValueError(message)

    def status_counts(self) -> tuple[int, int, int]:
        """How many are (PENDING, ABSENT, FAILED)."""
        failed = sum(answer.status == "FAILED" for answer in self.unanswered)
        return len(self.models) - len(self.unanswered), len(self.unanswered) - failed, failed

    def entries(self, roster: Sequence[RosterEntry]) -> list[AnswerEntry]:
        """The columns as an entry per model, for whoever looks at each. Raises IndexError for another roster."""
        unanswered = {answer.place: answer for answer in self.unanswered}
        deployments, blobs = dict(self.deployments), dict(self.blobs)
        entries: list[AnswerEntry] = []
        for place, (index, output, spent) in enumerate(
            zip(self.models, self.outputs, self.exec_times_us, strict=True)
        ):
            asked, missing = roster[index], unanswered.get(place)
            deployment_id = deployments.get(place, asked.deployment_id)
            if missing is None:
                blob = blobs.get(place)
                entries.append(
                    AnswerEntry(asked.model_id, deployment_id, "PENDING", output, spent, blob=blob)
                )
            else:
                reason = self.reasons[missing.reason]
                entries.append(
                    AnswerEntry(
                        asked.model_id, deployment_id, missing.status, NO_OUTPUT, spent, reason, missing.fault
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
        "blobs": [(place, entry.blob) for place, (_, entry) in enumerate(ordered) if entry.blob is not None],
    }


class RoundAnsweredInPartData(Data, frozen=True):
    """The models whose answers for every scope are before this event, in the same decision."""

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


class AnswersClosedData(Data, frozen=True):
    """The question, by the input that represents it, and the suffixes of the ids of its rounds, in the order in which
    they were opened: "" and `~2` for a round that asked models, `~sab12..` for answers that were handed in.
    """

    input_id: str
    rounds: list[str]
    clock: int


class AnswersClosed(Event, frozen=True):
    """A posted question has all its answers: each of its rounds is answered, and no other will open."""

    data: AnswersClosedData
