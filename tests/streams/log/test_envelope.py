"""The envelope: what is read back, what every reader skips, and what stops a reader, which then names the record."""

from __future__ import annotations

import msgspec
import pytest
from tests.streams.build import T0, answer_entries, answers, configured, opened, received, record, tick

from coordinator.streams.events import (
    ConfirmCheckpoint,
    ConfirmCheckpointData,
    DeadLettered,
    DeadLetteredData,
)
from coordinator.streams.log import envelope
from coordinator.streams.log.counting import Counter
from coordinator.streams.log.envelope import (
    ENVELOPE_VERSION,
    MESSAGE_BYTES_MAX,
    Append,
    Need,
    decode_append,
    decode_event,
    decode_events,
    decode_outside,
    encode_append,
    encode_decision,
    encode_event,
)
from coordinator.streams.log.errors import UnknownEventError
from coordinator.streams.predictions.stage import in_events

EVENTS = [configured(), record(T0), received(T0), tick(T0)]


def test_a_decision_is_read_back_as_it_was_written():
    upto, need = {"feeds": (7, 2)}, {"feeds": Need(3, 1, 2)}
    (body,) = encode_decision(EVENTS, epoch=4, seq=9, upto=upto, need=need)
    append = decode_append(body)
    assert (append.e, append.epoch, append.seq, append.part) == (ENVELOPE_VERSION, 4, 9, (1, 1))
    assert append.upto == upto
    assert append.need == need
    assert append.claim == ""
    assert [encode_event(event) for event in decode_events(append.events)] == [
        encode_event(e) for e in EVENTS
    ]


def test_a_claim_is_read_back_as_it_was_written():
    claim = Append(e=ENVELOPE_VERSION, epoch=3, seq=0, claim="host-1")
    assert decode_append(encode_append(claim)).claim == "host-1"


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_the_same_event_has_the_same_bytes(event):
    body = encode_event(event)
    assert encode_event(decode_event(body)) == body


def test_a_large_decision_is_cut_into_parts_that_contain_every_event_once(monkeypatch):
    monkeypatch.setattr(envelope, "PART_BYTES_MAX", 1000)
    events = [record(T0 + i * 60_000) for i in range(20)]
    records = encode_decision(events, epoch=1, seq=1, upto={"feeds": (1, 1)}, need={})
    appends = [decode_append(record) for record in records]
    assert len(records) > 5
    assert [append.part for append in appends] == [(k, len(records)) for k in range(1, len(records) + 1)]
    assert all(len(bytes(append.events)) <= 1000 for append in appends)
    assert all(append.upto == {"feeds": (1, 1)} for append in appends)
    assert [event for append in appends for event in decode_events(append.events)] == events
    assert encode_decision(events, epoch=1, seq=1, upto={"feeds": (1, 1)}, need={}) == records


def test_parts_fit_into_a_record_of_the_broker():
    assert envelope.PART_BYTES_MAX * 4 == envelope.MESSAGE_BYTES_MAX
    events = [record(T0 + i * 60_000) for i in range(15_000)]
    records = encode_decision(events, epoch=1, seq=1, upto={}, need={})
    assert len(records) == 3
    assert max(len(record) for record in records) < envelope.MESSAGE_BYTES_MAX // 3


def test_a_round_of_a_thousand_models_with_the_longest_answers_is_split_and_counts_once():
    note = {"note": "x" * 65_000}
    answers_by_model = {f"m{number:04}": note for number in range(1000)}
    *_, done = answers(T0, {})
    events = [
        *in_events(opened(T0, list(answers_by_model)), {"60s": answer_entries(answers_by_model)}, T0),
        done,
    ]
    counter = Counter("predictions")
    counter.read(0, encode_append(Append(e=ENVELOPE_VERSION, epoch=1, seq=0, claim="tests")))
    records = encode_decision(events, epoch=1, seq=1, upto={}, need={})
    assert max(len(record) for record in records) < MESSAGE_BYTES_MAX // 2
    decisions = [
        decision for n, body in enumerate(records) if (decision := counter.read(n + 1, body)) is not None
    ]
    assert [len(decision.events) for decision in decisions] == [len(events)]
    assert decisions[0].events == events


