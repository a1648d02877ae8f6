"""Nodes with a known fault, each of which the simulation must find within a hundred seeds. The faults enter through the
port of the simulation (`Node`), or replace a function. The product has no switch for any of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import cache
from typing import Any

import msgspec
import pytest
from tests.first_of import first_of

from coordinator.streams import events as ev
from coordinator.streams.agents.feed.worker import FeedTenure
from coordinator.streams.agents.owning.dead_letters import DeadLetters
from coordinator.streams.agents.owning.ownership import OwnedTopic
from coordinator.streams.agents.owning.tenure import Tenure
from coordinator.streams.agents.predict import worker as predict
from coordinator.streams.checkpoints import period_ranking, ranking
from coordinator.streams.checkpoints.corrections import Corrections
from coordinator.streams.checkpoints.stage import CheckpointStage
from coordinator.streams.contract import emission
from coordinator.streams.feeds.stage import FeedStage
from coordinator.streams.inputs.stage import InputStage
from coordinator.streams.log.counting import Counter, Decision
from coordinator.streams.log.envelope import Append, Need
from coordinator.streams.log.recorded_state import parts_of
from coordinator.streams.log.stage import Draft, PlacedEvent
from coordinator.streams.scores import single_answers
from coordinator.streams.scores.stage import ScoreStage
from coordinator.streams.simulation import faults as f
from coordinator.streams.simulation.campaign import failure_of, quiet, schedule_of, tried
from coordinator.streams.simulation.node import Node, Process
from coordinator.streams.simulation.playing import Challenge
from coordinator.streams.snapshots import stage as snapshot_stage
from coordinator.streams.snapshots.stage import SnapshotStage
from coordinator.streams.snapshots.state import SnapshotState, Tally

ROUNDS = 8
SEEDS = range(1, 101)


class _Unguarded(ScoreStage):
    def decided(self, source: str, position: Any) -> bool:
        return False


class DecidesDuplicatesAgain(Node):
    """Its score stage forgets its decisions: a record that is read again is decided again."""

    def score_tenure(self, process: Process) -> Tenure:
        return Tenure(process.line, _Unguarded(self.shelf), process.name)


class _Unfenced(OwnedTopic):
    """A replaced owner continues, under the successor's claim and with the next number."""

    async def _watch(self) -> None:
        reader = await self._io.reader(self.topic, self._counter.next_offset)
        while True:
            for offset, record in await reader.read():
                self._counter.read(offset, record)

    async def send(self, *args: Any) -> Any:
        self.epoch, self.seq = max(self.epoch, self._counter.epoch), max(self.seq, self._counter.seq)
        return await super().send(*args)


class ClaimDoesNotFence(Node):
    """The claim of its predict worker stops no other owner."""

    def predict_tenure(self, process: Process) -> Tenure:
        tenure = super().predict_tenure(process)
        assert isinstance(tenure, predict.PredictTenure)
        tenure.owned = _Unfenced(process.line, "predictions", process.name)
        tenure._models_owned = _Unfenced(process.line, "models", process.name)
        tenure._also = [(tenure._models_owned, tenure.models)]
        return tenure


class FeedClaimDoesNotFence(Node):
    """The claim of its feed worker stops no other owner."""

    def input_tenure(self, process: Process) -> Tenure:
        tenure = super().input_tenure(process)
        assert isinstance(tenure, FeedTenure)
        tenure.owned = _Unfenced(process.line, "inputs", process.name)
        tenure._feeds_owned = _Unfenced(process.line, "feeds", process.name)
        tenure._also = [(tenure._feeds_owned, tenure.feeds)]
        return tenure


