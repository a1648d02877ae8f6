"""Spans out of the log: from a feed record to the board, and from the end of a period to the settlement. Pure.

Reads the counted decisions of all topics with the time at which Kafka got each, and gives the spans that a decision
ends. A span lasts from the writing of the record that caused a decision to the writing of the decision. So no stage
measures anything, and a node with tracing decides the same as one without.

    round       input received -> round answered -> model answered (one each)
                      `-> input resolved -> round scored -> on the board
    period      period closed (links: the last rounds scored in it)
    checkpoint  checkpoint opened (links: its periods) -> submitted -> claimable -> paid

A span says no answer and no reason: answers to posted questions are hidden until they close.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

from coordinator.streams import events as ev
from coordinator.streams.log import ids, trace_ids
from coordinator.streams.log.counting import Decision
from coordinator.streams.topology import BY_TOPIC

REMEMBERED_RECORDS = 10_000
REMEMBERED_ROUNDS = 1_000
REMEMBERED_CHECKPOINTS = 100
LINKS_MAX = 128
"""OpenTelemetry's own default bound for a span."""

RECEIVED, RESOLVED, ANSWERED, MODEL_ANSWERED = (
    "input received",
    "input resolved",
    "round answered",
    "model answered",
)
SCORED, ON_BOARD, PERIOD_CLOSED = "round scored", "on the board", "period closed"
OPENED, WITHHELD = "checkpoint opened", "checkpoint withheld"
SETTLEMENT = {
    ev.PayeesBound: "payees bound",
    ev.CheckpointSubmitted: "checkpoint submitted",
    ev.CheckpointSubmissionFailed: "checkpoint submission failed",
    ev.CheckpointClaimable: "checkpoint claimable",
    ev.CheckpointPaid: "checkpoint paid",
    ev.CheckpointCorrected: "checkpoint corrected",
}


Attributes = dict[str, str | int | bool]


class Link(NamedTuple):
    """Another span that led to this one."""

    trace_id: int
    span_id: int


class Span(NamedTuple):
    """One span; times are wall-clock ms, with fractions. `failed`: what is wrong, "" if nothing is."""

    trace_id: int
    span_id: int
    parent_id: int | None
    name: str
    start_ms: float
    end_ms: float
    attributes: Attributes
    links: tuple[Link, ...] = ()
    failed: str = ""


class Trace(NamedTuple):
    """The trace for which spans are made. `start_ms` and `end_ms` are those of the spans, `event_id` is the event that
    ended them.
    """

    trace_id: int
    start_ms: float
    end_ms: float
    event_id: str

    def id_of(self, *names: str) -> int:
        """The id of the span of these names."""
        return trace_ids.span_id(self.trace_id, *names)

    def span(self, *names: str, parent: tuple[str, ...] = (), **attributes: str | int | bool) -> Span:
        """The span of these names. The first one is its title."""
        parent_id = self.id_of(*parent) if parent else None
        attributes = {"event_id": self.event_id, **attributes}
        return Span(
            self.trace_id, self.id_of(*names), parent_id, names[0], self.start_ms, self.end_ms, attributes
        )


class _Round(NamedTuple):
    opened_ms: int
    model_ids: list[str]


