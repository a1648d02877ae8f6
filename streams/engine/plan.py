"""What other rules would have decided of a recorded log: which figures differ, for whom, and from which payment on.

Reads `feeds`, `inputs`, `predictions`, `scores` and `snapshots` of a log in memory; emits nothing. An
operator runs it before rules are changed, since a change of rules changes who is paid.

The old side is what the log holds. The new side is what the stages decide of the same feed and answers under the new
terms (`rerun.py`). Both sides must have asked the models the same: nobody knows the answer to another question, so a
plan says that such a change asks otherwise, and computes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Literal

import msgspec

from coordinator.streams.checkpoints.ranking import rank_snapshots
from coordinator.streams.checkpoints.stage import CheckpointStage
from coordinator.streams.durations import FAR_MS, moment_text
from coordinator.streams.engine.asked_inputs import (
    AnswersWithinLimits,
    AskedInputs,
    asked_otherwise,
    truth_of,
)
from coordinator.streams.engine.memory_log import MemoryLog
from coordinator.streams.engine.owner import Owner
from coordinator.streams.engine.recorded_scores import RecordedScores, scored_alike
from coordinator.streams.engine.rerun import (
    Changes,
    NewRules,
    RecordedCrunch,
    Runs,
    TakenOver,
    Watching,
    begin_of_last,
    recorded_answers,
    recorded_terms,
    refuse_between,
    rerun,
)
from coordinator.streams.events import (
    AnyEvent,
    CheckpointData,
    CheckpointOpened,
    CheckpointWithheld,
    PeriodClosed,
    SnapshotTaken,
    SnapshotTakenData,
    Terms,
)
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.errors import OperatorError

Change = Literal["none", "board", "payout", "inputs"]
"""The weightiest difference: none; only on the board; in what is paid; in what the models were asked."""
Period = tuple[int, int]


class ModelStanding(msgspec.Struct, frozen=True):
    """One model on one side. `units` is its key in 10**-score_decimals of that side's terms; None if it has none."""

    rank: int | None = None
    units: int | None = None
    share_frac64: int = 0
    unranked_reason: str = ""


class ModelChange(msgspec.Struct, frozen=True):
    """One model on both sides."""

    model_id: str
    old: ModelStanding
    new: ModelStanding

    @property
    def differs(self) -> bool:
        """Whether the two sides differ."""
        return self.old != self.new

    @property
    def paid_differs(self) -> bool:
        """Whether its place or its share differs. A key in other units alone pays nobody otherwise."""
        return (self.old.rank, self.old.share_frac64) != (self.new.rank, self.new.share_frac64)


class PeriodChange(msgspec.Struct, frozen=True):
    """One checkpoint [start, end) in ms on both sides. `old_note` and `new_note` say why a side has none, or withholds
    it. `differs`: whether it pays otherwise, by a place, a share or a note.
    """

    period_start: int
    period_end: int
    models: list[ModelChange]
    old_note: str
    new_note: str
    differs: bool


class TermChange(msgspec.Struct, frozen=True):
    """One field of the terms, as JSON values."""

    name: str
    old: Any
    new: Any


class RulesPlan(msgspec.Struct, frozen=True):
    """Times are ms; the span is [from_ms, until_ms)."""

    change: Change
    from_ms: int
    until_ms: int
    terms: list[TermChange]
    answers_count: int
    inputs_count: int
    inputs_differ: int
    """How many of the inputs would have been different, or missing, or new."""
    inputs_reason: str
    board_at: int | None = None
    """The end of the last snapshot period; None if there was none."""
    board: list[ModelChange] = []
    periods: list[PeriodChange] = []

    @property
    def first_affected(self) -> int | None:
        """The start of the first period whose payment differs."""
        return next((period.period_start for period in self.periods if period.differs), None)


class Outcome:
    """One side: the newest snapshots, and the checkpoint of each period, of periods within [from_ms, until_ms)."""

    def __init__(self, from_ms: int, until_ms: int) -> None:
        self._from, self._until = from_ms, until_ms
        self.snapshots: dict[str, SnapshotTakenData] = {}
        self.snapshots_end: int | None = None
        self.checkpoints: dict[Period, tuple[CheckpointData, str]] = {}
        self.windows: dict[tuple[int, str], object] = {}
        """(end of the snapshot period, model) -> the numbers that the board shows."""
        self.closed = False
        """Whether every period until `until_ms` is closed."""

    def take(self, events: Iterable[AnyEvent]) -> None:
        """Take the events of one decision of `snapshots` or `checkpoints`."""
        for event in events:
            match event:
                case SnapshotTaken(data=data) if self._holds(data.period_start, data.period_end):
                    if data.period_end != self.snapshots_end:
                        self.snapshots, self.snapshots_end = {}, data.period_end
                    self.snapshots[data.model_id] = data
                    self.windows[data.period_end, data.model_id] = _shown(data)
                case PeriodClosed(data=data):
                    self.closed = data.until_ms >= self._until
                case CheckpointOpened(data=data) if self._holds(data.period_start, data.period_end):
                    self.checkpoints[data.period_start, data.period_end] = data, ""
                case CheckpointWithheld(data=data) if self._holds(
                    data.checkpoint.period_start, data.checkpoint.period_end
                ):
                    period = data.checkpoint.period_start, data.checkpoint.period_end
                    self.checkpoints[period] = data.checkpoint, f"withheld: {data.reason}"
                case _:
                    pass

    def _holds(self, start: int, end: int) -> bool:
        return start >= self._from and end <= self._until