class _OffersTwice(CheckpointStage):
    def decide(self, state: Any, placed: PlacedEvent) -> Draft | None:
        draft = super().decide(state, placed)
        if draft is None or not any(
            isinstance(event, ev.CheckpointSubmissionFailed) for event in draft.events
        ):
            return draft
        failed = next(event for event in draft.events if isinstance(event, ev.CheckpointSubmissionFailed))
        data = state.own.settlements.states[failed.data.checkpoint_id].data
        again = ev.CheckpointOpened(id=f"{data.checkpoint_id}:again", at=failed.at, data=data)
        return msgspec.structs.replace(draft, events=[*draft.events, again])

    def fold(self, state: Any, placed: PlacedEvent) -> None:
        if not (isinstance(placed.event, ev.CheckpointOpened) and placed.event.id.endswith(":again")):
            super().fold(state, placed)


class OffersAgain(Node):
    """After a failed payment it offers the checkpoint once more."""

    def checkpoint_tenure(self, process: Process) -> Tenure:
        return Tenure(
            process.line,
            _OffersTwice(self.crunch_id, self.shelf),
            process.name,
            process.dead_letters.from_topic,
        )


class _OffByOne(SnapshotStage):
    def decide(self, state: Any, placed: PlacedEvent) -> Draft | None:
        draft = super().decide(state, placed)
        return draft and msgspec.structs.replace(draft, events=[_one_more(event) for event in draft.events])


def _one_more(event: Any) -> Any:
    if not isinstance(event, ev.SnapshotTaken) or not event.data.absent_node_count:
        return event
    more = msgspec.structs.replace(event.data, absent_node_count=event.data.absent_node_count + 1)
    return msgspec.structs.replace(event, data=more)


class CountsOneMore(Node):
    """A snapshot with absences has a count that is too high by one."""

    def aggregate_tenure(self, process: Process) -> Tenure:
        return Tenure(process.line, _OffByOne(self.shelf), process.name)


class _Early(InputStage):
    late: float | None = None

    def absorb(self, decision: Decision) -> None:
        for event in decision.events:
            if isinstance(event, ev.FeedRecordReceived) and event.data.backfilled:
                self.late = float(event.data.values["close"])
        super().absorb(decision)

    def decide(self, state: Any, placed: PlacedEvent) -> Draft | None:
        draft = super().decide(state, placed)
        return draft and msgspec.structs.replace(
            draft, events=[self._of_late(event) for event in draft.events]
        )

    def _of_late(self, event: Any) -> Any:
        if not isinstance(event, ev.InputResolved) or event.data.truth is None or self.late is None:
            return event
        truth = {**event.data.truth, "resolved_price": self.late}
        return msgspec.structs.replace(event, data=msgspec.structs.replace(event.data, truth=truth))


class TruthOfALateRecord(Node):
    """Its truths use the record that came late, whenever it became known."""

    def input_tenure(self, process: Process) -> Tenure:
        tenure = super().input_tenure(process)
        tenure.stage = _Early(self.shelf)
        return tenure


class _Hasty(ScoreStage):
    def needed(self, state: Any, placed: PlacedEvent) -> dict[str, Any]:
        return {**super().needed(state, placed), placed.topic: placed.after}


class NeedsTooLittle(Node):
    """A new owner of the scores does not read everything that it needs."""

    def score_tenure(self, process: Process) -> Tenure:
        return Tenure(process.line, _Hasty(self.shelf), process.name)


class _Blaming(predict.PredictTenure):
    async def _answered(self, data: Any, answers: Any, clock: int) -> None:
        blamed = {
            scope_key: [
                msgspec.structs.replace(entry, fault="model") if entry.fault == "node" else entry
                for entry in entries
            ]
            for scope_key, entries in answers.items()
        }
        await super()._answered(data, blamed, clock)


class BlamesTheModels(Node):
    """Its models pay for the node's own failures."""

    def predict_tenure(self, process: Process) -> Tenure:
        tenure = super().predict_tenure(process)
        tenure.__class__ = _Blaming
        return tenure


class _Forgets(predict.PredictTenure):
    async def _round(self, data: Any, placed: PlacedEvent) -> None:
        if data.input_id not in self.stage.state.open_rounds:
            await super()._round(data, placed)


