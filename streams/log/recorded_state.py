"""A stage's state recorded in its own topic, so that a new owner need not read the topic from its first record.

Now and then an owner appends the part of the state that follows from its own events (`own`), with the position after
the decision that it belongs to. Such an append does not count. A recorded state can be computed again from the events
before it, and a check of the log does so (`StateCheck`). A new owner finds the newest recorded state from the end of
its topic, takes it over, and reads on from its position.

The writer first waits until it has read that decision back and counted it. So a recorded state stays valid for good,
even if its record comes after a successor's claim, and its reader knows the epoch and the number to continue counting
from. What follows from the sources is not recorded: it is read again from `need`, which moves on with the decisions.

Pure: bytes in, bytes out.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from coordinator.streams.log.counting import Counter, Decision
from coordinator.streams.log.envelope import (
    ENVELOPE_VERSION,
    PART_BYTES_MAX,
    Append,
    Need,
    Position,
    Recorded,
    decode_append,
    encode_append,
)
from coordinator.streams.log.errors import LogError
from coordinator.streams.log.stage import AnyStage

EVERY_BYTES_MIN = 1 << 20
EVERY_STATES = 20
"""A state is recorded once the decisions since the last have this many times its bytes: 5 % of a topic are states."""
OFTEN_BYTES = 3000
"""The bytes of decisions between two states where they are recorded often."""
WAITING_MAX = 2_000
"""The most decisions between a decision and the record of its state: some hundreds are in flight or unread."""
_HEAD_BYTES = 100
_shape_hashes: dict[type, str] = {}
"""Type of `own` -> the hash of its shape. To look at every annotation again costs milliseconds a stage."""
_encode = msgspec.json.Encoder().encode
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class WrongStateError(LogError):
    """A recorded state disagrees with the events before it."""


class StateFound(msgspec.Struct, frozen=True):
    """A complete recorded state. `upto` and `need` are the stage's as of `after`; `joined(parts)` is its JSON."""

    after: Need
    upto: Mapping[str, Position]
    need: Mapping[str, Need]
    parts: tuple[bytes, ...]
    form: str = ""
    """As the record names it; "" for a state that was handed over and not read from a topic."""


def is_due(bytes_since: int, state_bytes: int, *, often: bool = False) -> bool:
    """Whether the next state is due, given the bytes of decisions since the last state and that state's bytes."""
    if often:
        return bytes_since >= OFTEN_BYTES
    return bytes_since >= max(EVERY_BYTES_MIN, EVERY_STATES * state_bytes)


def form_of(stage: AnyStage) -> str:
    """Names the fields of a stage's state and their meaning. A recorded state of another form is not read."""
    own = type(stage.state.own)
    if own not in _shape_hashes:
        shape = _shape(msgspec.inspect.type_info(own), set())
        _shape_hashes[own] = hashlib.sha256(shape.encode()).hexdigest()[:12]
    return f"{stage.form}-{_shape_hashes[own]}"


def _shape(described: object, seen: set[str]) -> str:
    """A type as text: the names and types of its fields, recursively. Without defaults, which change no state."""
    if isinstance(described, (msgspec.inspect.StructType, msgspec.inspect.NamedTupleType)):
        name = described.cls.__name__
        if name in seen:
            return name
        seen.add(name)
        fields = (f"{field.encode_name}:{_shape(field.type, seen)}" for field in described.fields)
        return f"{name}({','.join(fields)})"
    if isinstance(described, tuple):
        return ",".join(_shape(inner, seen) for inner in described)
    names = ("item_type", "item_types", "key_type", "value_type", "types", "values")
    parts = (_shape(getattr(described, name), seen) for name in names if hasattr(described, name))
    return (
        f"{type(described).__name__}[{';'.join(parts)}]"
        if not isinstance(described, (str, int))
        else str(described)
    )


