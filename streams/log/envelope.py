"""The envelope: what one Kafka record holds, and how it is encoded.

A record holds one append: the events of one decision, one part of a large decision, a claim, or a recorded state.
`commands` and `dead-letters` have many writers; their records are plain events without an envelope.

Reading a record has three outcomes. Bytes that no version of this format could have written are `None`, and every
reader skips them. An envelope with an unknown kind or a newer version raises UnknownEventError, because skipping it
would make a replay differ from the live run. Anything else is an `Append` or an event.

Topics that anybody may write to are read with `decode_outside`: no record there stops a reader.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import msgspec

from coordinator.streams.events import (
    AnyEvent,
    ApplyContract,
    CorrectCheckpoint,
    Event,
    PostQuestions,
    PostStakes,
    RecordFeed,
    ResolveQuestions,
    SubmitAnswers,
)
from coordinator.streams.log.errors import UNREADABLE_JSON, UnknownEventError
from coordinator.streams.log.reasons import as_reason

ENVELOPE_VERSION = 1
MESSAGE_BYTES_MAX = 8 * 1024 * 1024
PART_BYTES_MAX = MESSAGE_BYTES_MAX // 4
EVENT_PARTS_MAX = 3
HEAD_CHARS = 1000
OUTSIDE_BYTES_MAX = 64 * 1024
"""The size of a command or a dead letter, apart from LARGE_COMMANDS."""
LARGE_COMMANDS = (
    ApplyContract,
    CorrectCheckpoint,
    RecordFeed,
    PostQuestions,
    ResolveQuestions,
    PostStakes,
    SubmitAnswers,
)
"""They bring archives or tables, and may fill a Kafka record. The stages that decide them say how much they take."""
OUTSIDE_ID_CHARS_MAX = 200
OUTSIDE_AT_MS_MAX = 253_402_300_799_000  # 9999-12-31T23:59:59Z

Position = tuple[int, int]
"""(offset of a decision's last part, index of an event in it). In `upto`: everything at or before it is decided."""


class Need(msgspec.Struct, frozen=True, array_like=True):
    """Where a reader of a topic resumes: the next offset, with the `epoch` and `seq` that the counting rule has there.

    As a stage's need, it is the first position of a source that the stage's state depends on.
    """

    offset: int = 0
    epoch: int = 0
    seq: int = 0


class Recorded(msgspec.Struct, frozen=True):
    """A stage's state as its own events make it, just after the decision that ends at `after`.

    Its writer has seen that decision count, so the state is true wherever its record is, also after another owner's
    claim. `form` names the state's fields and their meaning; `own` is one part of its JSON.
    """

    form: str
    after: Need
    own: msgspec.Raw


class Append(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One record. `events` stays raw, because most readers need only the other fields.

    `part` (k, n) is the k-th of n parts. `claim` is the owner's name in a claim, in which `seq` is 0 and there are no
    events. An append with a `state` has no events, either: the counting rule skips it, and a new owner begins there.
    """

    e: int  # envelope version
    epoch: int
    seq: int
    state: Recorded | None = None
    part: tuple[int, int] = (1, 1)
    upto: dict[str, Position] = {}
    need: dict[str, Need] = {}
    claim: str = ""
    events: msgspec.Raw = msgspec.Raw(b"[]")


class _Probe(msgspec.Struct):
    """The fields that tell an event's kind and version, for events that the decoder refused."""

    kind: str
    v: int
    id: str = ""


E = TypeVar("E", bound=Event)

_append_decoder = msgspec.json.Decoder(Append)
_events_decoder = msgspec.json.Decoder(list[AnyEvent])
_event_decoder: msgspec.json.Decoder[AnyEvent] = msgspec.json.Decoder(AnyEvent)
_raws_decoder = msgspec.json.Decoder(list[msgspec.Raw])
_probe_decoder = msgspec.json.Decoder(_Probe)
_encoder = msgspec.json.Encoder()

KINDS: dict[str, type[Event]] = {cls.__name__: cls for cls in AnyEvent.__args__}
VERSIONS: dict[str, int] = dict.fromkeys(KINDS, 1)
"""The newest version of each kind that this code can read."""

Upcaster = Callable[[dict[str, Any]], dict[str, Any]]
UPCASTERS: dict[tuple[str, int], Upcaster] = {}
"""(kind, version) -> a function from the event as a dict to a dict of the next version."""


def encode_event(event: Event) -> bytes:
    """The JSON of one event, with its fields in the order of their declaration: equal events have equal bytes."""
    try:
        return _encoder.encode(event)
    except UnicodeEncodeError:
        return _encoder.encode(_writable(event))


def _writable(value: Any) -> Any:
    """`value` with a question mark in place of each lone surrogate in its texts.

    JSON writers refuse lone surrogates, and an event that cannot be written would stop its stage.
    """
    if isinstance(value, str):
        return as_reason(value, len(value))
    if isinstance(value, msgspec.Struct):
        fields = {name: _writable(getattr(value, name)) for name in value.__struct_fields__}
        return type(value)(**fields)
    if isinstance(value, dict):
        return {_writable(key): _writable(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_writable(inner) for inner in value)
    return value


def encode_append(append: Append) -> bytes:
    """The JSON of one append."""
    return _encoder.encode(append)


def encode_decision(
    events: Sequence[Event], *, epoch: int, seq: int, upto: dict[str, Position], need: dict[str, Need]
) -> list[bytes]:
    """The records of one decision: a single one, or parts 1..n of at most PART_BYTES_MAX each.

    An event is never cut: a larger event (a checkpoint of thousands of models) is a part by itself. Where a decision is
    cut depends only on its content, so a decision that is made twice is cut in the same places. Raises ValueError for
    an event larger than EVENT_PARTS_MAX parts, which no record can hold.
    """
    return encode_parts(parts_of(events)[1], epoch=epoch, seq=seq, upto=upto, need=need)


def parts_of(events: Sequence[E]) -> tuple[Sequence[E], list[bytes]]:
    """(the events as they are written, the JSON of each part of them); see `encode_decision`."""
    events, body = encode_events(events)
    return events, [body] if len(body) <= PART_BYTES_MAX else _cut(events)


def encode_events(events: Sequence[E]) -> tuple[Sequence[E], bytes]:
    """(the events as they are written, the JSON of their list)."""
    try:
        return events, _encoder.encode(events)
    except UnicodeEncodeError:
        events = _writable(list(events))
        return events, _encoder.encode(events)


def encode_parts(
    bodies: Sequence[bytes], *, epoch: int, seq: int, upto: dict[str, Position], need: dict[str, Need]
) -> list[bytes]:
    """The records of one decision whose parts are written already."""
    n = len(bodies)
    return [
        encode_append(
            Append(
                e=ENVELOPE_VERSION,
                epoch=epoch,
                seq=seq,
                part=(k, n),
                upto=upto,
                need=need,
                events=msgspec.Raw(body),
            )
        )
        for k, body in enumerate(bodies, start=1)
    ]


def _cut(events: Sequence[Event]) -> list[bytes]:
    groups: list[list[bytes]] = [[]]
    size = 0
    for event in events:
        encoded = _encoder.encode(event)
        if len(encoded) > EVENT_PARTS_MAX * PART_BYTES_MAX:
            limit = EVENT_PARTS_MAX * PART_BYTES_MAX
            message = f"event {event.id} has {len(encoded)} bytes, more than a record may hold ({limit})"
            raise ValueError(message)
        if size + len(encoded) + 1 > PART_BYTES_MAX and groups[-1]:
            groups.append([])
            size = 0
        groups[-1].append(encoded)
        size += len(encoded) + 1
    return [b"[" + b",".join(group) + b"]" for group in groups]


def decode_append(record: bytes | None) -> Append | None:
    """The append in a record, or None for bytes that no version could have written.

    Raises UnknownEventError for an envelope of a newer version.
    """
    if record is None:
        return None
    try:
        append = _append_decoder.decode(record)
    except UNREADABLE_JSON:
        _refuse_newer_envelope(record)
        return None
    if append.e > ENVELOPE_VERSION:
        _refuse_newer_envelope(record)
    k, n = append.part
    return append if 1 <= k <= n and append.e >= 1 else None


def _refuse_newer_envelope(record: bytes) -> None:
    try:
        version = msgspec.json.decode(record).get("e")
    except (*UNREADABLE_JSON, AttributeError):
        return
    if isinstance(version, int) and version > ENVELOPE_VERSION:
        message = f"envelope version {version} is newer than {ENVELOPE_VERSION}: upgrade this reader"
        raise UnknownEventError(message)


def decode_events(raw: msgspec.Raw | bytes) -> list[AnyEvent]:
    """The events of an append. Raises UnknownEventError for an unknown kind, a newer version, or bytes without events.

    The append counted, so a node of this crunch wrote it, and nothing in it may be skipped: a replay would differ from
    the live run.
    """
    try:
        return _events_decoder.decode(raw)
    except msgspec.ValidationError:
        pass  # one of them is unknown, newer or older: decode them one by one
    except UNREADABLE_JSON as error:
        message = f"no list of events: {error}"
        raise UnknownEventError(message) from error
    try:
        raws = _raws_decoder.decode(raw)
    except UNREADABLE_JSON as error:
        message = f"no list of events: {error}"
        raise UnknownEventError(message) from error
    try:
        return [_lift(raw_event) for raw_event in raws]
    except UNREADABLE_JSON as error:
        raise UnknownEventError(str(error)) from error


def decode_event(record: bytes) -> AnyEvent:
    """One plain event, as in `commands` and `dead-letters`, which have many writers.

    Raises UnknownEventError for an unknown kind or a newer version; msgspec.DecodeError for bytes that no version has
    written, also for a known kind without its fields: such garbage from outside must not stop a reader.
    """
    try:
        try:
            return _event_decoder.decode(record)
        except msgspec.ValidationError:
            return _lift(msgspec.Raw(record))
    except (UnicodeDecodeError, RecursionError) as error:
        message = f"not readable: {error}"
        raise msgspec.DecodeError(message) from error


def decode_outside(record: bytes | None) -> AnyEvent:
    """One event of a topic that anybody may write to.

    Raises msgspec.DecodeError, with the reason as its text, for everything that this version cannot take: no event, an
    unknown kind, a newer version, an impossible time, an id or a record that is too long. Every reader skips such a
    record, so that no record from outside stops a reader. An event that only a newer version knows must be sent again
    after the upgrade.
    """
    body = record or b""
    try:
        event = decode_event(body)
    except UnknownEventError as error:
        message = f"{str(error)[:400]}, then send it again"
        raise msgspec.DecodeError(message) from error
    if len(body) > OUTSIDE_BYTES_MAX and not isinstance(event, LARGE_COMMANDS):
        message = f"{len(body)} bytes, more than a record of this kind may have ({OUTSIDE_BYTES_MAX})"
        raise msgspec.DecodeError(message)
    if len(event.id) > OUTSIDE_ID_CHARS_MAX:
        message = f"an id of {len(event.id)} characters, more than {OUTSIDE_ID_CHARS_MAX}"
        raise msgspec.DecodeError(message)
    if not 0 <= event.at <= OUTSIDE_AT_MS_MAX:
        message = "`at` is not a time between 1970 and 9999"
        raise msgspec.DecodeError(message)
    return event


def may_hold(body: bytes, *names: str) -> bool:
    """Whether JSON may hold one of these names as a text, by its bytes: decoding takes twenty times longer.

    JSON may write any letter as an escape. A node writes so only control characters, which are rare: a body with such
    an escape may hold anything.
    """
    return any(f'"{name}"'.encode() in body for name in names) or b"\\u" in body


@contextmanager
def record_named(topic: str, offset: int) -> Iterator[None]:
    """Put topic and offset before the text of an UnknownEventError, so that the record can be found."""
    try:
        yield
    except UnknownEventError as error:
        message = f"{topic} offset {offset}: {error}"
        raise UnknownEventError(message) from error


def _lift(raw: msgspec.Raw) -> AnyEvent:
    """Decode an event that the decoder refused, after converting it to its newest version.

    Raises UnknownEventError for an event that a later version may know, msgspec.ValidationError for one that none can.
    """
    try:
        probe = _probe_decoder.decode(raw)
    except msgspec.ValidationError as error:
        message = (
            "an event without kind or version"  # it may hold an answer, which a letter or a log must not tell
        )
        raise msgspec.ValidationError(message) from error
    newest = VERSIONS.get(probe.kind)
    if newest is None:
        message = f"event {probe.id} has the unknown kind {probe.kind}: upgrade this reader"
        raise UnknownEventError(message)
    if probe.v > newest:
        message = f"event {probe.id} is {probe.kind} v{probe.v}, newer than v{newest}: upgrade this reader"
        raise UnknownEventError(message)
    try:
        return _event_decoder.decode(raw if probe.v == newest else _upcast(raw, probe, newest))
    except msgspec.ValidationError as error:
        message = (
            f"event {probe.id} ({probe.kind} v{probe.v}) does not have the fields of its version: {error}"
        )
        raise msgspec.ValidationError(message) from error


def _upcast(raw: msgspec.Raw, probe: _Probe, newest: int) -> bytes:
    """The JSON of an older event, converted to the newest version. As JSON, because a field may hold raw JSON."""
    fields: dict[str, Any] = msgspec.json.decode(raw)
    for version in range(probe.v, newest):
        upcaster = UPCASTERS.get((probe.kind, version))
        if upcaster is None:
            message = f"there never was a version {version}"
            raise msgspec.ValidationError(message)
        fields = upcaster(fields)
    return _encoder.encode(fields)
