"""What a checkpoint should have paid, by the feed as it is known now or by corrected rules, and the difference in
money.

Reads `feeds`, `inputs` and `predictions` of a log in memory, and emits nothing. The operator sends the result as a
correction (`streams/checkpoints/corrections.py`).

The log is run again from its feed (`rerun.py`), with the recorded answers and with each record as it should have come
(`amended_feed.py`). So only the truths change, and what follows from them: scores, windows, ranking and shares. A model
is not asked again, because its answer depends on what it was shown at the time. A round that was not asked then is not
asked now. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from coordinator.streams.checkpoints.offering import build_emission, offer_faults
from coordinator.streams.checkpoints.prizes import prize_amounts
from coordinator.streams.contract.contract import Contracts
from coordinator.streams.contract.emission import emission_sha256
from coordinator.streams.contract.terms import in_force
from coordinator.streams.engine.amended_feed import AmendedFeed, RecordUse
from coordinator.streams.engine.asked_inputs import asked_otherwise
from coordinator.streams.engine.memory_log import LogReader, MemoryLog
from coordinator.streams.engine.plan import ModelStanding, standings
from coordinator.streams.engine.rerun import (
    Changes,
    NewRules,
    RecordedCrunch,
    Runs,
    SavedRun,
    TakenOver,
    Watching,
    recorded_terms,
    rerun,
)
from coordinator.streams.events import (
    AnyEvent,
    CheckpointData,
    CheckpointOpened,
    CheckpointWithheld,
    InputReceived,
    InputResolved,
    ModelCorrection,
    PeriodClosed,
    Terms,
)
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.ports import FeedRecord

NOBODY = "nobody would have been ranked"


class ModelDifference(msgspec.Struct, frozen=True):
    """One model: its standing as it was paid (`old`) and as it should have been (`new`), and both amounts in whole
    micro-USDC.
    """

    model_id: str
    old: ModelStanding
    new: ModelStanding
    paid: int
    due: int


class Recomputed(msgspec.Struct, frozen=True):
    """A checkpoint, compared with what it should have been."""

    checkpoint_id: str
    total_prize: int
    truths_differ: int
    """How many truths of the period, or reasons for a missing one, are different now."""
    models: list[ModelDifference]
    """Every model of both sides, in the order of the new one."""
    note: str = ""
    """Why nobody is due anything; "" if somebody is."""
    operator_records: RecordUse = RecordUse()

    @property
    def corrections(self) -> list[ModelCorrection]:
        """The models whose amounts differ, by their ids, as a correction states them."""
        return [
            ModelCorrection(model_id=model.model_id, paid=model.paid, due=model.due)
            for model in sorted(self.models, key=lambda model: model.model_id)
            if model.paid != model.due
        ]


class _Run:
    """What one run of the log decides of the checkpoint period [start, end) in ms."""

    def __init__(self, start: int, end: int) -> None:
        self.start, self._end = start, end
        self.inputs: set[str] = set()
        self.truths: dict[tuple[str, int], object] = {}
        self.checkpoint: CheckpointData | None = None
        self.closed = False

    def take(self, decision: Decision) -> None:
        """Look at one decision of any topic."""
        for event in decision.events:
            match event:
                case InputReceived(data=data):
                    if any(self.start <= scope.resolvable_at < self._end for scope in data.scopes):
                        self.inputs.add(data.input_id)
                case InputResolved(data=data):
                    if self.start <= data.resolvable_at < self._end:
                        self.truths[data.input_id, data.horizon_seconds] = data.truth, data.reason
                case PeriodClosed(data=data):
                    self.closed = self.closed or data.until_ms >= self._end
                case CheckpointOpened(data=data):
                    self._keep(data)
                case CheckpointWithheld(data=withheld):
                    self._keep(withheld.checkpoint)
                case _:
                    pass

    def _keep(self, data: CheckpointData) -> None:
        if (data.period_start, data.period_end) == (self.start, self._end):
            self.checkpoint = data


def recompute(
    crunch: RecordedCrunch,
    parent: CheckpointData,
    *,
    total_prize: int,
    records: Iterable[FeedRecord] = (),
    rules: NewRules | None = None,
    progress: Callable[[int], None] = lambda _: None,
    runs: Runs | None = None,
) -> Recomputed:
    """The checkpoint `parent`, compared with what it should have been, in whole micro-USDC of a pool of
    `total_prize`. The operator's `records` take precedence over those of the log. `rules` hold from the start of the
    parent's period on; by default the recorded rules hold. Raises OperatorError where the result cannot be known (the
    rules ask the models something else, rounds are missing, the log ends too early) or might not be offered. Raises
    what a stage raises.

    `runs` has states of the feed as it came, and gets the one at the start of the period. With a record before the
    period that is another one now, the run begins at the first event and leaves no state.
    """
    log = crunch.log
    start, end = parent.period_start, parent.period_end
    recorded, again = _Run(start, end), _Run(start, end)
    operator_records = list(records)
    feed, earlier_run = AmendedFeed(log, operator_records), None if runs is None else runs.before(start)
    if earlier_run is not None and not _unchanged(log, feed, earlier_run):
        feed, earlier_run = AmendedFeed(log, operator_records), None
    # The recorded inputs are enough here: they hold the truths that were paid for, and which rounds were asked.
    reader = LogReader(log, "inputs")
    while (decision := reader.next()) is not None:
        recorded.take(decision)
        if earlier_run is not None and decision.upto.get("feeds", (0, 0))[0] < earlier_run.feeds.offset:
            again.inputs |= recorded.inputs  # the run asked them before it was kept
    if rules is not None:
        _refuse_rules(crunch, rules, parent)
    _run(crunch, again, feed, rules, progress, earlier_run, None if runs is None else runs.put)
    if not again.closed:
        raise OperatorError("the log does not reach the end of the checkpoint's period yet: try again later")
    if unasked := recorded.inputs - again.inputs:
        raise OperatorError(
            f"{len(unasked):,} rounds of the period would not have been asked, so what to pay for them cannot be "
            "computed"
        )
    due, note = _due(parent, again.checkpoint, crunch.contracts, recorded_terms(log), rules)
    # Both sides are paid out of the same pool by the same function, so a difference is a difference of rank or share.
    paid_amounts = dict(prize_amounts(parent, total_prize)[0])
    due_amounts = {} if due is None else dict(prize_amounts(due, total_prize)[0])
    old, _ = standings((parent, ""))
    new, _ = standings(None if due is None else (due, ""))
    absent = ModelStanding(unranked_reason="not in it")
    return Recomputed(
        checkpoint_id=parent.checkpoint_id,
        total_prize=total_prize,
        truths_differ=sum(again.truths.get(key) != truth for key, truth in recorded.truths.items()),
        models=[
            ModelDifference(
                model_id,
                old.get(model_id, absent),
                new.get(model_id, absent),
                paid_amounts.get(model_id, 0),
                due_amounts.get(model_id, 0),
            )
            for model_id in {**new, **old}
        ],
        note=note,
        operator_records=feed.operator_use,
    )


def _unchanged(log: MemoryLog, feed: AmendedFeed, earlier_run: SavedRun) -> bool:
    """Whether the feed came as it should have up to where the run ended. `feed` has then amended it up to there."""
    for decision in log.walk("feeds"):
        if decision.first_offset >= earlier_run.feeds.offset:
            break
        events = list(decision.events)
        if events and feed.amended(events) != events:
            return False
    return True


def _refuse_rules(crunch: RecordedCrunch, rules: NewRules, parent: CheckpointData) -> None:
    """Raises OperatorError for rules that do not cover the period, because it is unknown what they would have paid."""
    if fault := asked_otherwise(crunch.contracts(parent.contract_hash), rules.contract):
        raise OperatorError(fault)
    if fault := _other_period(crunch.log, rules.terms, parent):
        raise OperatorError(fault)


def _run(
    crunch: RecordedCrunch,
    again: _Run,
    feed: AmendedFeed,
    rules: NewRules | None,
    progress: Callable[[int], None],
    earlier_run: SavedRun | None,
    keep: Callable[[SavedRun], None] | None,
) -> None:
    as_it_came = True

    def amended(events: list[AnyEvent]) -> list[AnyEvent]:
        nonlocal as_it_came
        stand_ins = feed.amended(events)
        as_it_came = as_it_came and stand_ins == events
        return stand_ins

    def kept_if_unchanged(run: SavedRun) -> None:
        if keep is not None and as_it_came:
            keep(run)

    terms = None if rules is None else rules.terms
    rerun(
        crunch if rules is None else crunch._replace(contracts=rules.beside(crunch.contracts)),
        Changes(terms, again.start, amended),
        taken_over=TakenOver(earlier_run),
        watching=Watching(
            dict.fromkeys(("inputs", "snapshots", "checkpoints"), again.take), progress, lambda: again.closed
        ),
        keep=kept_if_unchanged,
    )


def _other_period(log: MemoryLog, terms: Terms, parent: CheckpointData) -> str:
    """Why the rules have no such checkpoint period; "" where they have it."""
    held = in_force(recorded_terms(log)).at(parent.period_start)
    new = msgspec.structs.replace(
        held,
        checkpoint_interval_ms=terms.checkpoint_interval_ms,
        checkpoint_offset_ms=terms.checkpoint_offset_ms,
        calendar=terms.calendar,
    )
    return "" if new == held else "the rules have other checkpoint periods, so they say nothing of this one"


def _due(
    parent: CheckpointData,
    computed: CheckpointData | None,
    contracts: Contracts,
    all_terms: list[Terms],
    rules: NewRules | None,
) -> tuple[CheckpointData | None, str]:
    """(the checkpoint that should have been offered, ""), or (None, why) where nobody is ranked.

    `computed` is what the run decided. Raises OperatorError for a checkpoint that may not be offered.
    """
    if computed is None:
        return None, NOBODY
    if rules is None and parent.emission_contract_hash not in ("", parent.contract_hash):
        # The operator released the parent with a mended contract, because its own could not build the emission. The
        # same contract builds this one: otherwise the two sides would differ by a rule, and not by the truths.
        decimals = in_force(all_terms).at(parent.period_start).score_decimals
        contract = contracts(parent.emission_contract_hash)
        built = build_emission(contract, computed.ranking, decimals, computed.period_end)
        if built.fault:
            raise OperatorError(f"the corrected checkpoint cannot be built: {built.fault}")
        computed = msgspec.structs.replace(
            computed,
            emission=built.emission,
            emission_sha256=emission_sha256(built.emission),
            payout=built.payout,
        )
    if faults := offer_faults(computed, -1, computed.period_end):
        raise OperatorError(
            f"the corrected checkpoint breaks a rule and could not be offered: {'; '.join(faults)}"
        )
    return computed, ""
