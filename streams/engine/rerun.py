"""A recorded log run again from its feed on, with its own answers, under other rules from a boundary on.

Reads the records of `feeds` and `predictions` as they were recorded; makes `inputs`, `scores`, `snapshots` and
`checkpoints` anew by the stages, so the rules decide here what they would have decided in the node. Nobody is asked: an
answer is what the model said then, with its status and latency.

Commands are left out: a ban shows in the recorded rosters, and how a checkpoint was paid changes nobody's share.
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
    """All terms that the feed tells, in the order in which they were told."""
    return [
        event.data
        for decision in log.walk("feeds")
        if decision.may_hold("CrunchConfigured")
        for event in decision.events
        if isinstance(event, CrunchConfigured)
    ]


def begin_of_last(told: Sequence[Terms]) -> int:
    """Since when (ms) the rules hold that were told last: changes that only ask something else do not begin anew."""
    spans = [(start, terms) for start, until, terms in in_force(told).spans() if start < until]
    while len(spans) > 1 and spans[-1][1].goes_on:
        spans.pop()
    return spans[-1][0]


def refuse_between(told: Sequence[Terms], from_ms: int) -> None:
    """Raises OperatorError where rules cannot change at `from_ms`: it is no end of a checkpoint period."""
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

    `terms` hold from `from_ms` on (a boundary, see `refuse_between`) in place of all that were told for then or later;
    None runs the log under its own. `answers` are by default the log's; `scores` gives those
    that need not be made again, by default none. `amended` gives the events of the feed that
    stand in for those of a decision, `ended` says after each that no more is wanted. `progress` is told each instant's
    time. Raises what a stage raises.
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
    """The decisions of the feed, with these terms told in place of those that would hold from `from_ms` on."""
    reader = LogReader(log, "feeds")
    retold = None if terms is None else RetoldFeed(terms, from_ms)
    while (decision := reader.next()) is not None:
        events = list(decision.events) if retold is None else retold.events(decision)
        if events:
            yield events


class RetoldFeed:
    """The feed's decisions, one after another, with `terms` in place of all that hold from `from_ms` on."""

    def __init__(self, terms: Terms, from_ms: int, *, told: bool = False) -> None:
        """`told`: whether a decision before the first one here has told the terms already."""
        self._terms, self._from, self.told = terms, from_ms, told

    def events(self, decision: Decision) -> list[AnyEvent]:
        """What stands in for the events of the next decision; may be none."""
        events_told = decision.events
        events = [one for one in events_told if not _replaced(one, self._from)]
        if not self.told and any(_reaches(one, self._from) for one in events_told):
            at = max(min(one.at for one in events_told), 0)
            data = msgspec.structs.replace(self._terms, effective_from=self._from, goes_on=False)
            events.insert(0, CrunchConfigured(id=RERUN_TERMS, at=min(at, max(self._from, 0)), data=data))
            self.told = True
        return events


def _replaced(event: AnyEvent, from_ms: int) -> bool:
    return isinstance(event, CrunchConfigured) and event.data.effective_from >= from_ms


def _reaches(event: AnyEvent, from_ms: int) -> bool:
    """Is it time to tell new terms: before the first event of their time, or where those stood that they replace."""
    return event.at >= from_ms or _replaced(event, from_ms)
