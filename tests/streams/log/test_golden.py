"""Every kind and version of event that was ever written can still be read, to the same bytes.

tests/streams/log/golden has one small file per kind and version, with one event as it is in a topic. A file is written
once (COORDINATOR_WRITE_GOLDEN=1) and never again: it is the promise that stored events stay readable. A new kind or
version without a file fails here.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
from tests.streams.golden_samples import SAMPLES

from coordinator.streams.events import AnyEvent, ClockTickedData, Event
from coordinator.streams.log import envelope
from coordinator.streams.log.envelope import KINDS, VERSIONS, decode_event, decode_events, encode_event
from coordinator.streams.log.errors import UnknownEventError
from coordinator.streams.topology import BIRTH, STREAMS

GOLDEN = Path(__file__).parent / "golden"
SHAPES: dict[str, int] = {
    "ApplyContract.v1": 2,
    "CheckpointOpened.v1": 2,
    "CheckpointWithheld.v1": 2,
    "CrunchConfigured.v1": 2,
    "CorrectCheckpoint.v1": 2,
    "InputReceived.v1": 2,
    "EnsemblesScored.v1": 2,
    "InputResolved.v1": 2,
    "ResolveQuestions.v1": 2,
    "RoundOpened.v1": 2,
    "RoundScored.v1": 2,
    "ScopeAnswered.v1": 2,
    "SnapshotTaken.v1": 3,
}
"""The number of shapes of a version: one more each time that fields with defaults were added. Not listed: one."""
NAMES = [
    f"{kind}.v{version}" + (f".{shape}" if shape > 1 else "")
    for kind in sorted(KINDS)
    for version in range(1, VERSIONS[kind] + 1)
    for shape in range(1, SHAPES.get(f"{kind}.v{version}", 1) + 1)
]


def golden(name: str) -> bytes:
    path = GOLDEN / f"{name}.json"
    if not path.exists() and os.environ.get("COORDINATOR_WRITE_GOLDEN") == "1":
        path.write_bytes(encode_event(SAMPLES[name.split(".", maxsplit=1)[0]]) + b"\n")
    return path.read_bytes().rstrip(b"\n")


@pytest.mark.parametrize("name", NAMES)
def test_an_event_of_every_kind_and_version_can_be_read(name):
    body = golden(name)
    event = decode_event(body)
    assert type(event).__name__ == name.split(".")[0]
    kind, version, *shape = name.split(".")
    if version != f"v{VERSIONS[kind]}":
        return
    again = encode_event(event)
    if (int(shape[0]) if shape else 1) == SHAPES.get(f"{kind}.{version}", 1):
        assert again == body
    else:  # written before fields were added; everything in it is still there
        assert again != body
        assert_within(msgspec.json.decode(body), msgspec.json.decode(again))


def assert_within(old: Any, new: Any) -> None:
    """Every field of `old` is in `new` with its value: fields were only added."""
    if isinstance(old, dict):
        assert old.keys() <= new.keys()
        for key, value in old.items():
            assert_within(value, new[key])
    elif isinstance(old, list):
        assert len(old) == len(new)
        for before, after in zip(old, new, strict=True):
            assert_within(before, after)
    else:
        assert old == new


def test_no_golden_file_was_removed_or_is_left_over():
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(NAMES)


def test_every_kind_is_in_a_topic_and_no_other_kind_is():
    assert {BIRTH, *(kind for stream in STREAMS for kind in stream.events)} == set(KINDS)


def test_every_version_but_the_latest_has_an_upcaster():
    assert {(kind, v) for kind in KINDS for v in range(1, VERSIONS[kind])} == set(envelope.UPCASTERS)


# --- a version 2 that does not exist ---------------------------------------------------------------------


class ClockTicked2(Event, frozen=True, kw_only=True, tag_field="kind", tag="ClockTicked"):
    """A made-up version 2: `rehearsal` became its opposite, `lived`."""

    v: Literal[2] = 2  # type: ignore[assignment]
    data: dict[str, Any]


@pytest.fixture
def version_2(monkeypatch):
    """Tables of a later release in which ClockTicked has a version 2."""
    union: Any = ClockTicked2
    for kind in AnyEvent.__args__:
        if kind.__name__ != "ClockTicked":
            union = union | kind
    monkeypatch.setattr(envelope, "AnyEvent", union)
    monkeypatch.setattr(envelope, "_event_decoder", msgspec.json.Decoder(union))
    monkeypatch.setattr(envelope, "_events_decoder", msgspec.json.Decoder(list[union]))
    monkeypatch.setitem(envelope.VERSIONS, "ClockTicked", 2)
    monkeypatch.setitem(
        envelope.UPCASTERS,
        ("ClockTicked", 1),
        lambda event: event | {"v": 2, "data": {"lived": not event["data"]["rehearsal"]}},
    )


def test_an_old_event_is_upcast_to_the_latest_version(version_2):
    event = decode_event(golden("ClockTicked.v1"))
    assert isinstance(event, ClockTicked2)
    assert (event.v, event.data) == (2, {"lived": not SAMPLES["ClockTicked"].data.rehearsal})
    assert (event.id, event.at) == (SAMPLES["ClockTicked"].id, SAMPLES["ClockTicked"].at)


def test_old_and_new_versions_can_be_in_one_append(version_2):
    new = ClockTicked2(id="tick/9", at=9, data={"lived": True})
    body = (
        b"[" + b",".join([golden("ClockTicked.v1"), golden("InputReceived.v1.2"), encode_event(new)]) + b"]"
    )
    first, second, third = decode_events(body)
    assert isinstance(first, ClockTicked2)
    assert encode_event(second) == golden("InputReceived.v1.2")
    assert third == new


def test_an_event_with_raw_json_can_be_upcast_too(monkeypatch):
    """An input's payload is raw JSON. An upcaster must not lose it or its digits."""
    monkeypatch.setitem(envelope.VERSIONS, "InputReceived", 1)
    monkeypatch.setitem(envelope.UPCASTERS, ("InputReceived", 0), lambda event: event | {"v": 1})
    old = golden("InputReceived.v1.2").replace(b'"v":1', b'"v":0')
    assert encode_event(decode_event(old)) == golden("InputReceived.v1.2")


def test_version_2_is_refused_by_this_release():
    body = encode_event(ClockTicked2(id="tick/9", at=9, data={"lived": True}))
    with pytest.raises(UnknownEventError, match="tick/9 is ClockTicked v2, newer than v1"):
        decode_event(body)


def test_the_samples_leave_no_field_at_its_default():
    """A golden file with defaults alone would not show a renamed field."""
    for kind, event in SAMPLES.items():
        data = type(event.data)
        for field in msgspec.structs.fields(data):
            if field.default is not msgspec.NODEFAULT:
                assert getattr(event.data, field.name) != field.default, f"{kind}.{field.name}"


def test_there_is_a_sample_of_each_kind():
    assert set(SAMPLES) == set(KINDS)
    assert isinstance(SAMPLES["ClockTicked"].data, ClockTickedData)