class LeavesRoundsOpen(Node):
    """It never closes the rounds that a dead owner opened."""

    def predict_tenure(self, process: Process) -> Tenure:
        tenure = super().predict_tenure(process)
        tenure.__class__ = _Forgets
        return tenure


class PaysOneTooMuch(Node):
    """Its emissions sum to one frac64 too much."""

    def checkpoint_tenure(self, process: Process) -> Tenure:
        return Tenure(
            process.line,
            _OneTooMuch(self.crunch_id, self.shelf),
            process.name,
            process.dead_letters.from_topic,
        )


class _OneTooMuch(CheckpointStage):
    def decide(self, state: Any, placed: PlacedEvent) -> Draft | None:
        draft = super().decide(state, placed)
        return draft and msgspec.structs.replace(
            draft, events=[_paying_more(event) for event in draft.events]
        )


def _paying_more(event: Any) -> Any:
    if not isinstance(event, ev.CheckpointOpened):
        return event
    emission = msgspec.json.decode(msgspec.json.encode(event.data.emission))
    emission["cruncher_rewards"][0]["reward_pct"] += 1
    return msgspec.structs.replace(event, data=msgspec.structs.replace(event.data, emission=emission))


class _AtOnce(FeedStage):
    def decide(self, state: Any, placed: PlacedEvent) -> Draft | None:
        draft = super().decide(state, placed)
        return draft and msgspec.structs.replace(
            draft, events=[self._from_now_on(state, event) for event in draft.events]
        )

    @staticmethod
    def _from_now_on(state: Any, event: Any) -> Any:
        if not isinstance(event, ev.CrunchConfigured) or not state.own.terms:
            return event
        now = msgspec.structs.replace(event.data, effective_from=state.own.clock + 1)
        return msgspec.structs.replace(event, data=now)


class ChangesRulesInMidPeriod(Node):
    """Applied rules are in force at once, for a period that began under others."""

    def input_tenure(self, process: Process) -> Tenure:
        tenure = super().input_tenure(process)
        assert isinstance(tenure, FeedTenure)
        tenure.feeds = _AtOnce(self.contracts.terms_of)
        return tenure


class _Unpaid(CheckpointStage):
    def fold(self, state: Any, placed: PlacedEvent) -> None:
        if isinstance(placed.event, ev.CheckpointOpened):
            data = msgspec.structs.replace(placed.event.data, credits=[])
            placed = msgspec.structs.replace(placed, event=msgspec.structs.replace(placed.event, data=data))
        super().fold(state, placed)


class OffersCreditsAgain(Node):
    """Every later checkpoint offers the amount of a correction again."""

    def checkpoint_tenure(self, process: Process) -> Tenure:
        return Tenure(
            process.line, _Unpaid(self.crunch_id, self.shelf), process.name, process.dead_letters.from_topic
        )


class _Forgetful(CheckpointStage):
    def fold(self, state: Any, placed: PlacedEvent) -> None:
        super().fold(state, placed)
        if isinstance(placed.event, ev.CheckpointCorrected):
            state.own.settlements.corrections.of[placed.event.data.checkpoint_id].carried = {}


class ForgetsWhatWasCarried(Node):
    """A second correction ignores what checkpoints have carried for the first."""

    def checkpoint_tenure(self, process: Process) -> Tenure:
        return Tenure(
            process.line,
            _Forgetful(self.crunch_id, self.shelf),
            process.name,
            process.dead_letters.from_topic,
        )


class RebuiltFromAShortCopy(Node):
    """The copy of the log from which it is rebuilt lacks the last records of the feed."""

    async def _rebuild(self, fault: f.Rebuilt) -> None:
        await asyncio.sleep(fault.at)
        for process in self.processes:
            process.kill()
        lost = max(0, min(3, len(self.shared.log["feeds"]) - 1))
        for _ in range(lost):
            self.shared.log["feeds"].pop()
            self.shared.order.reverse()
            self.shared.order.remove("feeds")
            self.shared.order.reverse()
        await super()._rebuild(msgspec.structs.replace(fault, at=0.0))


