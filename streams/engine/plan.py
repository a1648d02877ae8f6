"""What other rules would have made of a recorded log: which figures differ, for whom, and from which payment on.

A plan touches nothing. One side is what the log holds, the other is what the stages make of the same feed and answers
under the new terms (`rerun.py`). What the models would have been asked must be the same: an answer to another question
is not known, and such a change is told and not computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, Literal

import msgspec

from coordinator.streams.checkpoints.ranking import rank_snapshots
from coordinator.streams.checkpoints.stage import CheckpointStage
from coordinator.streams.contract import CrunchContract
from coordinator.streams.engine.log import MemoryLog
from coordinator.streams.engine.models import RecordedAnswers
from coordinator.streams.engine.owner import Owner
from coordinator.streams.engine.recorded_scores import RecordedScores, scored_alike
from coordinator.streams.engine.rerun import begin_of_last, recorded_terms, refuse_between, rerun
from coordinator.streams.events import (
    AnyEvent,
    CheckpointData,
    CheckpointOpened,
    CheckpointWithheld,
    InputReceived,
    InputReceivedData,
    InputResolved,
    InputResolvedData,
    PeriodClosed,
    SnapshotTaken,
    SnapshotTakenData,
    Terms,
)
from coordinator.streams.log.counting import Decision

Change = Literal["none", "board", "payout", "inputs"]
"""What differs, the weightiest: nothing; only the board; what is paid; what the models were asked."""
Period = tuple[int, int]


class Standing(msgspec.Struct, frozen=True):
    """One model on one side. `units` are of 10**-score_decimals of that side; None where it has no number."""

    rank: int | None = None
    units: int | None = None
    share_frac64: int = 0
    unranked_reason: str = ""


class ModelChange(msgspec.Struct, frozen=True):
    """One model on both sides."""

    model_id: str
    old: Standing
    new: Standing

    @property
    def differs(self) -> bool:
        """Is anything else?"""
        return self.old != self.new


class PeriodChange(msgspec.Struct, frozen=True):
    """One checkpoint [start, end) on both sides; a side that has none, or withholds it, says why in `*_note`."""

    period_start: int
    period_end: int
    models: list[ModelChange]
    old_note: str
    new_note: str
    differs: bool


class TermChange(msgspec.Struct, frozen=True):
    """A field of the terms, in JSON."""

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
    """Of them, those that would have been asked otherwise, or not at all, or only then."""
    inputs_reason: str
    board_at: int | None = None
    """The end of the last snapshot period; None where there was none."""
    board: list[ModelChange] = []
    periods: list[PeriodChange] = []

    @property
    def first_affected(self) -> int | None:
        """The start of the first period whose payment differs."""
        return next((one.period_start for one in self.periods if one.differs), None)


class Outcome:
    """One side: the last snapshots, and each period's checkpoint, of the periods that begin in the span."""

    def __init__(self, from_ms: int, until_ms: int) -> None:
        self._from, self._until = from_ms, until_ms
        self.snapshots: dict[str, SnapshotTakenData] = {}
        self.snapshots_end: int | None = None
        self.checkpoints: dict[Period, tuple[CheckpointData, str]] = {}
        self.windows: dict[tuple[int, str], object] = {}
        """(end, model) -> what the board shows of it."""

    def take(self, events: Iterable[AnyEvent]) -> None:
        """Look at one decision of `snapshots` or `checkpoints`."""
        for event in events:
            match event:
                case SnapshotTaken(data=data) if self._holds(data.period_start, data.period_end):
                    if data.period_end != self.snapshots_end:
                        self.snapshots, self.snapshots_end = {}, data.period_end
                    self.snapshots[data.model_id] = data
                    self.windows[data.period_end, data.model_id] = _shown(data)
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
    log: MemoryLog,
    terms: Terms,
    contract: CrunchContract,
    contracts: Callable[[str], CrunchContract],
    *,
    crunch_id: str,
    from_ms: int | None = None,
    until_ms: int | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> RulesPlan:
    """What `terms` of `contract` would have made of the log in [from_ms, until_ms).

    `log` holds `feeds`, `inputs`, `predictions`, `snapshots`, and `scores`, which are taken again where they mean the
    same; `contracts` gives the recorded ones. `from_ms` is the end of a checkpoint period, by default where the rules
    of today began; from there on the new ones stand in for all later ones. `until_ms` is by default where the recorded
    snapshots end. Raises OperatorError for a time at which no rules can change, and what a stage raises.
    """
    told = recorded_terms(log)
    begin = begin_of_last(told) if from_ms is None else from_ms
    refuse_between(told, begin)
    held = max((one for one in told if one.effective_from <= begin), key=lambda one: one.effective_from)
    until = _closed_until(log) if until_ms is None else until_ms
    asked = _Asked(log, begin, until)
    new, old = Outcome(begin, until), Outcome(begin, until)
    taps: Mapping[str, Callable[[Decision], None]] = {
        "inputs": lambda decision: asked.take(decision.events),
        "snapshots": lambda decision: new.take(decision.events),
        "checkpoints": lambda decision: new.take(decision.events),
    }
    reason = asked_otherwise(contracts(held.contract_hash), contract)
    held_by = {one.contract_hash: one for one in told}
    scores = RecordedScores(
        log,
        asked.truths,
        truth_of,
        cache(lambda key: key in held_by and scored_alike(contracts(key), held_by[key], contract, terms)),
    )
    answers = RecordedAnswers(log.walk("predictions"))
    if not reason:
        rerun(
            log,
            lambda key: contract if key == terms.contract_hash else contracts(key),
            crunch_id=crunch_id, terms=terms, from_ms=begin, until_ms=until_ms,
            answers=answers, scores=scores.of, taps=taps, progress=progress,
        )  # fmt: skip
        _take_recorded(old, log, contracts, crunch_id)
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
    if plan.inputs_differ:
        reason = reason or f"{plan.inputs_differ:,} of {len(asked):,} inputs would have been others"
        return msgspec.structs.replace(plan, change="inputs", inputs_reason=reason)
    periods = [_period_change(period, old, new) for period in sorted({*old.checkpoints, *new.checkpoints})]
    change: Change = "none"
    if any(one.differs for one in periods):
        change = "payout"
    elif old.windows != new.windows or _boards(held) != _boards(terms):
        change = "board"
    return msgspec.structs.replace(
        plan,
        change=change,
        periods=periods,
        board=_board_change(old, held, new, terms),
        board_at=new.snapshots_end if new.snapshots_end is not None else old.snapshots_end,
    )