def plan_rules(
    crunch: RecordedCrunch,
    rules: NewRules,
    *,
    from_ms: int | None = None,
    until_ms: int | None = None,
    progress: Callable[[int], None] = lambda _: None,
    runs: Runs | None = None,
) -> RulesPlan:
    """What `rules` would have decided of the log in [from_ms, until_ms).

    The log holds `feeds`, `inputs`, `predictions`, `snapshots` and `scores`; a recorded score is used again where it
    means the same. `from_ms` is the end of a checkpoint period, by default the time at which the newest rules began;
    from there on the new terms replace all recorded ones. `until_ms` is by default the end of the recorded snapshots.
    The run continues from a state in `runs` and stores its own there; without them the plan is the same.

    Raises OperatorError for a time at which no rules can change, and what a stage raises.
    """
    log, contracts, (terms, contract) = crunch.log, crunch.contracts, rules
    all_terms = recorded_terms(log)
    begin, until = _span(log, all_terms, from_ms, until_ms)
    held = max(
        (earlier for earlier in all_terms if earlier.effective_from <= begin),
        key=lambda earlier: earlier.effective_from,
    )
    asked = AskedInputs(log, begin, until)
    new, old = Outcome(begin, until), Outcome(begin, until)
    taps: Mapping[str, Callable[[Decision], None]] = {
        "inputs": lambda decision: asked.take(decision.events),
        "snapshots": lambda decision: new.take(decision.events),
        "checkpoints": lambda decision: new.take(decision.events),
    }
    reason = asked_otherwise(contracts(held.contract_hash), contract)
    terms_by_hash = {recorded.contract_hash: recorded for recorded in all_terms}

    @cache
    def means_the_same(key: str) -> bool:
        """Whether a score under the contract of this hash may be used again."""
        return key in terms_by_hash and scored_alike(contracts(key), terms_by_hash[key], contract, terms)

    earlier_run = None if runs is None else runs.before(begin)
    scores_from = None if earlier_run is None else earlier_run.scores
    scores = RecordedScores(log, asked.truths, truth_of, means_the_same, scores_from)
    answers = recorded_answers(log, earlier_run)
    limits = AnswersWithinLimits(contracts(held.contract_hash), contract)
    answers.on_answers = lambda answers_given, point: (
        limits.take(answers_given) if begin <= point < until else None
    )
    if not reason:
        rerun(
            crunch._replace(contracts=rules.beside(contracts)),
            Changes(terms, begin),
            taken_over=TakenOver(earlier_run, answers, scores),
            # A period is closed some time after its end, and its checkpoint is decided with it.
            watching=Watching(taps, progress, ended=lambda: until_ms is not None and new.closed),
            keep=None if runs is None else runs.put,
        )
        _take_recorded(old, crunch)
    plan = RulesPlan(
        change="none",
        from_ms=begin,
        until_ms=until,
        terms=term_changes(held, terms),
        answers_count=answers.count,
        inputs_count=len(asked),
        inputs_differ=len(asked) if reason else asked.differ,
        inputs_reason=reason,
    )
    reason = reason or limits.reason
    if plan.inputs_differ or reason:
        reason = reason or f"{plan.inputs_differ:,} of {len(asked):,} inputs would have been others"
        return msgspec.structs.replace(plan, change="inputs", inputs_reason=reason)
    return _with_payments(plan, old, held, new, terms)


def _span(
    log: MemoryLog, all_terms: Sequence[Terms], from_ms: int | None, until_ms: int | None
) -> tuple[int, int]:
    """(begin, end) in ms of what is planned, see `plan_rules`. Raises OperatorError for a span without a period."""
    begin = begin_of_last(all_terms) if from_ms is None else from_ms
    refuse_between(all_terms, begin)
    until = max(_ends(log), default=0) if until_ms is None else until_ms
    if until_ms is not None and until < (first_end := min(_ends(log), default=FAR_MS)):
        ends = (
            "none is closed yet" if first_end == FAR_MS else f"the first one ends at {moment_text(first_end)}"
        )
        raise OperatorError(f"no period had ended at {moment_text(until_ms)}: {ends}")
    if begin >= until and (from_ms, until_ms) != (None, None):
        ends = "the newest closed period ends" if until_ms is None else "it ends"
        raise OperatorError(
            f"no period ends in that time: it begins at {moment_text(begin)}, and {ends} at {moment_text(until)}"
        )
    return begin, until