class SpanMaker:
    """Makes spans of decisions, in the order in which they are read. It remembers a bounded number of each thing.

    A span whose cause is not remembered, as after a start, begins when it ends.
    """

    def __init__(self, crunch_id: str) -> None:
        self._crunch_id = crunch_id
        self._written: dict[str, dict[int, int]] = {topic: {} for topic in BY_TOPIC}
        self._rounds: dict[str, _Round] = {}
        self._scored: deque[Link] = deque(maxlen=LINKS_MAX)
        self._periods: deque[Link] = deque(maxlen=LINKS_MAX)
        self._moved: dict[str, int] = {}
        """checkpoint_id -> when its last move was written."""

    def take(self, decision: Decision, written_ms: int, now_ms: int) -> list[Span]:
        """The spans that this decision ends. `now_ms`: when its figures are on the board."""
        _remember(self._written[decision.topic], decision.offset, written_ms, REMEMBERED_RECORDS)
        cause_ms = self._cause_ms(decision, written_ms)
        place: Attributes = {"topic": decision.topic, "offset": decision.offset}
        return [
            span._replace(attributes=place | span.attributes)
            for event in decision.events
            for span in self._of_event(event, cause_ms, written_ms, now_ms)
        ]

    def _cause_ms(self, decision: Decision, written_ms: int) -> int:
        """When the newest record was written that drove this decision; at the latest when it was written itself."""
        times = [
            self._written[topic][position[0]]
            for topic, position in decision.upto.items()
            if topic in BY_TOPIC[decision.topic].driven_by and position[0] in self._written[topic]
        ]
        return min(max(times, default=written_ms), written_ms)

    def _of_event(self, event: ev.AnyEvent, cause_ms: int, written_ms: int, now_ms: int) -> Iterator[Span]:
        match event:
            case ev.RoundOpened(data=data):
                model_ids = [entry.model_id for entry in data.roster]
                _remember(self._rounds, data.input_id, _Round(written_ms, model_ids), REMEMBERED_ROUNDS)
            case (
                ev.InputReceived()
                | ev.InputResolved()
                | ev.ScopeAnswered()
                | ev.RoundAnswered()
                | ev.RoundScored()
            ):
                trace_id = trace_ids.round_trace(self._crunch_id, event.data.input_id)
                trace = Trace(trace_id, cause_ms, written_ms, event.id)
                yield from self._of_round(event, trace, now_ms)
            case ev.PeriodClosed(data=data):
                trace_id = trace_ids.period_trace(self._crunch_id, data.until_ms)
                span = Trace(trace_id, cause_ms, written_ms, event.id).span(
                    PERIOD_CLOSED, until_ms=data.until_ms, snapshot_count=data.snapshot_count
                )
                self._periods.append(Link(trace_id, span.span_id))
                yield span._replace(links=tuple(self._scored))
                self._scored.clear()
            case ev.CheckpointOpened() | ev.CheckpointWithheld():
                yield self._opened(event, cause_ms, written_ms)
            case _ if (name := SETTLEMENT.get(type(event))) is not None:
                yield self._settled(event, name, written_ms)

    def _of_round(self, event: Any, trace: Trace, now_ms: int) -> Iterator[Span]:
        data = event.data
        received = (RECEIVED, data.input_id)
        match event:
            case ev.InputReceived():
                yield trace.span(*received, input_id=data.input_id, subject=data.subject, point=data.point)
            case ev.InputResolved():
                names = resolved_names(data.input_id, data.horizon_seconds)
                yield trace.span(
                    *names,
                    parent=received,
                    horizon_seconds=data.horizon_seconds,
                    has_truth=data.truth is not None,
                )
            case ev.RoundAnswered():
                yield trace.span(ANSWERED, data.input_id, parent=received, input_id=data.input_id)
            case ev.ScopeAnswered():
                yield from self._model_spans(data, trace)
            case ev.RoundScored():
                scored = (SCORED, data.input_id, data.scope_key)
                counts = {"models": len(data.models), "unscored": len(data.unscored)}
                parent = resolved_names(ids.question_of(data.input_id), data.horizon_seconds)
                yield trace.span(*scored, parent=parent, scope_key=data.scope_key, **counts)
                self._scored.append(Link(trace.trace_id, trace.id_of(*scored)))
                board = trace._replace(start_ms=trace.end_ms, end_ms=max(trace.end_ms, now_ms))
                yield board.span(ON_BOARD, *scored[1:], parent=scored, scope_key=data.scope_key)

    def _model_spans(self, data: ev.ScopeAnsweredData, trace: Trace) -> Iterator[Span]:
        """One span a model that was asked, from the opened round on, as long as the model took."""
        opened = self._rounds.get(data.input_id)
        if opened is None:
            return
        unanswered = {entry.place: entry for entry in data.unanswered}
        for place, index in enumerate(data.models):
            model_id = opened.model_ids[index]
            end_ms = opened.opened_ms + data.exec_times_us[place] / 1000
            span = trace._replace(start_ms=opened.opened_ms, end_ms=end_ms).span(
                *(MODEL_ANSWERED, data.input_id, data.scope_key, model_id),
                parent=(ANSWERED, data.input_id),
                model_id=model_id,
                scope_key=data.scope_key,
            )
            if (entry := unanswered.get(place)) is not None:
                span = span._replace(failed=f"{entry.status}, fault: {entry.fault}")
            yield span

    def _opened(
        self, event: ev.CheckpointOpened | ev.CheckpointWithheld, cause_ms: int, written_ms: int
    ) -> Span:
        checkpoint = event.data.checkpoint if isinstance(event, ev.CheckpointWithheld) else event.data
        name = WITHHELD if isinstance(event, ev.CheckpointWithheld) else OPENED
        checkpoint_id = checkpoint.checkpoint_id
        trace_id = trace_ids.checkpoint_trace(self._crunch_id, checkpoint_id)
        _remember(self._moved, checkpoint_id, written_ms, REMEMBERED_CHECKPOINTS)
        span = Trace(trace_id, cause_ms, written_ms, event.id).span(
            name, checkpoint_id=checkpoint_id, period_end=checkpoint.period_end
        )
        links = tuple(self._periods)
        if isinstance(event, ev.CheckpointOpened):
            self._periods.clear()
        return span._replace(links=links)

    def _settled(self, event: Any, name: str, written_ms: int) -> Span:
        """A move of a checkpoint, from the move before it."""
        checkpoint_id = event.data.checkpoint_id
        trace_id = trace_ids.checkpoint_trace(self._crunch_id, checkpoint_id)
        moved_ms = self._moved.get(checkpoint_id, written_ms)
        _remember(self._moved, checkpoint_id, written_ms, REMEMBERED_CHECKPOINTS)
        trace = Trace(trace_id, moved_ms, written_ms, event.id)
        return trace.span(name, event.id, parent=(OPENED,), checkpoint_id=checkpoint_id)


def resolved_names(input_id: str, horizon_seconds: int) -> tuple[str, str, str]:
    """The names of the span that ends when this horizon of an input has its truth."""
    return RESOLVED, input_id, str(horizon_seconds)


def _remember(memory: dict[Any, Any], key: Any, value: Any, entries_max: int) -> None:
    """Put it last; the oldest entry goes when there are too many."""
    memory.pop(key, None)
    memory[key] = value
    if len(memory) > entries_max:
        del memory[next(iter(memory))]