def test_an_event_larger_than_a_part_is_a_part_of_its_own(monkeypatch):
    """A checkpoint of ten thousand models cannot be cut, and the node must not stop because of it."""
    monkeypatch.setattr(envelope, "PART_BYTES_MAX", 1000)
    large = record(T0 + 60_000, values={f"level{i}": "1.00" for i in range(100)})
    events = [record(T0), large, record(T0 + 120_000), record(T0 + 180_000)]
    events_of_parts = [
        decode_events(decode_append(record).events)
        for record in encode_decision(events, epoch=1, seq=1, upto={}, need={})
    ]
    assert events_of_parts == [events[:1], [large], events[2:]]


def test_an_event_too_large_for_a_record_is_refused_by_its_id(monkeypatch):
    monkeypatch.setattr(envelope, "PART_BYTES_MAX", 100)
    with pytest.raises(ValueError, match="feed/generated/BTCUSDT"):
        encode_decision([record(T0), record(T0 + 60_000)], epoch=1, seq=1, upto={}, need={})


GARBAGE = {
    "nothing": b"",
    "a tombstone": None,
    "binary": b"\x00\xff\xfe\x80",
    "text": b"hello",
    "a number": b"5",
    "null": b"null",
    "a list": b"[1,2]",
    "an object of somebody else": b'{"hello":"world"}',
    "cut short": encode_append(Append(e=1, epoch=1, seq=1))[:-3],
    "two records in one": encode_append(Append(e=1, epoch=1, seq=1)) * 2,
    "no epoch": b'{"e":1,"seq":1}',
    "text for a number": b'{"e":1,"epoch":"1","seq":1}',
    "version 0": b'{"e":0,"epoch":1,"seq":1}',
    "part 0 of 1": b'{"e":1,"epoch":1,"seq":1,"part":[0,1]}',
    "part 2 of 1": b'{"e":1,"epoch":1,"seq":1,"part":[2,1]}',
    "a version that is no number": b'{"e":"2","epoch":1,"seq":1}',
    "nested too deep": b"[" * 100_000,
    "an object nested too deep": b'{"e":1,"epoch":1,"seq":1,"x":' + b"[" * 100_000,
    "deep and well-formed": b'{"x":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "bytes that are no text": b'{"e":1,"epoch":1,"seq":1,"claim":"\xff"}',
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_garbage_is_skipped_and_the_records_after_it_count(garbage):
    counter = Counter("feeds")
    claim = encode_append(Append(e=1, epoch=1, seq=0, claim="a"))
    (first,) = encode_decision([tick(1)], epoch=1, seq=1, upto={}, need={})
    (second,) = encode_decision([tick(2)], epoch=1, seq=2, upto={}, need={})
    decisions = [counter.read(i, record) for i, record in enumerate([garbage, claim, first, garbage, second])]
    assert [decision.seq for decision in decisions if decision] == [1, 2]
    assert counter.uncounted == 2


def read_one(body: bytes) -> None:
    counter = Counter("inputs", Need(7, 1, 0))
    decision = counter.read(7, body)
    assert decision.seq == 1  # it counts, whatever its content is
    _ = decision.events


def with_events(events: bytes) -> bytes:
    return b'{"e":1,"epoch":1,"seq":1,"events":' + events + b"}"


STOPS = {
    "a newer envelope": (b'{"e":2}', "envelope version 2"),
    "a newer envelope with all the old fields": (
        b'{"e":2,"epoch":1,"seq":1,"events":[]}',
        "envelope version 2",
    ),
    "an unknown kind": (with_events(b'[{"kind":"MoonPhased","v":1,"id":"x"}]'), "MoonPhased"),
    "a newer event": (
        with_events(b'[{"kind":"ClockTicked","id":"tick/1","at":1,"v":2,"data":{"rehearsal":true}}]'),
        "tick/1 is ClockTicked v2",
    ),
    "a version that never was": (
        with_events(b'[{"kind":"ClockTicked","id":"tick/1","at":1,"v":0,"data":{"rehearsal":true}}]'),
        "tick/1",
    ),
    "fields of another event": (
        with_events(b'[{"kind":"ClockTicked","id":"tick/1","at":1,"v":1,"data":{}}]'),
        "tick/1",
    ),
    "an event without a kind": (with_events(b'[{"id":"x"}]'), "without kind"),
    "a number for an event": (with_events(b"[5]"), "without kind"),
    "an object for the list": (with_events(b"{}"), "no list of events"),
    "bytes that are no text": (
        with_events(b'[{"kind":"ClockTicked","id":"\xff","at":1,"v":1,"data":{"rehearsal":true}}]'),
        "no list of events",
    ),
}


@pytest.mark.parametrize(("body", "named"), STOPS.values(), ids=STOPS)
def test_records_that_must_not_be_skipped_stop_the_reader_with_topic_and_offset(body, named):
    with pytest.raises(UnknownEventError, match=named) as stopped:
        read_one(body)
    assert "inputs" in str(stopped.value)
    assert "7" in str(stopped.value)


def test_the_first_unknown_event_is_found_after_known_ones():
    body = with_events(b"[" + encode_event(tick(1)) + b',{"kind":"MoonPhased","v":1,"id":"x"}]')
    with pytest.raises(UnknownEventError, match="MoonPhased"):
        read_one(body)


def test_a_field_added_later_is_ignored_by_this_version():
    """Fields may be added with a default: an older reader of the same event version can read on."""
    (event,) = decode_events(
        b'[{"kind":"ClockTicked","id":"tick/1","at":1,"v":1,"data":{"rehearsal":true,"mood":"calm"}}]'
    )
    assert event == tick(1, rehearsal=True)


# --- plain events: commands and dead letters, written by many ---------------------------------------------

COMMAND = ConfirmCheckpoint(id="c1", at=T0, data=ConfirmCheckpointData(checkpoint_id="ckp_1", tx_hash="1"))
NO_EVENT = {
    "nothing": b"",
    "text": b"please pay",
    "a number": b"5",
    "a list": b"[]",
    "an object": b"{}",
    "no version": b'{"kind":"ConfirmCheckpoint","id":"c1","at":1,"data":{}}',
    "a command without its fields": b'{"kind":"ConfirmCheckpoint","v":1,"id":"c1","at":1,"data":{}}',
    "a command with a number for a text": encode_event(COMMAND).replace(b'"ckp_1"', b"1"),
    "bytes that are no text": encode_event(COMMAND).replace(b"ckp_1", b"\xff"),
    "nested too deep": b"[" * 100_000,
    "a deep command": encode_event(COMMAND)[:-1] + b',"x":' + b"[" * 100_000,
}


@pytest.mark.parametrize("body", NO_EVENT.values(), ids=NO_EVENT)
def test_a_plain_record_that_is_no_event_of_any_version_is_garbage_and_does_not_stop_the_reader(body):
    """Anyone may write there. A record that no version could read must become a dead letter and not stop a worker."""
    with pytest.raises((msgspec.DecodeError, UnicodeDecodeError)):
        decode_event(body)


@pytest.mark.parametrize(
    "body",
    [
        b'{"kind":"PardonCheckpoint","v":1,"id":"c1","at":1,"data":{}}',
        encode_event(COMMAND).replace(b'"v":1', b'"v":2'),
    ],
    ids=["an unknown kind", "a newer version"],
)
def test_a_plain_event_of_a_future_version_is_recognised_and_stops_no_reader_of_outside_records(body):
    with pytest.raises(UnknownEventError, match="c1"):
        decode_event(body)
    with pytest.raises(msgspec.DecodeError, match="upgrade this reader, then send it again"):
        decode_outside(body)


FROM_OUTSIDE = {
    "nothing": None,
    "a time before 1970": encode_event(COMMAND).replace(b'"at":', b'"at":-'),
    "a time beyond all integers": encode_event(COMMAND).replace(b'"at":', b'"at":9' + b"9" * 40),
    "an id of a megabyte": encode_event(COMMAND).replace(b'"id":"', b'"id":"' + b"x" * 1_000_000),
    "a text of seven megabytes": encode_event(COMMAND).replace(b"ckp_1", b"c" * 7_000_000),
    **NO_EVENT,
}


@pytest.mark.parametrize("body", FROM_OUTSIDE.values(), ids=FROM_OUTSIDE)
def test_records_from_outside_are_bounded_and_refused_with_a_reason(body):
    with pytest.raises(msgspec.DecodeError) as refused:
        decode_outside(body)
    assert 0 < len(str(refused.value)) < 1000


def test_a_lone_surrogate_in_any_text_of_an_event_is_written_as_a_question_mark():
    letter = DeadLetteredData(origin="feed \ud800", position="1", reason="\udfff!", sha256="0", head="")
    event = DeadLettered(id="d", at=1, data=letter)
    assert decode_event(encode_event(event)).data.reason == "?!"
    (record,) = encode_decision([event], epoch=1, seq=1, upto={}, need={})
    assert b"feed ?" in record


def test_a_plain_event_is_read_back_as_it_was_written():
    assert decode_event(encode_event(COMMAND)) == COMMAND
