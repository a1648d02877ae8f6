"""The base of every projection: it folds counted decisions into rows, and answers questions from them.

Each topic writes keys of its own; rows of several topics are joined when a question is asked. So the order in which
topics are read does not matter: any interleaving gives byte-equal rows. A fold calls no contract, no clock and no
randomness. It reads each event once, and writes a row per round, not per event.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import insort
from collections.abc import Mapping
from operator import itemgetter
from typing import Any, ClassVar

import msgspec
import structlog

from coordinator.projections.storage.batch import Batch
from coordinator.projections.storage.past_cut import Horizon
from coordinator.projections.storage.store import Store
from coordinator.streams.contract.comparable_terms import (
    adds_up,
    comparable_since,
    holds_past,
    score_alike,
    sums_since,
)
from coordinator.streams.events import AnyEvent, Terms
from coordinator.streams.log.counting import Decision

_log = structlog.get_logger()
_encoder = msgspec.msgpack.Encoder(order="deterministic")
_counts_decoder = msgspec.msgpack.Decoder(dict[str, int])
_terms_decoder = msgspec.msgpack.Decoder(Terms)
DEFAULT_SCORE_DECIMALS = 9
_INT64 = 1 << 63


def encode_row(value: object) -> bytes:
    """MessagePack with sorted keys: equal content gives equal bytes, in whatever order it was put in.

    An integer of more than 64 bits is text in it, as by `wide`: a truth may be a sum in the smallest unit of money.
    """
    try:
        return _encoder.encode(value)
    except OverflowError:
        return _encoder.encode(_narrowed(value))


def _narrowed(value: Any) -> Any:
    match value:
        case int():
            return wide(value)
        case dict():
            return {name: _narrowed(inner) for name, inner in value.items()}
        case list() | tuple():
            return [_narrowed(inner) for inner in value]
        case msgspec.Struct():
            fields = {name: _narrowed(getattr(value, name)) for name in value.__struct_fields__}
            return msgspec.structs.replace(value, **fields)
    return value


def wide(number: int) -> int | str:
    """An integer as a row can hold it: as text if it has more than 64 bits (sums of extreme scores)."""
    return number if -_INT64 <= number < _INT64 else str(number)


def key(*parts: str | int) -> bytes:
    """A row's key: texts end in 0x00, and integers are 8 bytes big-endian. So keys sort as their parts do."""
    return b"".join(eight(part) if isinstance(part, int) else part.encode() + b"\x00" for part in parts)


def eight(value: int) -> bytes:
    """An integer in a key or a short row: 8 bytes big-endian, clamped to [0, 2**63).

    It is clamped because a time before 1970 in the log must not stop the fold.
    """
    return min(max(value, 0), _INT64 - 1).to_bytes(8, "big")


class Projection(ABC):
    """A fold of topics into rows. Raise `schema` when the rows change: the store is then rebuilt from the log."""

    name: ClassVar[str]
    topics: ClassVar[tuple[str, ...]]
    schema: ClassVar[int] = 1
    owners: ClassVar[Mapping[bytes, str]] = {}
    """First byte of a key -> the topic that writes such rows; only for a projection of several topics."""
    keeps_past: ClassVar[bool] = True
    """Whether the versions of its rows are stored, so that a past state can be read."""
    explained: ClassVar[frozenset[bytes]] = frozenset()
    """First bytes of the keys of rows whose decisions an explanation names (`Store.written_at`)."""
    leaving: ClassVar[tuple[bytes, ...]] = ()
    """First bytes of the keys of rows that leave the store once they are before the horizon, in this order: rows of
    now would else grow with the log."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.version = 0
        """Grows with every commit that may have changed an answer: the key of cached answers."""
        self._counts: dict[str, dict[str, int]] = {}
        for name, row in store.scan(b"#"):
            self._counts[name[1:-1].decode()] = _counts_decoder.decode(row)
        self._counted: set[str] = set()

    @classmethod
    def owner(cls, row_key: bytes) -> str:
        """The topic whose decisions write this row."""
        first = row_key[:1]
        if first in (b"#", b"!"):
            return row_key[1 : row_key.index(b"\x00")].decode()
        return cls.topics[0] if len(cls.topics) == 1 else cls.owners[first]

    @classmethod
    def is_explained(cls, row_key: bytes) -> bool:
        """Whether an explanation names the decisions that wrote this row: their offsets are never cut."""
        return row_key[:1] in cls.explained

    def is_over(self, row_key: bytes, row: bytes, horizon: Horizon) -> bool:
        """Whether a row of `leaving`, last written before the horizon, is no longer needed: no answer about the
        horizon or later uses it, and no fold will look for it again.
        """
        del row_key, row, horizon
        return True

    @abstractmethod
    def apply(self, decision: Decision, batch: Batch) -> None:
        """Fold one counted decision of one of `topics`."""

    def flush(self, batch: Batch) -> None:
        """Put what the last decision left in memory into the batch."""
        for topic in self._counted:
            batch.put(key("#" + topic), encode_row(self._counts[topic]))
        self._counted.clear()

    def notes(self) -> dict[str, Any]:
        """Facts to store beside the positions. They are not content, and are not hashed."""
        return {}

    def count(self, topic: str, name: str, n: int = 1) -> None:
        """Add to a count of a topic. Counts are per topic so that the order across topics does not matter."""
        counts = self._counts.setdefault(topic, {})
        counts[name] = counts.get(name, 0) + n
        self._counted.add(topic)

    def counted(self, topic: str, name: str) -> int:
        """A count of this topic's events."""
        return self._counts.get(topic, {}).get(name, 0)

    def refuse(self, batch: Batch, topic: str, event: AnyEvent, status: str) -> None:
        """Record an event that is illegal in the present status. Nothing else changes."""
        kind = type(event).__name__
        batch.put(key("!" + topic, event.id, kind), encode_row([event.at, status]))
        self.count(topic, "illegal")
        _log.error(
            "illegal_transition",
            projection=self.name,
            topic=topic,
            event_id=event.id,
            kind=kind,
            state=status,
        )

    def refused(self, limit: int = 100) -> list[dict[str, Any]]:
        """The first `limit` illegal events, as `topic, event_id, kind, at, state`."""
        refusals = []
        for name, row in self.store.scan(b"!"):
            topic, event_id, kind = name[1:-1].decode().split("\x00")
            at, status = msgspec.msgpack.decode(row)
            refusals.append({"topic": topic, "event_id": event_id, "kind": kind, "at": at, "state": status})
            if len(refusals) >= limit:
                break
        return refusals