def _closed_until(log: MemoryLog) -> int:
    """The end (ms) of the newest period that the recorded snapshots close; 0 before the first."""
    return max(
        (
            event.data.until_ms
            for decision in log.walk("snapshots")
            if decision.may_hold("PeriodClosed")
            for event in decision.events
            if isinstance(event, PeriodClosed)
        ),
        default=0,
    )


def _take_recorded(
    old: Outcome, log: MemoryLog, contracts: Callable[[str], CrunchContract], crunch_id: str
) -> None:
    """What the recorded snapshots say, and the checkpoints that follow from them: the recorded ones may lag behind."""
    payment = Owner(log.copy("snapshots"), CheckpointStage(crunch_id, contracts))
    payment.start()
    for decision in payment.log.walk("snapshots"):
        old.take(decision.events)
        while payment.readers["snapshots"].counter.next_offset <= decision.offset:
            payment.step("snapshots")  # beside it, so that each is decoded once
    for decision in payment.log.walk("checkpoints"):
        old.take(decision.events)


def term_changes(old: Terms, new: Terms) -> list[TermChange]:
    """The fields that say something else, but for since when they hold."""
    before, after = msgspec.to_builtins(old), msgspec.to_builtins(new)
    apart = {"effective_from", "goes_on"}
    return [
        TermChange(name, before.get(name), after.get(name))
        for name in before | after
        if name not in apart and before.get(name) != after.get(name)
    ]