class _GoesOn(OwnedTopic):
    """A send that failed is no reason to stop: the next one has the next number, and the log has a gap."""

    def _sent(self, future: asyncio.Future[int]) -> None:
        if not future.cancelled() and future.exception() is None:
            super()._sent(future)


class LeavesAGapInTheNumbers(Node):
    """Its score stage goes on after a failed send."""

    def score_tenure(self, process: Process) -> Tenure:
        tenure = super().score_tenure(process)
        tenure.owned = _GoesOn(process.line, "scores", process.name)
        return tenure


class _RecordsTooEarly(OwnedTopic):
    """The state that it records is the one before the decision that it names."""

    _before: tuple[bytes, ...] = ()

    async def send(self, *args: Any) -> Any:
        sent = await super().send(*args)
        states = self._states
        if states._due is not None and states._due.seq == self.seq and self._before:
            states._due = states._due._replace(parts=self._before)
        self._before = parts_of(states._stage.state.own)
        return sent


class RecordsAStateOneDecisionTooEarly(Node):
    """Who takes over its snapshots begins with the sums of one decision too few."""

    def aggregate_tenure(self, process: Process) -> Tenure:
        tenure = super().aggregate_tenure(process)
        tenure.owned = _RecordsTooEarly(process.line, "snapshots", process.name)
        return tenure


class _ChargesNothing(ScoreStage):
    def decide(self, state: Any, placed: PlacedEvent) -> Draft | None:
        draft = super().decide(state, placed)
        return draft and msgspec.structs.replace(
            draft, events=[_charging_zero(event) for event in draft.events]
        )


def _charging_zero(event: Any) -> Any:
    if not isinstance(event, ev.RoundScored):
        return event
    unscored = [
        entry if entry.charge_units is None else msgspec.structs.replace(entry, charge_units=0)
        for entry in event.data.unscored
    ]
    return msgspec.structs.replace(event, data=msgspec.structs.replace(event.data, unscored=unscored))


class ChargesNothingAfterATakeover(Node):
    """Whoever takes over the scores charges 0 for an absence: the path of a new owner alone is wrong."""

    def score_tenure(self, process: Process) -> Tenure:
        if process.name == "score-1":
            return super().score_tenure(process)
        return Tenure(process.line, _ChargesNothing(self.shelf), process.name)


class _KnowsNothing(FeedStage):
    def remember(self, decision: Any) -> None:
        super().remember(decision)
        if not isinstance(decision, Draft):
            self.state.own.known.clear()


class RecordsAgainAfterATakeover(Node):
    """Whoever takes over the feed has forgotten which records there are."""

    def input_tenure(self, process: Process) -> Tenure:
        tenure = super().input_tenure(process)
        assert isinstance(tenure, FeedTenure)
        tenure.feeds = _KnowsNothing(self.contracts.terms_of)
        return tenure


DERIVED = "derived topics are those of an undisturbed run"
PLAIN = "charges, means, ranks and shares are those of plain arithmetic"
CANARIES: dict[type[Node], tuple[int, str]] = {
    DecidesDuplicatesAgain: (24, "ids come once"),
    ClaimDoesNotFence: (73, "ids come once"),
    FeedClaimDoesNotFence: (17, "ids come once"),
    OffersAgain: (8, "the sums add up"),
    CountsOneMore: (7, DERIVED),
    TruthOfALateRecord: (2, DERIVED),
    NeedsTooLittle: (1, DERIVED),
    BlamesTheModels: (8, "nobody pays for another's fault"),
    LeavesRoundsOpen: (8, "nothing stays open"),
    PaysOneTooMuch: (1, "the sums add up"),
    ChangesRulesInMidPeriod: (6, "rules hold from the end of a period"),
    OffersCreditsAgain: (38, "what a correction owes is offered once"),
    ForgetsWhatWasCarried: (52, "what a correction owes is offered once"),
    RebuiltFromAShortCopy: (3, DERIVED),
    LeavesAGapInTheNumbers: (24, DERIVED),
    RecordsAStateOneDecisionTooEarly: (1, "recorded states are what the events before them make"),
    ChargesNothingAfterATakeover: (5, PLAIN),
    RecordsAgainAfterATakeover: (3, "ids come once"),
}
"""Each with a seed that finds it, which is tried first, and a rule that is then broken."""