def parts_of(own: msgspec.Struct) -> tuple[bytes, ...]:
    """The state as JSON objects of at most PART_BYTES_MAX each, or larger if a single entry of a field is.

    A field that does not fit is cut into several parts; `joined` puts them together again.
    """
    whole = _encode(own)
    if len(whole) <= PART_BYTES_MAX:
        return (whole,)
    parts: list[bytes] = []
    for name, raw in _fields(whole).items():
        value, key = getattr(own, name), _encode(name)
        if isinstance(value, dict):
            entries: Iterable[bytes] = (_encode({k: v})[1:-1] for k, v in value.items())
        elif isinstance(value, list):
            entries = (_encode(item) for item in value)
        else:
            parts.append(b"{%b:%b}" % (key, bytes(raw)))
            continue
        opening, closing = (b"{", b"}") if isinstance(value, dict) else (b"[", b"]")
        parts += [b"{%b:%b%b%b}" % (key, opening, b",".join(group), closing) for group in _in_groups(entries)]
    return tuple(parts)


def _in_groups(entries: Iterable[bytes]) -> Iterable[list[bytes]]:
    group: list[bytes] = []
    size = 0
    for entry in entries:
        if group and size + len(entry) > PART_BYTES_MAX:
            yield group
            group, size = [], 0
        group.append(entry)
        size += len(entry) + 1
    yield group


def joined(parts: Iterable[bytes]) -> bytes:
    """The state's JSON, from its parts."""
    fields: dict[str, list[bytes]] = {}
    for part in parts:
        for name, raw in _fields(part).items():
            fields.setdefault(name, []).append(bytes(raw))
    texts: list[bytes] = []
    for name, raws in fields.items():
        text = raws[0]
        if len(raws) > 1:
            inner = b",".join(raw[1:-1] for raw in raws if len(raw) > 2)  # noqa: PLR2004 - "{}" and "[]" add nothing
            text = text[:1] + inner + text[-1:]
        texts.append(b"%b:%b" % (_encode(name), text))
    return b"{%b}" % b",".join(texts)


def records_of(
    form: str,
    parts: tuple[bytes, ...],
    *,
    epoch: int,
    after: Need,
    upto: Mapping[str, Position],
    need: Mapping[str, Need],
) -> list[bytes]:
    """The records of a state. `after` is the reader's position just after the decision that the state belongs to."""
    return [
        encode_append(
            Append(
                e=ENVELOPE_VERSION,
                epoch=epoch,
                seq=after.seq,
                state=Recorded(form, after, msgspec.Raw(own)),
                part=(k, len(parts)),
                upto=dict(upto),
                need=dict(need),
            )
        )
        for k, own in enumerate(parts, start=1)
    ]


def take(stage: AnyStage, recorded: StateFound) -> None:
    """Give a new stage the state that its own events up to there would have made."""
    stage.state.own = msgspec.json.decode(joined(recorded.parts), type=type(stage.state.own))
    stage.state.upto.update(recorded.upto)
    stage.state.need.update(recorded.need)


class _StateToRecord(NamedTuple):
    """A stage's state just after its decision `seq`, which was not read back yet."""

    seq: int
    parts: tuple[bytes, ...]
    upto: dict[str, Position]
    need: dict[str, Need]


class StateRecorder:
    """Chooses the decisions of an owner after which the stage's state is recorded, and makes these records."""

    def __init__(self, stage: AnyStage, *, often: bool = False) -> None:
        self.form = form_of(stage)
        self._stage = stage
        self._often = often
        self._bytes_since = self._state_bytes = 0
        """The bytes of the decisions since the last state that is recorded or will be, and of that state."""
        self._due: _StateToRecord | None = None  # to be recorded once its decision is read back

    def take(self, recorded: StateFound) -> None:
        """Begin with this recorded state."""
        take(self._stage, recorded)
        self._state_bytes = sum(map(len, recorded.parts))

    def note(self, size: int) -> None:
        """Note a decision of this many bytes that was read on resume."""
        self._bytes_since += size

    def made(self, seq: int, size: int) -> None:
        """Note a new decision of this many bytes. Called when the stage's state is the one just after it."""
        self._bytes_since += size
        if self._due is None and is_due(self._bytes_since, self._state_bytes, often=self._often):
            stage = self._stage
            parts = parts_of(stage.state.own)
            self._due = _StateToRecord(seq, parts, dict(stage.upto), dict(stage.need))
            self._bytes_since, self._state_bytes = 0, sum(map(len, parts))

    def records_after(self, after: Need, epoch: int) -> list[bytes]:
        """The records of the state after the decision `after.seq`, which was counted; empty if none is due."""
        state = self._due
        if state is None or state.seq != after.seq:
            return []
        self._due = None
        return records_of(self.form, state.parts, epoch=epoch, after=after, upto=state.upto, need=state.need)


