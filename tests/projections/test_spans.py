"""Spans from a log that the engine made: whole traces, from the record that caused a round to the board."""

from __future__ import annotations

from collections import Counter

import pytest
from tests.streams.engine.test_correct import corrected_log

from coordinator.projections.tracing import spans as spans_module
from coordinator.projections.tracing.spans import (
    ANSWERED,
    MODEL_ANSWERED,
    ON_BOARD,
    OPENED,
    PERIOD_CLOSED,
    RECEIVED,
    RESOLVED,
    SCORED,
    SpanMaker,
)
from coordinator.projections.tracing.switch import wants_traces
from coordinator.streams import events as ev
from coordinator.streams.log import trace_ids
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.envelope import Need
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.topology import BY_TOPIC

CRUNCH = "engine"
READ_MS = 7
"""The delay after writing with which each decision is read here."""


@pytest.fixture(scope="module")
def log():
    return corrected_log()


def in_order(log):
    """(decision, time of writing): each after its sources, a millisecond apart."""
    waiting = {topic: list(log.decisions(topic)) for topic in BY_TOPIC if BY_TOPIC[topic].enveloped}
    read = dict.fromkeys(waiting, -1)
    written_ms = 1_000_000
    while any(waiting.values()):
        for topic, decisions in waiting.items():
            while decisions and all(
                position[0] <= read[source] or not waiting[source]
                for source, position in decisions[0].upto.items()
                if source in read
            ):
                decision = decisions.pop(0)
                read[topic] = decision.offset
                yield decision, written_ms
                written_ms += 1


@pytest.fixture(scope="module")
def spans(log):
    maker = SpanMaker(CRUNCH)
    return [span for decision, at in in_order(log) for span in maker.take(decision, at, at + READ_MS)]


def test_every_event_of_a_round_has_its_span(log, spans):
    names = Counter(span.name for span in spans)
    scored = [event for event in log.events("scores") if isinstance(event, ev.RoundScored)]
    assert names[RECEIVED] == sum(isinstance(event, ev.InputReceived) for event in log.events("inputs")) > 0
    assert names[SCORED] == names[ON_BOARD] == len(scored) > 0
    assert names[MODEL_ANSWERED] == sum(
        len(event.data.models) for event in log.events("predictions") if isinstance(event, ev.ScopeAnswered)
    )
    assert (
        names[OPENED]
        == sum(isinstance(event, ev.CheckpointOpened) for event in log.events("checkpoints"))
        > 0
    )


def test_no_two_spans_have_one_id_and_every_parent_is_there_in_the_same_trace(spans):
    by_id = {(span.trace_id, span.span_id): span for span in spans}
    assert len(by_id) == len(spans)
    for span in spans:
        if span.parent_id is None:
            assert span.name in (RECEIVED, PERIOD_CLOSED, OPENED)
        else:
            assert (span.trace_id, span.parent_id) in by_id, span
        for link in span.links:
            assert tuple(link) in by_id


def test_a_round_is_one_trace_from_its_record_to_the_board(log, spans):
    event = next(event for event in log.events("scores") if isinstance(event, ev.RoundScored))
    trace = {
        span.name: span
        for span in spans
        if span.trace_id == trace_ids.round_trace(CRUNCH, event.data.input_id)
        and (span.name != SCORED or span.attributes["event_id"] == event.id)
    }
    assert set(trace) == {RECEIVED, ANSWERED, MODEL_ANSWERED, RESOLVED, SCORED, ON_BOARD}
    assert trace[SCORED].parent_id == trace[RESOLVED].span_id
    assert trace[ON_BOARD].end_ms - trace[ON_BOARD].start_ms == READ_MS
    assert all(span.start_ms <= span.end_ms for span in trace.values())
    assert trace[RECEIVED].start_ms < trace[RECEIVED].end_ms <= trace[ANSWERED].start_ms


def test_a_span_begins_at_what_caused_its_decision(log):
    maker, written = SpanMaker(CRUNCH), {}
    for decision, at in in_order(log):
        written[decision.topic, decision.offset] = at
        for span in maker.take(decision, at, at):
            if span.name == SCORED:
                assert span.start_ms == written["inputs", decision.upto["inputs"][0]]


def test_a_span_contains_no_answer_and_no_reason(log, spans):
    outputs = {
        bytes(output).decode()
        for event in log.events("predictions")
        if isinstance(event, ev.ScopeAnswered)
        for output in event.data.outputs
    }
    told = {str(value) for span in spans for value in (*span.attributes.values(), span.failed)}
    assert outputs
    assert not told & outputs
    assert not any("reason" in span.attributes for span in spans)


def test_a_settlement_is_in_the_trace_of_its_checkpoint_with_each_transition(log):
    opened = next(event for event in log.events("checkpoints") if isinstance(event, ev.CheckpointOpened))
    checkpoint_id = opened.data.checkpoint_id
    submitted = ev.CheckpointSubmittedData(checkpoint_id=checkpoint_id, tx_hash="x", command_id="c")
    advanced = ev.CheckpointAdvancedData(checkpoint_id=checkpoint_id, command_id="c")
    moves = [
        opened,
        ev.CheckpointSubmitted(id="s", at=1, data=submitted),
        ev.CheckpointClaimable(id="c", at=1, data=advanced),
        ev.CheckpointPaid(id="p", at=1, data=advanced),
    ]
    maker = SpanMaker(CRUNCH)
    need = Need(0, 0, 0)
    spans = [
        span
        for n, move in enumerate(moves)
        for span in maker.take(Decision("checkpoints", n, n, n, need, {}, {}, None, [move]), 100 * n, 0)
    ]
    trace_id = trace_ids.checkpoint_trace(CRUNCH, checkpoint_id)
    assert [(span.name, span.start_ms, span.end_ms) for span in spans] == [
        ("checkpoint opened", 0, 0),
        ("checkpoint submitted", 0, 100),
        ("checkpoint claimable", 100, 200),
        ("checkpoint paid", 200, 300),
    ]
    assert {span.trace_id for span in spans} == {trace_id}
    assert {span.parent_id for span in spans[1:]} == {spans[0].span_id}


def test_a_reader_that_begins_in_the_middle_makes_no_span_that_ends_before_it_begins(log):
    decisions = list(in_order(log))[len(log.topics["inputs"]) :]
    maker = SpanMaker(CRUNCH)
    for decision, at in decisions:
        assert all(span.start_ms <= span.end_ms for span in maker.take(decision, at, at))


def test_the_remembered_spans_are_bounded(log, monkeypatch):
    for name in ("REMEMBERED_RECORDS", "REMEMBERED_ROUNDS", "REMEMBERED_CHECKPOINTS"):
        monkeypatch.setattr(spans_module, name, 3)
    maker = SpanMaker(CRUNCH)
    for decision, at in in_order(log):
        maker.take(decision, at, at)
        assert max(len(offsets) for offsets in maker._written.values()) <= 3
        assert len(maker._rounds) <= 3
        assert len(maker._moved) <= 3


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, False),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "TRUE"}, False),
        ({"OTEL_METRICS_EXPORTER": "otlp"}, False),
    ],
)
def test_the_standard_variables_turn_it_on(environ, wanted):
    assert wants_traces(environ) is wanted


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER=zipkin"),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "OTEL_EXPORTER_OTLP_PROTOCOL=grpc",
        ),
        (
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318",
                "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json",
            },
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http/json",
        ),
    ],
)
def test_an_unsupported_destination_is_refused_by_its_variable(environ, message):
    with pytest.raises(OperatorError, match=message):
        wants_traces(environ)
