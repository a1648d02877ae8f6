"""The stage of inputs: makes questions from the feed, and later their ground truths.

Reads `feeds`, emits `inputs`, one decision for each append of the feed.

Points lie on a grid in event time. The point t opens with the first record of its subject that has at >= t, and is made
from records with at <= t (`opening.py`). If the clock passes t + deadline first, the point is skipped, and the decision
names it. So an outage neither causes a flood of old questions nor questions with hindsight. An input that opens while
records of its window are missing is followed by InputOpenedOverGap. `ground_truth.py` says what the truth of a point
is, and how long it waits for missing records.

Posted questions are asked, closed and resolved beside the grid (`question_asking.py`). They hold up no watermark: the
truth of a question counts when it comes.

The terms, what is open and what was opened last follow from the stage's own events. Only the records and their holes
come from the feed, so `need` is the oldest of those that are kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import msgspec

from coordinator.streams.contract.contract import Contracts
from coordinator.streams.events import AnyEvent, InputReceived, InputResolved, InputsUntil, InputsUntilData
from coordinator.streams.inputs.grid import grid_ceil
from coordinator.streams.inputs.ground_truth import (
    SubjectRecords,
    TypedRecords,
    WindowEnded,
    resolve,
    resolved,
)
from coordinator.streams.inputs.market import Market
from coordinator.streams.inputs.open_horizons import OpenHorizon, horizons
from coordinator.streams.inputs.opening import gaps_seen, open_points
from coordinator.streams.inputs.question_asking import Asking, resolved_by_feed
from coordinator.streams.inputs.questions import Question
from coordinator.streams.inputs.state import (
    Append,
    NextState,
    OwnInputs,
    append_of,
    next_state,
    of_feeds,
    oldest_kept,
    records_kept,
)
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.envelope import Need
from coordinator.streams.log.stage import Draft, PlacedEvent, Stage, State


class InputState(State):
    """What follows from the stage's own events, and the part of the market that is still needed."""

    own: OwnInputs = msgspec.field(default_factory=OwnInputs)
    market: Market = msgspec.field(default_factory=Market)