@cache
def holds(seed: int, rounds: int) -> bool:
    """Whether the product itself breaks no rule under the faults of a seed."""
    challenge = Challenge()
    return not tried(schedule_of(seed, rounds, challenge), challenge)


PLAYED_BY_MAKE_TEST = (
    *(
        FeedClaimDoesNotFence,
        CountsOneMore,
        NeedsTooLittle,
        PaysOneTooMuch,
        LeavesRoundsOpen,
        BlamesTheModels,
    ),
    *("remainders go to the smallest rests", "a mean is cut off", "a dead letter is lost"),
)
"""A few of each way in which a fault shows: they prove that the simulation finds what it looks for. The others are tests
of the simulation as well, and the product is tested for each of these faults by its own tests.
"""


def cheap_first(faults: Iterable[Any]) -> list[Any]:
    """The faults for `parametrize`: those that `make test` does not play are marked slow."""
    played = sorted(faults, key=PLAYED_BY_MAKE_TEST.count, reverse=True)
    return first_of(sum(fault in PLAYED_BY_MAKE_TEST for fault in played), played)


@pytest.mark.parametrize("canary", cheap_first(CANARIES), ids=lambda canary: canary.__name__)
def test_a_canary_is_found_within_a_hundred_seeds(canary: type[Node]):
    quiet()
    challenge = Challenge()
    usual, rule = CANARIES[canary]
    for seed in (usual, *SEEDS):
        schedule = schedule_of(seed, ROUNDS, challenge)
        findings = tried(schedule, challenge, canary)
        if findings:
            assert rule in [finding.rule for finding in findings], f"seed {seed}: {findings}"
            assert holds(seed, ROUNDS), f"seed {seed} finds a fault without the canary"
            return
    pytest.fail(f"{canary.__name__} was not found within {len(SEEDS)} seeds")


def _to_the_smallest_rests(weights: Any, total: int) -> emission.Allocation:
    right = ALLOCATION(weights, total)
    shares = list(right.floors)
    for i in sorted(range(len(shares)), key=right.rests.__getitem__)[: right.left]:
        shares[i] += 1
    return msgspec.structs.replace(right, shares=shares)


def _places_without_ties(keys: Any, direction: str) -> Any:
    ranked, unranked = ranking.rank(keys, direction)
    return [(place, model_id, key) for place, (_, model_id, key) in enumerate(ranked, start=1)], unranked


def _forgets_what_the_node_missed(tally: Tally, unscored: Any, *args: Any, **kwargs: Any) -> None:
    MISSED(tally, unscored, *args, **kwargs)
    tally.absent_node -= unscored.status == "ABSENT" and unscored.fault == "node"


async def _lost(*_: Any) -> None:
    pass


def _counts_what_skips_a_number(counter: Counter, offset: int, append: Append) -> Decision | None:
    if append.epoch == counter.epoch and append.part[0] == 1:
        counter.seq = max(counter.seq, append.seq - 1)
    return COUNT(counter, offset, append)


def _counts_a_zombie(counter: Counter, offset: int, append: Append) -> Decision | None:
    return COUNT(counter, offset, msgspec.structs.replace(append, epoch=counter.epoch))


def _tallies_in_the_period_before(state: SnapshotState, data: ev.RoundScoredData, before: Need) -> None:
    TALLY(state, msgspec.structs.replace(data, resolvable_at=data.resolvable_at - 1), before)


