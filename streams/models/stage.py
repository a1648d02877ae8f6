"""The models: who was seen, who left, whose failures were reported.

The outside (the orchestrator, by way of the gateway) and the operator's `commands` drive it; emits `models`.
A notice without news makes no event. RECOVERING makes none either: only STOPPED leaves, so that a
model cannot dodge a hard minute by crashing. A ban of a model that was never seen applies from its first day.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import msgspec

from coordinator.streams.events import (
    AnyEvent,
    BanModel,
    ModelBanned,
    ModelBannedData,
    ModelFailureData,
    ModelFailureReported,
    ModelLeft,
    ModelLeftData,
    ModelReadmitted,
    ModelReadmittedData,
    ModelSeen,
    ModelSeenData,
    ReadmitModel,
)
from coordinator.streams.log import ids
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.reasons import as_name, as_reason
from coordinator.streams.log.stage import Draft, PlacedEvent, Stage, State
from coordinator.streams.models.state import ModelsState
from coordinator.streams.ports import ModelNotice


class Noticed(msgspec.Struct, frozen=True):
    """A notice of the gateway. `at` is the clock in ms, 0 before its first tick: a model seen then is seen again at the
    first tick.
    """

    notices: Sequence[ModelNotice]
    at: int


class ModelsStageState(State):
    """All of it follows from the stage's own events."""

    own: ModelsState = msgspec.field(default_factory=ModelsState)


class ModelStage(Stage[ModelsStageState]):
    """The outside and commands -> models."""

    topic: ClassVar[str] = "models"
    drivers: ClassVar[tuple[str, ...]] = ("commands",)
    memory: ClassVar[tuple[str, ...]] = ("ModelSeen", "ModelLeft", "ModelBanned", "ModelReadmitted")

    def __init__(self) -> None:
        super().__init__(ModelsStageState())

    @property
    def models(self) -> ModelsState:
        """The models and their states."""
        return self.state.own

    def decide(self, state: ModelsStageState, placed: PlacedEvent) -> Draft | None:
        """What the gateway noticed, or what a command makes, at the command's own time. A ban of a banned model changes
        nothing, nor does a command about something else: the draft is empty then, and says that the command was read.
        """
        events: list[AnyEvent] = []
        match placed.event:
            case Noticed() as noticed:
                events = _told(state.own, noticed)
                return Draft(events, {}, {}) if events else None
            case BanModel(data=data) as asked if data.model_id not in state.own.banned:
                ban = ModelBannedData(model_id=data.model_id, reason=as_reason(data.reason))
                events.append(ModelBanned(id=ids.content_id("model-banned", asked.id), at=asked.at, data=ban))
            case ReadmitModel(data=data) as asked if data.model_id in state.own.banned:
                lift = ModelReadmittedData(model_id=data.model_id, reason=as_reason(data.reason))
                the_id = ids.content_id("model-readmitted", asked.id)
                events.append(ModelReadmitted(id=the_id, at=asked.at, data=lift))
            case _:
                pass
        return Draft(events, {placed.topic: placed.position}, self.needed(state, placed))

    def fold(self, state: ModelsStageState, placed: PlacedEvent) -> None:
        """The stage's own events. Nothing of a command is kept after it is decided."""
        if placed.topic == self.topic:
            state.own.evolve(placed.event)

    def offer(self, notices: Sequence[ModelNotice], at: int) -> Draft | None:
        """The draft for what the gateway noticed, or None if it is not new."""
        return self.hear(Noticed(notices, at))


def _told(models: ModelsState, noticed: Noticed) -> list[AnyEvent]:
    events: list[AnyEvent] = []
    scratch = ModelsState(dict(models.seen), dict(models.left), dict(models.banned))
    for seen in models.seen.values():
        if noticed.at > 0 and seen.at == 0 and seen.data.model_id not in scratch.left:
            again = _seen(seen.data, noticed.at, seen)
            scratch.evolve(again)
            events.append(again)
    for notice in noticed.notices:
        event = _event(notice, noticed.at, scratch)
        if event is not None:
            scratch.evolve(event)
            events.append(event)
    return events


def _event(notice: ModelNotice, at: int, models: ModelsState) -> AnyEvent | None:
    info = notice.info
    seen_before = models.seen.get(info.model_id)
    if notice.change == "seen":
        data = ModelSeenData(
            model_id=info.model_id,
            model_name=as_name(info.model_name),
            deployment_id=info.deployment_id,
            cruncher_id=info.cruncher_id,
            cruncher_name=as_name(info.cruncher_name),
            wallet_pubkey=info.wallet_pubkey,
            hotkey=info.hotkey,
        )
        if seen_before is not None and seen_before.data == data and info.model_id not in models.left:
            return None
        return _seen(data, at, seen_before)
    if notice.change == "left":
        if (
            seen_before is None
            or info.model_id in models.left
            or seen_before.data.deployment_id != info.deployment_id
        ):
            return None
        return ModelLeft(
            id=ids.content_id("model-left", info.model_id, info.deployment_id, str(at), seen_before.id),
            at=at,
            data=ModelLeftData(
                model_id=info.model_id, deployment_id=info.deployment_id, reason=as_reason(notice.reason)
            ),
        )
    if notice.change == "failed":
        return ModelFailureReported(
            id=ids.content_id("model-failed", info.model_id, info.deployment_id, notice.code, str(at)),
            at=at,
            data=ModelFailureData(
                model_id=info.model_id,
                deployment_id=info.deployment_id,
                code=notice.code,
                reason=as_reason(notice.reason),
            ),
        )
    return None


def _seen(data: ModelSeenData, at: int, seen_before: ModelSeen | None) -> ModelSeen:
    """`seen_before`: its last notice. While the clock stands still, a model may leave and be seen several times."""
    content = [data.model_id, data.deployment_id, data.model_name, data.cruncher_name, str(at)]
    content += [] if seen_before is None else [seen_before.id]
    return ModelSeen(id=ids.content_id("model-seen", *content), at=at, data=data)


def timed(decision: Decision, at: int) -> Decision:
    """A decision of `commands`, decided at `at`, the clock in ms. In a replay that is not the operator's time."""
    return decision.with_events([msgspec.structs.replace(event, at=at) for event in decision.events])
