"""Reading single decisions by their offsets: which records are requested together, and the parts of a large decision."""

from __future__ import annotations

import socket

import pytest

from coordinator.infra.log import appends as appends_module
from coordinator.infra.log.appends import KafkaAppends, decision_at, runs_of, waves_of
from coordinator.streams import events as ev
from coordinator.streams.log.envelope import PART_BYTES_MAX, Append, decode_append, encode_decision
from coordinator.streams.log.errors import TruncatedTopicError, WorldError


def letters(n, size):
    data = {
        "source": "s",
        "subject": "S",
        "kind": "tick",
        "granularity": "tick",
        "values": {"price": "1" * size},
    }
    return [
        ev.FeedRecordReceived(id=f"e{i}", at=i, data=ev.FeedRecordData(ts_event=i, **data)) for i in range(n)
    ]


def appends(events, epoch=1, seq=7):
    records = encode_decision(events, epoch=epoch, seq=seq, upto={"commands": (3, 0)}, need={})
    return [decode_append(record) for record in records]


def test_near_offsets_are_one_run_and_each_wave_has_one_run_of_a_topic():
    assert runs_of([30, 3, 1, 3, 40]) == [[1, 3], [30], [40]]
    assert waves_of({"a": [1, 2, 90], "b": [5], "c": []}) == [{"a": [1, 2], "b": [5]}, {"a": [90]}]


def test_a_decision_of_one_record():
    (append,) = appends(letters(2, 5))
    decision = decision_at("feeds", 12, {12: append})
    assert [event.id for event in decision.events] == ["e0", "e1"]
    assert (decision.first_offset, decision.offset, decision.upto) == (12, 12, {"commands": (3, 0)})


def test_the_parts_of_a_large_decision_are_joined_whatever_is_between_them():
    events = letters(3, PART_BYTES_MAX // 2)
    first, *_, last = parts = appends(events)
    assert len(parts) > 1
    other_owner, claim = appends(events, epoch=0)[0], Append(e=1, epoch=1, seq=0, claim="x")
    between = {10: first, 11: other_owner, 12: claim}
    placed = between | {13 + i: part for i, part in enumerate(parts[1:])}
    decision = decision_at("feeds", max(placed), placed)
    assert [event.id for event in decision.events] == ["e0", "e1", "e2"]
    assert decision.first_offset == 10
    del placed[10]
    with pytest.raises(TruncatedTopicError, match="parts of its decision are missing"):
        decision_at("feeds", max(placed), placed)
    assert last.part[0] == len(parts)


def test_an_offset_without_an_append_is_reported():
    with pytest.raises(TruncatedTopicError, match="feeds offset 4 does not hold an append any more"):
        decision_at("feeds", 4, {})


def test_a_broker_that_accepts_a_connection_and_does_not_answer_is_named_with_the_error(monkeypatch):
    """A timeout has no text of its own, so the message used to end with a colon."""
    monkeypatch.setattr(appends_module, "READ_SECONDS_MAX", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        read = KafkaAppends(f"127.0.0.1:{silent.getsockname()[1]}", "crunch")
        with pytest.raises(WorldError, match=r"does not answer: TimeoutError$"):
            read({"feeds": [0]})
