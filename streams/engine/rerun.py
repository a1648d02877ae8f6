"""Runs a recorded log again from its feed, with its own answers, and under other rules from a boundary on.

Reads `feeds` and `predictions` of a log in memory. The stages of an `Engine` decide `inputs`, `scores`, `snapshots` and
`checkpoints` again, so they decide what a node with these rules would have decided. No model is called: each answer is
the recorded one, with its status and latency.

Commands are left out, apart from answers that were handed in. A ban shows in the recorded rosters, and how a checkpoint
was paid changes nobody's share.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec

from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.contract import Contracts
from coordinator.streams.contract.terms import in_force
from coordinator.streams.durations import moment_text
from coordinator.streams.engine.engine import WRITTEN, Engine, Output, Recorded, Tap
from coordinator.streams.engine.memory_log import LogReader, MemoryLog
from coordinator.streams.engine.models import RecordedAnswers, RecordedRounds
from coordinator.streams.engine.recorded_scores import RecordedScores
from coordinator.streams.events import AnyEvent, CrunchConfigured, RoundOpened, SubmitAnswers, Terms
from coordinator.streams.log import ids
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.envelope import Need
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.log.stage import Draft

RERUN_TERMS = "rerun/terms"


class SavedRun(msgspec.Struct, frozen=True):
    """A run of the recorded rules up to a time: the engine's state, and where to read on in each topic.

    `rounds` is JSON of RecordedRounds, `clock` the event time (ms) of the last decision of the feed. It is a cache: a
    run that begins at the first event decides the same.
    """

    engine: bytes
    feeds: Need
    predictions: Need
    scores: Need
    rounds: bytes
    answers_count: int
    clock: int
    told: list[Terms]
    """The terms so far."""


class Runs(Protocol):
    """Keeps the states of runs of one log, and gives them back."""

    def before(self, until_ms: int) -> SavedRun | None:
        """The latest state from before `until_ms`, if there is one."""
        ...

    def put(self, run: SavedRun) -> None:
        """Keep a state."""
        ...


class RecordedCrunch(NamedTuple):
    """A crunch as it was recorded: its log, its id, and the contracts that the terms in the log name."""

    log: MemoryLog
    contracts: Contracts
    crunch_id: str


class NewRules(NamedTuple):
    """Rules that replace recorded ones."""

    terms: Terms
    contract: CrunchContract

    def beside(self, contracts: Contracts) -> Contracts:
        """`contracts`, and the one of these rules."""
        return lambda key: self.contract if key == self.terms.contract_hash else contracts(key)


class Changes(NamedTuple):
    """What differs from the recorded log. `terms` hold from `from_ms` on (a boundary, see `refuse_between`) in place
    of all recorded terms of that time or later. `amended` returns the events that replace those of a decision of
    the feed.
    """

    terms: Terms | None = None
    from_ms: int = 0
    amended: Callable[[list[AnyEvent]], list[AnyEvent]] = lambda events: events


class TakenOver(NamedTuple):
    """What a run reuses instead of deciding it again: the state of an earlier run, from which it continues, and
    recorded scores of rounds that need not be scored again. By default `answers` are those of the log from that state
    on.
    """

    run: SavedRun | None = None
    answers: RecordedAnswers | None = None
    scores: RecordedScores | None = None


class Watching(NamedTuple):
    """The observers of a run. `taps` receive each decision of their topic, and then none of the log is kept. `progress`
    receives the time (ms) of each instant. The run stops when `ended` returns true.
    """

    taps: Mapping[str, Tap] | None = None
    progress: Callable[[int], None] = lambda _: None
    ended: Callable[[], bool] = lambda: False


AS_RECORDED, NOTHING_TAKEN, UNWATCHED = Changes(), TakenOver(), Watching()


def recorded_answers(log: MemoryLog, earlier_run: SavedRun | None = None) -> RecordedAnswers:
    """The answers of a log, from the position where a run continues."""
    if earlier_run is None:
        return RecordedAnswers(log.walk("predictions"))
    rounds = msgspec.json.decode(earlier_run.rounds, type=RecordedRounds)
    answers = RecordedAnswers(log.walk("predictions", earlier_run.predictions), rounds)
    answers.after, answers.count = earlier_run.predictions, earlier_run.answers_count
    return answers


def _kept(
    engine: Engine, ahead: Decision, answers: RecordedAnswers, scores: RecordedScores | None, clock: int
) -> SavedRun:
    """The state before a decision of the feed."""
    return SavedRun(
        engine=engine.keep(),
        feeds=ahead.before,
        predictions=answers.after,
        scores=scores.need if scores is not None else Need(),
        rounds=msgspec.json.encode(answers.rounds),
        answers_count=answers.count,
        clock=clock,
        told=[event.data for event in engine.snapshots.state.own.terms.events],
    )


def recorded_terms(log: MemoryLog) -> list[Terms]:
    """All terms in `feeds`, in the order of the log."""
    return [
        event.data
        for decision in log.walk("feeds")
        if decision.may_hold("CrunchConfigured")
        for event in decision.events
        if isinstance(event, CrunchConfigured)
    ]


def begin_of_last(told: Sequence[Terms]) -> int:
    """Since when (ms) the newest rules hold. Terms that `goes_on` change only what is asked, so no new rules begin with
    them.
    """
    spans = [(start, terms) for start, until, terms in in_force(told).spans() if start < until]
    while len(spans) > 1 and spans[-1][1].goes_on:
        spans.pop()
    return spans[-1][0]


def refuse_between(told: Sequence[Terms], from_ms: int) -> None:
    """Raises OperatorError if rules cannot change at `from_ms`, because no checkpoint period ends there."""
    begin = told[0].effective_from
    held = in_force(told)
    if from_ms > begin and held.checkpoint_period(from_ms)[0] != from_ms:
        start, end = held.checkpoint_period(from_ms)
        raise OperatorError(
            f"rules can change only at the end of a checkpoint period: at {moment_text(start)} or {moment_text(end)}, "
            f"not {moment_text(from_ms)}"
        )


def rerun(
    crunch: RecordedCrunch,
    changes: Changes = AS_RECORDED,
    *,
    taken_over: TakenOver = NOTHING_TAKEN,
    watching: Watching = UNWATCHED,
    keep: Callable[[SavedRun], None] | None = None,
) -> Engine:
    """The engine after the log's feed. Raises what a stage raises.

    Up to the time of the changes the run follows the recorded rules, unless the feed is amended before it. `keep`
    gets the state at that time.
    """
    log, terms, from_ms, earlier_run = crunch.log, changes.terms, changes.from_ms, taken_over.run
    models = taken_over.answers or recorded_answers(log, earlier_run)
    scores, taps = taken_over.scores, watching.taps
    engine = Engine(
        crunch.contracts,
        models,
        crunch_id=crunch.crunch_id,
        output=WRITTEN if taps is None else Output(taps, keeps_log=False),
        recorded=Recorded(scores.of if scores is not None else None, log.blobs),
        state_bytes=None if earlier_run is None else earlier_run.engine,
    )
    clock = -1 if earlier_run is None else earlier_run.clock
    submitted = deque(submission for submission in _submissions(log) if submission[0] >= clock)
    retold = None if terms is None else RetoldFeed(terms, from_ms)
    reader = LogReader(log, "feeds", None if earlier_run is None else earlier_run.feeds)
    while (decision := reader.next()) is not None:
        # A decision of the feed may be empty: then it is of no time.
        if keep is not None and max((event.at for event in decision.events), default=-1) >= from_ms:
            if clock >= 0:
                keep(_kept(engine, decision, models, scores, clock))
            keep = None
        events = list(decision.events) if retold is None else retold.events(decision)
        clock = max([clock, *(event.at for event in decision.events)])
        if not events:
            continue
        at = max(event.at for event in events)
        while submitted and submitted[0][0] < at:
            engine.command(submitted.popleft()[1])
        if stand_ins := changes.amended(events):
            engine.tell(Draft(stand_ins, {}, {}))
        watching.progress(at)
        if watching.ended():
            break
    return engine


def _submissions(log: MemoryLog) -> list[tuple[int, SubmitAnswers]]:
    """(the clock when it was decided (ms), the command) of answers that were handed in and taken, in their order."""
    commands = [event for event in log.events("commands") if isinstance(event, SubmitAnswers)]
    if not commands:
        return []
    clocks = {
        event.data.input_id: event.data.clock
        for decision in log.walk("predictions")
        for event in decision.events
        if isinstance(event, RoundOpened) and event.data.closes_at is not None
    }
    taken: list[tuple[int, SubmitAnswers]] = []
    for command in commands:
        data = command.data
        rounds = (
            ids.submission_input_id(
                ids.question_input_id(data.round_id, answer.question_id),
                command.id,
                data.model_id,
                data.sha256,
            )
            for answer in data.answers
        )
        clock = next((clocks[input_id] for input_id in rounds if input_id in clocks), None)
        if clock is not None:
            taken.append((clock, command))
    return taken


class RetoldFeed:
    """Replaces, decision by decision, all terms that hold from `from_ms` on by `terms`."""

    def __init__(self, terms: Terms, from_ms: int, *, told: bool = False) -> None:
        """`told`: whether a decision before a restart has recorded the terms already."""
        self._terms, self._from, self.told = terms, from_ms, told

    def events(self, decision: Decision) -> list[AnyEvent]:
        """The events that replace those of the next decision. The list may be empty."""
        recorded = decision.events
        events = [event for event in recorded if not _is_replaced(event, self._from)]
        if not self.told and any(_is_due(event, self._from) for event in recorded):
            # The terms come first in their decision, so that all that follows is decided under them.
            at = max(min(event.at for event in recorded), 0)
            data = msgspec.structs.replace(self._terms, effective_from=self._from, goes_on=False)
            events.insert(0, CrunchConfigured(id=RERUN_TERMS, at=min(at, max(self._from, 0)), data=data))
            self.told = True
        return events


def _is_replaced(event: AnyEvent, from_ms: int) -> bool:
    return isinstance(event, CrunchConfigured) and event.data.effective_from >= from_ms


def _is_due(event: AnyEvent, from_ms: int) -> bool:
    """Whether the new terms must be recorded with this event: it is the first one of their time, or it held the
    replaced terms.
    """
    return event.at >= from_ms or _is_replaced(event, from_ms)
