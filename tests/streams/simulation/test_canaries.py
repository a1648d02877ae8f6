"""Nodes with a known fault, each of which the simulation must find within a hundred seeds. Their faults come in by the
port of the simulation (`Node`); the product has no switch for any of them.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from coordinator.streams import events as ev
from coordinator.streams.agents.feed.worker import FeedTenure
from coordinator.streams.agents.owning.ownership import OwnedTopic
from coordinator.streams.agents.owning.tenure import Tenure
from coordinator.streams.agents.predict import worker as predict
from coordinator.streams.checkpoints.stage import CheckpointStage
from coordinator.streams.inputs.stage import InputStage
from coordinator.streams.log.stage import Draft, Told
from coordinator.streams.scores.stage import ScoreStage
from coordinator.streams.simulation.campaign import quiet, schedule_of, tried
from coordinator.streams.simulation.node import Node, Process
from coordinator.streams.simulation.run import Challenge
from coordinator.streams.snapshots.stage import SnapshotStage

ROUNDS = 8
SEEDS = range(1, 101)


class _Unguarded(ScoreStage):
    def decided(self, source: str, position: Any) -> bool:
        return False


class DecidesDuplicatesAgain(Node):
    """Its score stage forgets what it had decided: a record that is read again is decided again."""

    def score_tenure(self, process: Process) -> Tenure:
        return Tenure(process.line, _Unguarded(self.shelf), process.name)


class _Unfenced(OwnedTopic):
    """Whoever comes second goes on in the epoch that it finds."""

    async def claim(self, remember: Any, stage: Any = None) -> None:
        reader = await self._io.reader(self.topic, 0)
        end = await reader.end()
        if end <= 1:  # its birth
            await super().claim(remember, stage)
            return
        self._tail = reader
        await self._fold(end, remember)
        self._writer = await self._io.writer()
        self.epoch, self.seq = self._counter.epoch, self._counter.seq
        self._watching = asyncio.create_task(self._watch())


class ClaimDoesNotFence(Node):
    """The claim of its predict worker begins no epoch."""

    def predict_tenure(self, process: Process) -> Tenure:
        tenure = super().predict_tenure(process)
        assert isinstance(tenure, predict.PredictTenure)
        tenure.owned = _Unfenced(process.line, "predictions", process.name)
        tenure._models_owned = _Unfenced(process.line, "models", process.name)
        return tenure


class FeedClaimDoesNotFence(Node):
    """Nor does that of its feed worker."""

    def input_tenure(self, process: Process) -> Tenure:
        tenure = super().input_tenure(process)
        assert isinstance(tenure, FeedTenure)
        tenure.owned = _Unfenced(process.line, "inputs", process.name)
        tenure._feeds_owned = _Unfenced(process.line, "feeds", process.name)
        return tenure


class _OffersTwice(CheckpointStage):
    def decide(self, state: Any, told: Told) -> Draft | None:
        draft = super().decide(state, told)
        if draft is None or not any(isinstance(one, ev.CheckpointSubmissionFailed) for one in draft.events):
            return draft
        failed = next(one for one in draft.events if isinstance(one, ev.CheckpointSubmissionFailed))
        data = state.own.settlements.states[failed.data.checkpoint_id].data
        again = ev.CheckpointOpened(id=f"{data.checkpoint_id}:again", at=failed.at, data=data)
        return msgspec.structs.replace(draft, events=[*draft.events, again])

    def fold(self, state: Any, told: Told) -> None:
        if not (isinstance(told.event, ev.CheckpointOpened) and told.event.id.endswith(":again")):
            super().fold(state, told)


class OffersAgain(Node):
    """A payment that failed makes it offer the checkpoint once more."""

    def checkpoint_tenure(self, process: Process) -> Tenure:
        return Tenure(process.line, _OffersTwice(self.crunch_id, self.shelf), process.name)


class _OffByOne(SnapshotStage):
    def decide(self, state: Any, told: Told) -> Draft | None:
        draft = super().decide(state, told)
        return draft and msgspec.structs.replace(draft, events=[_one_more(one) for one in draft.events])


def _one_more(event: Any) -> Any:
    if not isinstance(event, ev.SnapshotTaken) or not event.data.absent_node_count:
        return event
    more = msgspec.structs.replace(event.data, absent_node_count=event.data.absent_node_count + 1)
    return msgspec.structs.replace(event, data=more)


class CountsOneMore(Node):
    """A snapshot with absences has one too many."""

    def aggregate_tenure(self, process: Process) -> Tenure:
        return Tenure(process.line, _OffByOne(self.shelf), process.name)


class _Early(InputStage):
    def fold(self, state: Any, told: Told) -> None:
        event = told.event
        if isinstance(event, ev.FeedRecordReceived) and event.data.backfilled:
            told = msgspec.structs.replace(told, event=msgspec.structs.replace(event, at=event.at - 5_000))
        super().fold(state, told)


class TruthOfALateRecord(Node):
    """A record that came late counts as one of five seconds before."""

    def input_tenure(self, process: Process) -> Tenure:
        tenure = super().input_tenure(process)
        tenure.stage = _Early(self.shelf)
        return tenure


class _Hasty(ScoreStage):
    def needed(self, state: Any, told: Told) -> dict[str, Any]:
        return {**super().needed(state, told), told.topic: told.after}


class NeedsTooLittle(Node):
    """What a new owner of the scores would need is not read again."""

    def score_tenure(self, process: Process) -> Tenure:
        return Tenure(process.line, _Hasty(self.shelf), process.name)


class _Blaming(predict.PredictTenure):
    async def _answered(self, data: Any, answers: Any, clock: int) -> None:
        blamed = {
            scope_key: [
                msgspec.structs.replace(one, fault="model") if one.fault == "node" else one for one in entries
            ]
            for scope_key, entries in answers.items()
        }
        await super()._answered(data, blamed, clock)


class BlamesTheModels(Node):
    """What the node missed, its models pay for."""

    def predict_tenure(self, process: Process) -> Tenure:
        tenure = super().predict_tenure(process)
        tenure.__class__ = _Blaming
        return tenure


class _Forgets(predict.PredictTenure):
    async def _round(self, data: Any, told: Told) -> None:
        if data.input_id not in self.stage.state.open_rounds:
            await super()._round(data, told)


class LeavesRoundsOpen(Node):
    """What a dead owner opened nobody ends."""

    def predict_tenure(self, process: Process) -> Tenure:
        tenure = super().predict_tenure(process)
        tenure.__class__ = _Forgets
        return tenure


class PaysTwoBillion(Node):
    """Its emission is one frac64 too much, where nobody is excluded by the lifecycle."""

    def checkpoint_tenure(self, process: Process) -> Tenure:
        return Tenure(process.line, _OneTooMuch(self.crunch_id, self.shelf), process.name)


class _OneTooMuch(CheckpointStage):
    def decide(self, state: Any, told: Told) -> Draft | None:
        draft = super().decide(state, told)
        return draft and msgspec.structs.replace(draft, events=[_paying_more(one) for one in draft.events])


def _paying_more(event: Any) -> Any:
    if not isinstance(event, ev.CheckpointOpened):
        return event
    emission = msgspec.json.decode(msgspec.json.encode(event.data.emission))
    emission["cruncher_rewards"][0]["reward_pct"] += 1
    return msgspec.structs.replace(event, data=msgspec.structs.replace(event.data, emission=emission))


CANARIES = {
    DecidesDuplicatesAgain: "ids come once",
    ClaimDoesNotFence: None,
    FeedClaimDoesNotFence: None,
    OffersAgain: "lifecycles",
    CountsOneMore: "derived topics are those of an undisturbed run",
    TruthOfALateRecord: "derived topics are those of an undisturbed run",
    NeedsTooLittle: "derived topics are those of an undisturbed run",
    BlamesTheModels: "nobody pays for another's fault",
    LeavesRoundsOpen: None,
    PaysTwoBillion: "the sums add up",
}


@pytest.mark.parametrize("canary", CANARIES, ids=lambda one: one.__name__)
def test_a_canary_is_found_within_a_hundred_seeds(canary: type[Node]):
    quiet()
    challenge = Challenge()
    for seed in SEEDS:
        findings = tried(schedule_of(seed, ROUNDS, challenge), challenge, canary)
        if findings:
            break
    else:
        pytest.fail(f"{canary.__name__} was not found within {len(SEEDS)} seeds")
    rule = CANARIES[canary]
    print(seed, [str(one)[:150] for one in findings])
    assert rule is None or rule in [one.rule for one in findings], findings