class InputStage(Stage[InputState]):
    """feeds -> inputs. `contracts` returns the contract of a hash, or raises OperatorError."""

    topic: ClassVar[str] = "inputs"
    drivers: ClassVar[tuple[str, ...]] = ("feeds",)
    memory: ClassVar[tuple[str, ...]] = (
        "CrunchConfigured",
        "QuestionPosted",
        "QuestionVoided",
        "StakesPosted",
        "InputReceived",
        "InputClosed",
        "InputResolved",
        "InputsUntil",
    )

    def __init__(self, contracts: Contracts) -> None:
        super().__init__(InputState())
        self._typed = TypedRecords(contracts)

    def unfold(self, decision: Decision) -> Iterator[PlacedEvent]:
        """An append of the feed is decided as a whole. One without events, which only records a position, is
        skipped.
        """
        if not decision.events:
            return
        position = (decision.offset, len(decision.events) - 1)
        yield PlacedEvent("feeds", append_of(decision), position, decision.before, decision.after())

    def decide(self, state: InputState, placed: PlacedEvent) -> Draft | None:
        """The new terms, the inputs that open, the truths that are due, and up to when all truths are known."""
        append: Append = placed.event
        ahead = next_state(state.own, state.market, append)
        events: list[AnyEvent] = [*append.configured]
        if ahead.terms:
            events += self._events(append, ahead)
        if not events:
            return None
        need = ahead.needed() or placed.after
        if any(isinstance(event, InputReceived) and event.data.history for event in events):
            # The predict worker reads the records of a first tick from `need` on. This append may hold many records
            # after the point, which would move `need` past them, so it stays where it was before the append.
            before = oldest_kept(state.own, state.market) or placed.before
            need = min(before, need, key=lambda position: position.offset)
        return Draft(events, {"feeds": placed.position}, {"feeds": need})

    def fold(self, state: InputState, placed: PlacedEvent) -> None:
        """Fold an own event, or an append that is decided: take in its records, drop what is no longer needed."""
        own, market = state.own, state.market
        if placed.topic == self.topic:
            own.evolve(placed.event, deciding=state.upto["feeds"][0])
            return
        market.take(of_feeds(placed.event, own.feeds))
        if placed.position < state.upto["feeds"]:
            return  # a new owner reads what was kept: a part of it does not say what else is needed
        kept_of_feed = records_kept(own.feeds, own.terms, own.until)
        market.trim(own.entries(), kept_of_feed, own.clock)
        self._typed.forget(market.count())

    def needed(self, state: InputState, placed: PlacedEvent) -> dict[str, Need]:
        """The position of the oldest record or hole that is kept after the append is folded."""
        return {"feeds": next_state(state.own, state.market, placed.event).needed() or placed.after}

    # --- what an append makes ----------------------------------------------------------------------

    def _events(self, append: Append, ahead: NextState) -> Iterator[AnyEvent]:
        opened = open_points(ahead, self._typed)
        for event in opened.inputs:
            yield event
            terms = ahead.terms.at(event.data.point)
            seen = self._typed.contracts(terms.contract_hash).input_records
            gaps = gaps_seen(event.data, ahead.market, terms, seen)
            if gaps is not None:
                yield gaps
        waiting = [horizon for event in opened.inputs for horizon in horizons(event.data)]
        yield from self._resolved(ahead, waiting)
        yield from self._of_questions(append, ahead)
        if append.ticks or opened.skipped:
            ahead.until = _watermark(ahead)
            yield InputsUntil(
                id=f"inputs-until/{append.last_id}",
                at=max(ahead.clock, 0),
                data=InputsUntilData(
                    until=ahead.until, clock=ahead.clock, rehearsal=ahead.rehearsal, skipped=opened.skipped
                ),
            )

    def _of_questions(self, append: Append, ahead: NextState) -> Iterator[AnyEvent]:
        """What posts make, and what is due of questions. `ahead.questions` has the questions as they are afterwards."""
        if not append.posts and ahead.now < ahead.questions.due_at:
            return
        before = ahead.questions
        asking = Asking(before, ahead.terms, self._typed.contracts, rehearsal=ahead.rehearsal)
        ahead.questions = asking.questions
        clock_before = ahead.clock_before

        def truth(question: Question) -> InputResolved | None:
            window = OpenHorizon(
                question.resolves_at or 0,
                max(question.opens_at, question.first_asked_at),
                question.resolves_by,
                0,
                question.contract_hash,
                question.input_id,
            )
            ended = self._truth(ahead, window)
            return None if ended is None else resolved_by_feed(question, ended, clock_before)

        yield from asking.events(append.posts, ahead.clock, ahead.now, truth)

    def _resolved(self, ahead: NextState, opened: list[OpenHorizon]) -> Iterator[InputResolved]:
        """The truths that are due, also of the horizons that just opened. `ahead.open` has the others afterwards."""
        changes = [start for start, _, _ in ahead.terms.spans()[1:] if start <= ahead.now]
        changed_at = max(changes, default=-1)
        due = ahead.open.due(ahead.now, changed_at)
        due += [
            horizon for horizon in opened if horizon.resolvable_at <= ahead.now or horizon.point < changed_at
        ]
        ended: list[tuple[OpenHorizon, WindowEnded]] = []
        for horizon in sorted(due):
            window = self._truth(ahead, horizon)
            if window is not None:
                ended.append((horizon, window))
        ahead.open = ahead.open.after(opened, [horizon for horizon, _ in ended])
        last_of = {horizon.input_id: horizon for horizon, _ in ended}  # in order: the last one stays
        for horizon, window in ended:
            last = last_of[horizon.input_id] is horizon and not ahead.open.waits(
                horizon.subject, horizon.point
            )
            yield resolved(horizon, window, last=last)

    def _truth(self, ahead: NextState, horizon: OpenHorizon) -> WindowEnded | None:
        """The truth of a horizon, or why it has none; None while it is open."""
        terms = ahead.terms.at(horizon.point)
        change = ahead.terms.feed_change(horizon.point, horizon.subject, ahead.now)
        if horizon.resolvable_at > ahead.now and change is None:
            return None
        feed, market = terms.feed, ahead.market
        sides = [
            SubjectRecords(
                subject,
                market.records(feed, subject),
                market.holes(feed, subject),
                market.whole_from(feed, subject),
            )
            for subject in terms.members(horizon.subject)
        ]
        window = resolve(horizon, sides, terms, self._typed, ahead.clock, ahead.now)
        if window is None and change is not None:
            # The old feed sends no more records, so an incomplete window would never end.
            return WindowEnded(None, f"the feed was changed: {change}", ahead.now)
        return window


def _watermark(ahead: NextState) -> int:
    """The time (ms) before which every truth is known, and no more input will have a truth."""
    earliest = ahead.open.earliest()
    times = [ahead.clock] if earliest is None else [ahead.clock, earliest]
    for start, until, terms in ahead.terms.spans():
        for scope in terms.scopes:
            last_handled = ahead.handled.get(scope.subject, {}).get(scope.scope_key)
            horizon_ms = scope.horizon_seconds * 1000
            if last_handled is None:
                # Its first record may still come, and open a point that is as old as the deadline allows.
                times.append(max(ahead.clock - terms.deadline_ms, start) + horizon_ms)
                continue
            point = grid_ceil(max(last_handled + 1, start), scope.interval_seconds * 1000)
            if point < until:
                times.append(point + horizon_ms)
    return max(ahead.until, min(times))
