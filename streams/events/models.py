"""Events of `models`: models that were registered, that left, and whose failures were reported."""

from __future__ import annotations

from coordinator.streams.events.base import Data, Event


class ModelSeenData(Data, frozen=True):
    """The identity of a model."""

    model_id: str
    model_name: str
    deployment_id: str
    cruncher_id: str
    cruncher_name: str
    wallet_pubkey: str = ""
    hotkey: str = ""


class ModelSeen(Event, frozen=True):
    """A model runs, for the first time or under a new deployment or name."""

    data: ModelSeenData


class ModelLeftData(Data, frozen=True):
    """The model and deployment that stopped for good."""

    model_id: str
    deployment_id: str
    reason: str


class ModelLeft(Event, frozen=True):
    """A model was stopped; it is on no roster from now on."""

    data: ModelLeftData


class ModelBannedData(Data, frozen=True):
    """The operator's word."""

    model_id: str
    reason: str


class ModelBanned(Event, frozen=True):
    """The operator took a model off the roster."""

    data: ModelBannedData


class ModelReadmittedData(Data, frozen=True):
    """The operator's word."""

    model_id: str
    reason: str


class ModelReadmitted(Event, frozen=True):
    """The operator lifted a ban. The model is asked again as soon as it runs."""

    data: ModelReadmittedData


class ModelFailureData(Data, frozen=True):
    """What was reported to the orchestrator."""

    model_id: str
    deployment_id: str
    code: str
    reason: str


class ModelFailureReported(Event, frozen=True):
    """A model's failure was reported to the orchestrator."""

    data: ModelFailureData
