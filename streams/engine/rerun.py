"""Runs a recorded log again from its feed, with its own answers, and under other rules from a boundary on.

Reads `feeds` and `predictions` of a log in memory. The stages of an `Engine` decide `inputs`, `scores`, `snapshots` and
`checkpoints` again, so they decide what a node with these rules would have decided. No model is called: each answer is
the recorded one, with its status and latency.

Commands are left out. A ban shows in the recorded rosters, and how a checkpoint was paid changes nobody's share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec

from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.terms import in_force
from coordinator.streams.engine.engine import Engine, Tap
from coordinator.streams.engine.log import LogReader, MemoryLog
from coordinator.streams.engine.models import RecordedAnswers
from coordinator.streams.events import AnyEvent, CrunchConfigured, Terms
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.log.stage import Draft
from coordinator.streams.scores.stage import RecordedRound

RERUN_TERMS = "rerun/terms"


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
            f"rules change where a checkpoint period ends: from {start} or {end} (ms), not {from_ms}"
        )


def rerun(
    log: MemoryLog,
    contracts: Callable[[str], CrunchContract],
    *,
    crunch_id: str,
    terms: Terms | None = None,
    from_ms: int = 0,
    until_ms: int | None = None,
    answers: RecordedAnswers | None = None,
    scores: RecordedRound | None = None,
    taps: Mapping[str, Tap] | None = None,
    amended: Callable[[list[AnyEvent]], list[AnyEvent]] = lambda events: events,
    ended: Callable[[], bool] = lambda: False,
    progress: Callable[[int], None] = lambda _: None,
) -> Engine:
    """The engine after the log's feed up to `until_ms` (exclusive; None: all of it).

    `terms` hold from `from_ms` on (a boundary, see `refuse_between`), in place of all recorded terms of that time or
    later. With None the log runs under its own terms. `answers` are those of the log by default. `scores` gives rounds
    that need not be scored again. `amended` gives the events that stand in for those of a decision of the feed. The run
    stops once `ended` says so. `progress` is told the time (ms) of each instant. Raises what a stage raises.
    """
    models = answers or RecordedAnswers(log.walk("predictions"))
    engine = Engine(contracts, models, crunch_id=crunch_id, taps=taps, scores=scores, keeps_log=taps is None)
    for events in _feed_of(log, terms, from_ms):
        at = max(event.at for event in events)
        if until_ms is not None and at >= until_ms:
            break
        if stand_ins := amended(events):
            engine.tell(Draft(stand_ins, {}, {}))
        progress(at)
        if ended():
            break
    return engine


def _feed_of(log: MemoryLog, terms: Terms | None, from_ms: int) -> Iterator[list[AnyEvent]]:
    """The events of each decision of the feed, with `terms` in place of those that would hold from `from_ms` on."""
    reader = LogReader(log, "feeds")
    retold = None if terms is None else RetoldFeed(terms, from_ms)
    while (decision := reader.next()) is not None:
        events = list(decision.events) if retold is None else retold.events(decision)
        if events:
            yield events


class RetoldFeed:
    """Replaces, decision by decision, all terms that hold from `from_ms` on by `terms`."""

    def __init__(self, terms: Terms, from_ms: int, *, told: bool = False) -> None:
        """`told`: whether an earlier decision, before a restart, has told the terms already."""
        self._terms, self._from, self.told = terms, from_ms, told

    def events(self, decision: Decision) -> list[AnyEvent]:
        """The events that stand in for those of the next decision. The list may be empty."""
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
    """Whether the new terms must be told with this event: it is the first of their time, or told the replaced terms."""
    return event.at >= from_ms or _is_replaced(event, from_ms)