class StatesRead:
    """Collects the parts of recorded states from records, in any order; `newest` is the last complete state."""

    def __init__(self, form: str | None = None) -> None:
        """`form`: read only states of this form; None: of any."""
        self._form = form
        self._parts: dict[tuple[Need, int], dict[int, Append]] = {}
        self.newest: StateFound | None = None
        self.others = False
        """Whether a state of another form was read."""

    def read(self, record: bytes | None) -> StateFound | None:
        """The state that this record completes, or None."""
        if record is None or b'"state":' not in record[:_HEAD_BYTES]:
            return None
        append = decode_append(record)
        if append is None or append.state is None:
            return None
        if self._form not in (None, append.state.form):
            self.others = True
            return None
        k, n = append.part
        parts = self._parts.setdefault((append.state.after, n), {})
        parts[k] = append
        if len(parts) < n:
            return None
        del self._parts[append.state.after, n]
        raws = tuple(bytes(parts[i].state.own) for i in range(1, n + 1))  # type: ignore[union-attr]
        state = StateFound(append.state.after, append.upto, append.need, raws, append.state.form)
        if self.newest is None or state.after.offset > self.newest.after.offset:
            self.newest = state
        return state


class StateCheck:
    """Reads a stage's topic from its first record, folds its events, and compares the recorded states with the result.

    A state is recorded some decisions after the one that it belongs to. So decisions wait here, at most WAITING_MAX,
    until a state arrives. A state of another form is not compared.
    """

    def __init__(self, stage: AnyStage) -> None:
        self._stage = stage
        self._counter = Counter(stage.topic)
        self._states = StatesRead(form_of(stage))
        self._waiting: deque[Decision] = deque()
        self._folded = Need()
        """The reader's position after the last decision that was folded."""
        self.checked = 0
        """How many states agreed with the events before them."""

    def read(self, offset: int, record: bytes | None) -> None:
        """Take the next record. Raises WrongStateError naming topic and offset."""
        decision = self._counter.read(offset, record)
        if decision is not None:
            self._waiting.append(decision)
        recorded = self._states.read(record)
        while self._waiting and (
            len(self._waiting) > WAITING_MAX
            or (recorded is not None and self._waiting[0].seq <= recorded.after.seq)
        ):
            self._folded = self._waiting[0].after()
            self._stage.remember(self._waiting.popleft())
        # If the state came so late that decisions after its own are folded already, it cannot be compared.
        if recorded is not None and recorded.after.seq >= self._folded.seq:
            self._compare(recorded, f"{self._stage.topic} offset {offset}")

    def _compare(self, recorded: StateFound, place: str) -> None:
        if recorded.after != self._folded:
            message = f"{place}: the recorded state is of {recorded.after}, but before it is {self._folded}"
            raise WrongStateError(message)
        recorded_fields, folded_fields = (
            _fields(joined(recorded.parts)),
            _fields(_encode(self._stage.state.own)),
        )
        if names := [
            name
            for name, folded in folded_fields.items()
            if bytes(recorded_fields.get(name, b"")) != bytes(folded)
        ]:
            message = f"{place}: the recorded state is not what the events before it make: {', '.join(names)}"
            raise WrongStateError(message)
        if (dict(recorded.upto), dict(recorded.need)) != (self._stage.upto, self._stage.need):
            message = (
                f"{place}: the recorded state says it is made of {recorded.upto}, not of {self._stage.upto}"
            )
            raise WrongStateError(message)
        self.checked += 1