def _with_payments(plan: RulesPlan, old: Outcome, held: Terms, new: Outcome, terms: Terms) -> RulesPlan:
    """The plan of rules under which the inputs are the same: what they pay, and what the board shows."""
    periods = [_period_change(period, old, new) for period in sorted({*old.checkpoints, *new.checkpoints})]
    change: Change = "none"
    if any(period.differs for period in periods):
        change = "payout"
    elif (
        old.windows != new.windows
        or _boards(held) != _boards(terms)
        or any(model.differs for period in periods for model in period.models)
    ):
        change = "board"
    return msgspec.structs.replace(
        plan,
        change=change,
        periods=periods,
        board=_side_by_side(_board(old, held), _board(new, terms), ModelStanding()),
        board_at=new.snapshots_end if new.snapshots_end is not None else old.snapshots_end,
    )


def _ends(log: MemoryLog) -> Iterator[int]:
    """The end (ms) of each period that the recorded snapshots close."""
    for decision in log.walk("snapshots"):
        if decision.may_hold("PeriodClosed"):
            yield from (event.data.until_ms for event in decision.events if isinstance(event, PeriodClosed))


def _take_recorded(old: Outcome, crunch: RecordedCrunch) -> None:
    """Take the recorded snapshots, and the checkpoints that follow from them.

    The recorded `checkpoints` are not read: those of a running node may be behind `snapshots`. The payment stage
    decides them again here, on a copy.
    """
    payment = Owner(crunch.log.copy("snapshots"), CheckpointStage(crunch.crunch_id, crunch.contracts))
    payment.start()
    for decision in payment.log.walk("snapshots"):
        old.take(decision.events)
        while payment.readers["snapshots"].counter.next_offset <= decision.offset:
            payment.step("snapshots")  # in step with the walk, so that it shares each decoded decision
    for decision in payment.log.walk("checkpoints"):
        old.take(decision.events)


def term_changes(old: Terms, new: Terms) -> list[TermChange]:
    """The fields that differ, without those that say from when on the terms hold."""
    before, after = msgspec.to_builtins(old), msgspec.to_builtins(new)
    times = {"effective_from", "goes_on"}
    return [
        TermChange(name, before.get(name), after.get(name))
        for name in before | after
        if name not in times and before.get(name) != after.get(name)
    ]


def _shown(data: SnapshotTakenData) -> object:
    return data.windows_units, data.boards_units, data.summary_units, data.sums


def _boards(terms: Terms) -> object:
    return terms.windows, terms.boards, terms.ranking_key, terms.ranking_direction, terms.score_decimals


def _side_by_side(
    old: Mapping[str, ModelStanding], new: Mapping[str, ModelStanding], absent: ModelStanding
) -> list[ModelChange]:
    """Every model of either side, in the order of the new side. `absent` stands for a model that a side lacks."""
    return [
        ModelChange(model_id, old.get(model_id, absent), new.get(model_id, absent))
        for model_id in {**new, **old}
    ]


def _board(side: Outcome, terms: Terms) -> dict[str, ModelStanding]:
    ranked, unranked = rank_snapshots(side.snapshots.values(), terms)
    standings = {model_id: ModelStanding(place, value) for place, model_id, value in ranked}
    return standings | {model_id: ModelStanding() for model_id in unranked}


def _period_change(period: Period, old: Outcome, new: Outcome) -> PeriodChange:
    before, old_note = standings(old.checkpoints.get(period))
    after, new_note = standings(new.checkpoints.get(period))
    models = _side_by_side(before, after, ModelStanding(unranked_reason="not in it"))
    differs = (
        any(model.paid_differs for model in models)
        or old_note != new_note
        or _paid(old.checkpoints.get(period)) != _paid(new.checkpoints.get(period))
    )
    return PeriodChange(*period, models, old_note, new_note, differs)


def _paid(checkpoint: tuple[CheckpointData, str] | None) -> object:
    return None if checkpoint is None else (checkpoint[0].emission, checkpoint[0].payout)


def standings(checkpoint: tuple[CheckpointData, str] | None) -> tuple[dict[str, ModelStanding], str]:
    """(model_id -> its standing, the best first and the unranked last; why nothing is offered, or "")."""
    if checkpoint is None:
        return {}, "no checkpoint"
    data, note = checkpoint
    # `cruncher_index` is the place in the ranking. A place without a reward is paid nothing.
    shares = {reward["cruncher_index"]: reward["reward_pct"] for reward in data.emission["cruncher_rewards"]}
    standings = {
        entry.model_id: ModelStanding(entry.rank, entry.key_units, shares.get(i, 0))
        for i, entry in enumerate(data.ranking)
    }
    return standings | {
        model_id: ModelStanding(unranked_reason=data.unranked_reasons.get(model_id, "no reason is told"))
        for model_id in data.unranked
    }, note