def _effective_from(terms: Terms) -> int:
    return terms.effective_from


class TermsRows:
    """The terms that one topic holds, by contract hash (rows `T`, numbered in the order in which they were read)."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.by_hash: dict[str, Terms] = {}
        numbered = [
            (int.from_bytes(name[1:9], "big"), _terms_decoder.decode(row)) for name, row in store.scan(b"T")
        ]
        as_read = [terms for _, terms in sorted(numbered, key=itemgetter(0))]
        self.in_order: list[Terms] = sorted(as_read, key=_effective_from)
        """By `effective_from`; of terms with the same time, the last read holds."""
        for terms in as_read:
            self.by_hash[terms.contract_hash] = terms

    def add(self, terms: Terms, batch: Batch) -> None:
        """Take new terms. Terms that are there already change nothing."""
        if terms in self.in_order:
            return
        batch.put(b"T" + len(self.in_order).to_bytes(8, "big"), encode_row(terms))
        insort(self.in_order, terms, key=_effective_from)
        self.by_hash[terms.contract_hash] = terms

    def told_at(self, contract_hash: str) -> list[int]:
        """The offsets, in the topic of these rows, of the decisions that recorded the terms of a contract."""
        return [
            offset
            for name, row in self._store.scan(b"T")
            if _terms_decoder.decode(row).contract_hash == contract_hash
            for offset in self._store.written_at(name)
        ]

    def comparable_since(self, at_ms: int) -> int:
        """See `streams.contract.comparable_terms`."""
        return comparable_since(self.in_order, at_ms)

    def holds_past(self, at_ms: int) -> bool:
        """See `streams.contract.comparable_terms`."""
        return holds_past(self.in_order, at_ms)

    def sums_since(self, at_ms: int) -> int:
        """See `streams.contract.comparable_terms`."""
        return sums_since(self.in_order, at_ms)

    def adds_up(self, contract_hash: str, at_ms: int) -> bool:
        """Whether a score of that contract may be added to the scores of the terms in force at this time (ms).

        True for a contract that is not known.
        """
        now = self.at(at_ms)
        return now is None or adds_up(self.in_order, contract_hash, now)

    def contracts(self, start: int, until: int) -> list[str]:
        """The hashes of the contracts whose rounds may be in sums over [start, until) (ms), oldest first.

        A round is scored a horizon after its request, and is never in a sum with scores of another scoring.
        """
        now = self.at(until - 1)
        hashes: list[str] = []
        for i, terms in enumerate(self.in_order):
            horizon_ms = 1000 * max((scope.horizon_seconds for scope in terms.scopes), default=0)
            ends = self.in_order[i + 1].effective_from if i + 1 < len(self.in_order) else until
            alike = now is not None and score_alike(terms, now)
            if alike and terms.effective_from < until and ends + horizon_ms > start:
                hashes.append(terms.contract_hash)
        return list(dict.fromkeys(hashes))

    def at(self, at_ms: int) -> Terms | None:
        """The terms in force at `at_ms`; before the first terms, the first; None if there are none."""
        for terms in reversed(self.in_order):
            if terms.effective_from <= at_ms:
                return terms
        return self.in_order[0] if self.in_order else None

    def decimals(self, contract_hash: str) -> int:
        """How many decimals the scores of this contract have."""
        terms = self.by_hash.get(contract_hash)
        return terms.score_decimals if terms else DEFAULT_SCORE_DECIMALS
