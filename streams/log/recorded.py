"""A stage's state in its own topic, so that a new owner need not read the topic from its first record.

Now and then an owner writes down what its own events have made of the state (`own`), as an append that nobody counts:
the state, and the position behind the decision it is of. It can be computed again from the events before it, and
whoever checks a log does so (`StateCheck`). A new owner finds the newest from the end of its topic, takes it as its
own, and reads on from its position.

The writer waits until it has read that decision back and counted it. So what a recorded state says is true for ever,
even if the record itself comes behind a successor's claim, and the reader knows the owner and the number to count on
from. What follows from the sources is not recorded: it is read again from `need`, which moves with the decisions.

Pure: bytes in, bytes out.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Mapping

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
"""A state is recorded once the decisions since the last have this many times its bytes: five per cent of a topic."""
WAITING_MAX = 2_000
"""Decisions between one and the state that is recorded of it, at most: some hundreds are in flight or unread."""
_HEAD_BYTES = 100
_encode = msgspec.json.Encoder().encode
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class WrongStateError(LogError):
    """A recorded state is not what the events before it make."""


class StateFound(msgspec.Struct, frozen=True):
    """A recorded state, whole. `upto` and `need` are the stage's, as of `after`."""

    after: Need
    upto: Mapping[str, Position]
    need: Mapping[str, Need]
    parts: tuple[bytes, ...]
    form: str = ""
    """As the record names it; "" for a state that was handed over and not read from a topic."""


def is_due(bytes_since: int, state_bytes: int) -> bool:
    """Is it time, so many bytes of decisions after a state of so many?"""
    return bytes_since >= max(EVERY_BYTES_MIN, EVERY_STATES * state_bytes)


def form_of(stage: AnyStage) -> str:
    """Names the state's fields and what they mean: another form is not read, and the topic is read from the first."""
    shape = _shape(msgspec.inspect.type_info(type(stage.state.own)), set())
    return f"{stage.form}-{hashlib.sha256(shape.encode()).hexdigest()[:12]}"


def _shape(described: object, seen: set[str]) -> str:
    """A type in words: names and types of fields, and of theirs. Not their defaults: they change no state."""
    if isinstance(described, (msgspec.inspect.StructType, msgspec.inspect.NamedTupleType)):
        name = described.cls.__name__
        if name in seen:
            return name
        seen.add(name)
        fields = (f"{field.encode_name}:{_shape(field.type, seen)}" for field in described.fields)
        return f"{name}({','.join(fields)})"
    if isinstance(described, tuple):
        return ",".join(_shape(one, seen) for one in described)
    names = ("item_type", "item_types", "key_type", "value_type", "types", "values")
    parts = (_shape(getattr(described, name), seen) for name in names if hasattr(described, name))
    return (
        f"{type(described).__name__}[{';'.join(parts)}]"
        if not isinstance(described, (str, int))
        else str(described)
    )


def parts_of(own: msgspec.Struct) -> tuple[bytes, ...]:
    """The state as JSON objects of at most PART_BYTES_MAX each, unless one entry of a field alone is larger.

    The fields of all of them together, joined where one is cut into several, are the state.
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
            entries = (_encode(one) for one in value)
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
    """The state's JSON, of its parts."""
    fields: dict[str, list[bytes]] = {}
    for part in parts:
        for name, raw in _fields(part).items():
            fields.setdefault(name, []).append(bytes(raw))
    texts: list[bytes] = []
    for name, raws in fields.items():
        text = raws[0]
        if len(raws) > 1:
            inner = b",".join(one[1:-1] for one in raws if len(one) > 2)  # noqa: PLR2004 - "{}" and "[]" add nothing
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
    """The records that say so. `after` is the reader's state just behind the decision."""
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


def take(stage: AnyStage, found: StateFound) -> None:
    """Make a new stage what its own events up to there would have made it."""
    stage.state.own = msgspec.json.decode(joined(found.parts), type=type(stage.state.own))
    stage.state.upto.update(found.upto)
    stage.state.need.update(found.need)


class StatesRead:
    """Gathers the parts of recorded states from records, in any order; `newest` is the last whole one."""

    def __init__(self, form: str | None = None) -> None:
        """Of this form; None: of any."""
        self._form = form
        self._parts: dict[tuple[Need, int], dict[int, Append]] = {}
        self.newest: StateFound | None = None
        self.others = False
        """Was there one of another form?"""

    def read(self, record: bytes | None) -> StateFound | None:
        """The state that this record completes, if any."""
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
        found = StateFound(append.state.after, append.upto, append.need, raws, append.state.form)
        if self.newest is None or found.after.offset > self.newest.after.offset:
            self.newest = found
        return found


class StateCheck:
    """Reads a stage's topic from its first record, and folds it beside what is recorded of it.

    A state comes a little behind the decision it is of: decisions wait here until one does, at most WAITING_MAX. A
    state of another form is not compared.
    """

    def __init__(self, stage: AnyStage) -> None:
        self._stage = stage
        self._counter = Counter(stage.topic)
        self._states = StatesRead(form_of(stage))
        self._waiting: deque[Decision] = deque()
        self._folded = Need()
        """The reader's state behind the last decision that was folded."""
        self.checked = 0
        """How many states were what the events before them make."""

    def read(self, offset: int, record: bytes | None) -> None:
        """The next record. Raises WrongStateError naming topic and offset."""
        decision = self._counter.read(offset, record)
        if decision is not None:
            self._waiting.append(decision)
        found = self._states.read(record)
        while self._waiting and (
            len(self._waiting) > WAITING_MAX
            or (found is not None and self._waiting[0].seq <= found.after.seq)
        ):
            self._folded = self._waiting[0].after()
            self._stage.remember(self._waiting.popleft())
        # One that came so late that its decision did not wait any more cannot be compared.
        if found is not None and found.after.seq >= self._folded.seq:
            self._compare(found, f"{self._stage.topic} offset {offset}")

    def _compare(self, found: StateFound, place: str) -> None:
        if found.after != self._folded:
            message = f"{place}: the recorded state is of {found.after}, and before it stands {self._folded}"
            raise WrongStateError(message)
        said, made = _fields(joined(found.parts)), _fields(_encode(self._stage.state.own))
        if names := [name for name in made if bytes(said.get(name, b"")) != bytes(made[name])]:
            message = f"{place}: the recorded state is not what the events before it make: {', '.join(names)}"
            raise WrongStateError(message)
        if (dict(found.upto), dict(found.need)) != (self._stage.upto, self._stage.need):
            message = (
                f"{place}: the recorded state says it is made of {found.upto}, not of {self._stage.upto}"
            )
            raise WrongStateError(message)
        self.checked += 1
