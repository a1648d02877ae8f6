"""What the log holds of a figure, as it was gathered to be explained: a prediction, a snapshot, a share. Values.

The gatherers are in `projections/explaining/`. A caller that must not run the author's code leaves `contract` out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import msgspec

from coordinator.streams.audit.explain.carried_state import NOTHING_CARRIED, CarriedFacts
from coordinator.streams.audit.explain.question import QuestionFacts
from coordinator.streams.audit.explain.steps import Placed, Source
from coordinator.streams.audit.facts import Chain, SeenRecord
from coordinator.streams.audit.snapshots import SnapshotsAgain
from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.terms import TermsInForce
from coordinator.streams.events import (
    AnswerEntry,
    CheckpointData,
    EnsemblesScored,
    Event,
    InputReceived,
    InputReceivedData,
    InputResolved,
    InputScope,
    PeriodClosedData,
    RoundOpened,
    RoundRescored,
    RoundScored,
    ScopeAnswered,
    ScopeAnsweredData,
    SnapshotTakenData,
    Terms,
)
from coordinator.streams.log.ids import is_ensemble


class ByContract(msgspec.Struct, frozen=True, kw_only=True):
    """What the facts of every figure have: where its terms are recorded, and the contract that computes it again."""

    configured: Source | None = None
    contract_hash: str = ""
    """The hash of the contract that computes it again; "" if none shall, and `contract_fault` says why."""
    contract: CrunchContract | None = None
    contract_fault: str = ""


class PredictionFacts(ByContract, frozen=True, kw_only=True):
    """What the log holds of one prediction. The caller leaves out what is still hidden.

    `hidden_until_ms` is set while the answer is hidden; `answer` then has no output. `shown` and `window` are the feed
    records of the input and of the truth, by subject and in the order of `at`.
    """

    scope_key: str
    model_id: str
    received: Placed[InputReceived]
    opened: Placed[RoundOpened]
    answered: Placed[ScopeAnswered]
    answer: AnswerEntry
    read_answer: AnswerEntry | None = None
    """The same with its output, where that is a blob; for whoever scores it again."""
    shown: Mapping[str, Sequence[SeenRecord]]
    terms: Terms | None = None
    resolved: Placed[InputResolved] | None = None
    window: Mapping[str, Sequence[SeenRecord]] = {}
    scored: Placed[RoundScored] | None = None
    question: QuestionFacts | None = None
    """For a posted question: all of its rounds, posts, truths and scores. Then `window`, `resolved` and `scored` are
    empty.
    """
    parts: Sequence[ScopeAnsweredData] = ()
    """All answers of the scope, for a contract that scores a round as a whole."""
    carried: CarriedFacts = NOTHING_CARRIED
    """What earlier rounds left for this one, and what it left."""
    snapshot_period: tuple[int, int] | None = None
    hidden_until_ms: int | None = None

    @property
    def input(self) -> InputReceivedData:
        """What was asked."""
        return self.received.event.data

    @property
    def scope(self) -> InputScope:
        """The scope that the model answered."""
        return next(scope for scope in self.input.scopes if scope.scope_key == self.scope_key)

    @property
    def decimals(self) -> int:
        """How many decimals its score has."""
        return self.terms.score_decimals if self.terms else 9


class SnapshotFacts(ByContract, frozen=True, kw_only=True, dict=True):
    """What the log holds of one snapshot.

    `rounds` are all rounds that count in its period, corrected ones too, and those of the earlier periods that it
    restates. `past` are the model's snapshots up to and
    including this one, and `closings` closed the periods that its windows and its coverage rest on, both oldest first.
    `rounds_fault` and `past_fault` say why some are missing; then no number is computed again from them.
    """

    snapshot: SnapshotTakenData
    source: Source
    rounds: Sequence[Placed[RoundScored] | Placed[RoundRescored] | Placed[EnsemblesScored]]
    past: Sequence[tuple[SnapshotTakenData, Source]]
    closings: Sequence[tuple[PeriodClosedData, Source]] = ()
    told: TermsInForce
    rounds_fault: str = ""
    past_fault: str = ""

    @property
    def terms(self) -> Terms:
        """The terms of the period."""
        return self.told.at(self.snapshot.period_start)

    @cached_property
    def chain(self) -> Chain:
        """The same facts, as the audit reads them."""
        chain = Chain()
        chain.terms = self.told
        chain.snapshots = {earlier.snapshot_id: earlier for earlier, _ in self.past}
        chain.periods = {closing.from_ms: closing for closing, _ in self.closings}
        for placed in self.rounds:
            chain.take_in_scores(placed.event)
        return chain

    @cached_property
    def again(self) -> SnapshotsAgain:
        """The numbers of the snapshot, computed again."""
        snapshot = self.snapshot
        # Metrics compare a model with the others, so the scores of all are needed for them; an ensemble stands alone.
        alone = is_ensemble(snapshot.model_id) or (
            self.contract is None or self.contract.aggregation.metrics is None
        )
        joined = snapshot.joined
        return SnapshotsAgain(
            self.chain,
            list(self.chain.closed),
            [snapshot],
            only=snapshot.model_id if alone else None,
            joined_before={snapshot.model_id: joined}
            if joined is not None and joined.period_start != snapshot.period_start
            else {},
        )

    @cached_property
    def numbers(self) -> dict[str, tuple[Any, Any]]:
        """Name -> (what is recorded, what the rounds give)."""
        return self.again.numbers(self.snapshot)


class ShareFacts(ByContract, frozen=True, kw_only=True):
    """What the log holds of one model in one checkpoint.

    `moves` are the events of the checkpoint; the newest opening decides what is paid. `snapshots` are the model's own
    of the period. `closings` closed its snapshot periods, and are empty if the ranking does not depend on them.
    """

    checkpoint: CheckpointData
    model_id: str
    status: str
    made_good: Mapping[str, int] = {}
    """Later checkpoint -> what it carries for this model, in whole micro-USDC."""
    owed: int = 0
    """What the checkpoints after it still have to carry for this model; below 0: it has too much."""
    moves: Sequence[Placed[Event]]
    snapshots: Sequence[tuple[SnapshotTakenData, Source]]
    closings: Sequence[tuple[PeriodClosedData, Source]] = ()
    terms: Terms

    @property
    def place(self) -> int | None:
        """The model's index in the ranking; None if it is unranked."""
        ids = [entry.model_id for entry in self.checkpoint.ranking]
        return ids.index(self.model_id) if self.model_id in ids else None

    @property
    def share(self) -> int:
        """The model's share, of 1,000,000,000."""
        rewards = self.checkpoint.emission["cruncher_rewards"]
        return next((reward["reward_pct"] for reward in rewards if reward["cruncher_index"] == self.place), 0)