class _Asked:
    """What the recorded inputs asked, and how many of those made anew ask something else."""

    def __init__(self, log: MemoryLog, from_ms: int, until_ms: int) -> None:
        self._from, self._until = from_ms, until_ms
        self._recorded: dict[str, bytes] = {}
        self.truths: dict[tuple[str, int], bytes] = {}
        """(input id, horizon in s) -> what was recorded of its truth."""
        for decision in log.walk("inputs"):
            for event in decision.events:
                if isinstance(event, InputReceived) and self._holds(event.data):
                    self._recorded[event.data.input_id] = question(event.data)
                elif isinstance(event, InputResolved):
                    self.truths[event.data.input_id, event.data.horizon_seconds] = truth_of(event.data)
        self._left = dict(self._recorded)
        self._others = 0

    def __len__(self) -> int:
        return len(self._recorded)

    @property
    def differ(self) -> int:
        """Those asked otherwise or only now, and those that were not asked again."""
        return self._others + len(self._left)

    def take(self, events: Iterable[AnyEvent]) -> None:
        """Look at one decision of the inputs that are made anew."""
        for event in events:
            if isinstance(event, InputReceived) and self._holds(event.data):
                recorded = self._left.pop(event.data.input_id, None)
                self._others += recorded != question(event.data)

    def _holds(self, data: InputReceivedData) -> bool:
        return data.point >= self._from and data.deadline_at < self._until


def question(data: InputReceivedData) -> bytes:
    """All of an input but by which contract it is scored."""
    return msgspec.msgpack.encode(msgspec.structs.replace(data, contract_hash=""))


def truth_of(data: InputResolvedData) -> bytes:
    """What a score is made by: the truth, or why there is none."""
    return msgspec.json.encode((data.truth, data.reason))


def asked_otherwise(old: CrunchContract, new: CrunchContract) -> str:
    """What of the question, or of what an answer may be, the new contract says otherwise; "" where nothing."""
    if old.output_type.model_json_schema() != new.output_type.model_json_schema():
        return "output_type is another: the recorded answers were given to the old one"
    if old.call_method != new.call_method:
        return "call_method is another: the models were called otherwise"
    return ""


def _shown(data: SnapshotTakenData) -> object:
    return data.windows_units, data.boards_units, data.summary_units, data.sums


def _boards(terms: Terms) -> object:
    return terms.windows, terms.boards, terms.ranking_key, terms.ranking_direction, terms.score_decimals


def _board_change(old: Outcome, held: Terms, new: Outcome, terms: Terms) -> list[ModelChange]:
    return _side_by_side(_board(old, held), _board(new, terms), Standing())


def _side_by_side(
    old: Mapping[str, Standing], new: Mapping[str, Standing], absent: Standing
) -> list[ModelChange]:
    """Every model of either side, in the order of the new one; `absent` is who is on one side alone."""
    return [
        ModelChange(model_id, old.get(model_id, absent), new.get(model_id, absent))
        for model_id in {**new, **old}
    ]


def _board(side: Outcome, terms: Terms) -> dict[str, Standing]:
    ranked, unranked = rank_snapshots(side.snapshots.values(), terms)
    standings = {model_id: Standing(place, value) for place, model_id, value in ranked}
    return standings | {model_id: Standing() for model_id in unranked}


def _period_change(period: Period, old: Outcome, new: Outcome) -> PeriodChange:
    before, old_note = standings(old.checkpoints.get(period))
    after, new_note = standings(new.checkpoints.get(period))
    models = _side_by_side(before, after, Standing(unranked_reason="not in it"))
    differs = (
        any(one.differs for one in models)
        or old_note != new_note
        or _paid(old.checkpoints.get(period)) != _paid(new.checkpoints.get(period))
    )
    return PeriodChange(*period, models, old_note, new_note, differs)


def _paid(checkpoint: tuple[CheckpointData, str] | None) -> object:
    return None if checkpoint is None else (checkpoint[0].emission, checkpoint[0].payout)


def standings(checkpoint: tuple[CheckpointData, str] | None) -> tuple[dict[str, Standing], str]:
    """model_id -> its standing, best first and the unranked last; and why nothing is offered."""
    if checkpoint is None:
        return {}, "no checkpoint"
    data, note = checkpoint
    shares = {one["cruncher_index"]: one["reward_pct"] for one in data.emission["cruncher_rewards"]}
    standings = {
        entry.model_id: Standing(entry.rank, entry.key_units, shares.get(i, 0))
        for i, entry in enumerate(data.ranking)
    }
    return standings | {
        model_id: Standing(unranked_reason=data.unranked_reasons.get(model_id, "no reason is told"))
        for model_id in data.unranked
    }, note
