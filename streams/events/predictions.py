"""Events of `predictions`: who was asked, and what each said or did not say."""

from __future__ import annotations

from typing import Any

from coordinator.streams.events.base import Data, Event, Fault


class RosterEntry(Data, frozen=True):
    """A model that was asked."""

    model_id: str
    deployment_id: str
    cruncher_id: str = ""
    """Whose model it is; empty where the orchestrator does not say."""


class RoundOpenedData(Data, frozen=True):
    """Who is asked, before the first call. The round's id is its input's."""

    input_id: str
    roster: list[RosterEntry]
    scope_keys: list[str]
    clock: int
    contract_hash: str
    models_seq: int
    """The last decision of `models` that the roster knows: whoever reads both can tell whom it had to name."""


class RoundOpened(Event, frozen=True):
    """A round of predictions began."""

    data: RoundOpenedData


class PredictionRecordedData(Data, frozen=True):
    """A valid answer; `output` is plain JSON of the contract's output type."""

    input_id: str
    scope_key: str
    model_id: str
    deployment_id: str
    output: dict[str, Any]
    exec_time_us: int


class PredictionRecorded(Event, frozen=True):
    """A model answered in time: PENDING."""

    data: PredictionRecordedData


class PredictionMissedData(Data, frozen=True):
    """Why there is no valid answer, and whose fault it is."""

    input_id: str
    scope_key: str
    model_id: str
    deployment_id: str
    reason: str
    fault: Fault
    exec_time_us: int = 0


class PredictionAbsent(Event, frozen=True):
    """A model on the roster did not answer: ABSENT."""

    data: PredictionMissedData


class PredictionFailed(Event, frozen=True):
    """A model answered badly: FAILED."""

    data: PredictionMissedData


class RoundAnsweredInPartData(Data, frozen=True):
    """The models whose events for every scope stand before this one, in this same decision."""

    input_id: str
    model_ids: list[str]
    clock: int


class RoundAnsweredInPart(Event, frozen=True):
    """Some models of a round are recorded while others are still asked."""

    data: RoundAnsweredInPartData


class RoundAnsweredData(Data, frozen=True):
    """Every roster entry of every scope has its event now, in this decision or in a part before it."""

    input_id: str
    clock: int


class RoundAnswered(Event, frozen=True):
    """A round of predictions is complete."""

    data: RoundAnsweredData