def _statements_add_up(
    corrections: Corrections, data: ev.CheckpointCorrectedData, *, rehearsal: bool
) -> None:
    before = dict(corrections.of[data.checkpoint_id].short) if data.checkpoint_id in corrections.of else {}
    CORRECT(corrections, data, rehearsal=rehearsal)
    short = corrections.of[data.checkpoint_id].short
    for model_id, amount in before.items():
        short[model_id] = short.get(model_id, 0) + amount


COUNT, TALLY, CORRECT = Counter._count, snapshot_stage.tally_round, Corrections.correct
ALLOCATION, MISSED, CHARGE = emission.allocation, Tally.missed, single_answers.charge_of
SHARED_ROUNDS = 20
SHARED_FAULTS: dict[str, tuple[Any, str, Any, int, str]] = {
    "remainders go to the smallest rests": (emission, "allocation", _to_the_smallest_rests, 1, PLAIN),
    "a mean is cut off": (period_ranking, "mean_units", lambda total, n: total // n, 1, PLAIN),
    "a half is rounded up": (
        period_ranking,
        "mean_units",
        lambda total, n: (2 * total + n) // (2 * n),
        7,
        PLAIN,
    ),
    "equal models have places of their own": (period_ranking, "rank", _places_without_ties, 5, PLAIN),
    "absence costs what the best has": (
        *(
            single_answers,
            "charge_of",
            lambda values, terms: max(values) if values else CHARGE(values, terms),
        ),
        *(5, PLAIN),
    ),
    "absences by the node's fault are forgotten": (Tally, "missed", _forgets_what_the_node_missed, 2, PLAIN),
    "appends behind a gap in the numbers count": (
        *(Counter, "_count", _counts_what_skips_a_number),
        *(30, "only what the owner wrote counts"),
    ),
    "a zombie's appends count": (Counter, "_count", _counts_a_zombie, 46, "only what the owner wrote counts"),
    "a round at a snapshot's end is in the period before": (
        *(snapshot_stage, "tally_round", _tallies_in_the_period_before),
        *(1, PLAIN),
    ),
    "statements of a correction add up": (
        *(Corrections, "correct", _statements_add_up),
        *(22, "what a correction owes is offered once"),
    ),
    "a dead letter is lost": (DeadLetters, "from_topic", _lost, 1, "garbage is set aside"),
}
"""Faults of functions that the node, its checks and its verification share, so that none of these notices them: the
owner of a name, the name, its replacement, a seed that finds it, and a rule that is then broken.
"""


@pytest.mark.parametrize("fault", cheap_first(SHARED_FAULTS))
def test_a_fault_of_a_function_that_node_and_checks_share_is_found(
    fault: str, monkeypatch: pytest.MonkeyPatch
):
    quiet()
    challenge = Challenge()
    owner, name, stands_there, seed, rule = SHARED_FAULTS[fault]
    schedule = schedule_of(seed, SHARED_ROUNDS, challenge)
    assert holds(seed, SHARED_ROUNDS)
    monkeypatch.setattr(owner, name, stands_there)
    assert rule in [finding.rule for finding in tried(schedule, challenge)]


@pytest.mark.slow  # test_shrinking.py: the same without a node
def test_a_failing_seed_is_shrunk_and_shows_the_last_events_of_the_log():
    quiet()
    challenge = Challenge()
    schedule = schedule_of(CANARIES[OffersAgain][0], ROUNDS, challenge)
    failure = failure_of(schedule, tried(schedule, challenge, OffersAgain), challenge, OffersAgain)
    assert not failure.shrunk.faults  # a payment fails without any fault
    assert (failure.shrunk.models, failure.shrunk.latency_ms) == (1, 0.0)
    assert failure.shrunk.rounds <= schedule.rounds
    assert {finding.rule for finding in failure.shrunk_findings} & {
        finding.rule for finding in failure.findings
    }
    assert any("CheckpointOpened" in line for line in failure.last_events)
