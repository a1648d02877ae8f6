"""Computes the ground truth of an input: what the market did between its point and its horizon.

Pure. Takes records and holes, returns the truth of a window and its InputResolved. The window is the same for every
model. For a point t and a horizon h it holds the last record with at <= t, then all records with t < at <= t + h. It is
complete if a record at or after its end has come, and none of its own records is missing (`holes.py`). Missing records
are waited for as the contract's `gap_policy` says. If they do not come, the input has no truth, with that reason: the
truth of an incomplete window would score the feed and not the model.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec
from pydantic import BaseModel

from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.blame import AUTHORS_ERRORS, in_words
from coordinator.streams.contract.contract import Contracts
from coordinator.streams.contract.types import validator
from coordinator.streams.events import (
    FeedRecordData,
    InputResolved,
    InputResolvedData,
    Terms,
)
from coordinator.streams.granularity import cadence_ms
from coordinator.streams.inputs.holes import Holes, MissingRecords
from coordinator.streams.inputs.model_input import (
    DefaultInputs,
    encode_model_input,
    is_default,
    may_lack_a_number,
)
from coordinator.streams.inputs.open_horizons import OpenHorizon
from coordinator.streams.log.envelope import Need
from coordinator.streams.log.finite import not_finite, plain
from coordinator.streams.log.reasons import as_reason

LOOKED_AT = 8
"""How many of the newest records are compared one by one, before a search among all."""
SPARE = 1_000
"""How many typed records may be held beyond twice those that are in use."""


class Record(msgspec.Struct, frozen=True):
    """A feed record: `at` is when it became known, in ms; `before` is the position in `feeds` before its append."""

    at: int
    data: FeedRecordData
    before: Need


def at_of(record: Record) -> int:
    """When the record became known, in ms. Lists of records are in this order."""
    return record.at


def count_until(records: Sequence[Record], until_ms: int) -> int:
    """How many of the records, which are in order, have at <= until_ms. Usually these are all but the last few."""
    count = len(records)
    if not count or records[-1].at <= until_ms:
        return count
    searched = max(count - LOOKED_AT, 0)
    for earlier in range(count - 1, searched, -1):
        if records[earlier - 1].at <= until_ms:
            return earlier
    return bisect_right(records, until_ms, 0, searched, key=at_of)


def is_whole(window: Sequence[Record], whole_from: int, until_ms: int, cadence_ms: int | None) -> bool:
    """Whether no record is missing in a window up to `until_ms`, if the feed's records follow each other from
    `whole_from` on. False where that is not known.
    """
    return (
        cadence_ms is not None
        and bool(window)
        and window[0].at >= whole_from
        and until_ms + 1 - window[-1].at <= cadence_ms
    )


class TypedRecords:
    """Records as the raw input type of a contract. Each is made only once, because windows share most records.

    It is a cache and not a part of the state: the result depends on the record alone.
    """

    def __init__(self, contracts: Contracts) -> None:
        self.contracts = contracts
        self._made: dict[tuple[str, int], tuple[Record, BaseModel]] = {}
        """(contract_hash, `id()` of the record) -> (the record, its typed form). Holding the record keeps its `id()`
        from being given to another object."""
        self._inputs = DefaultInputs()

    def of(self, contract_hash: str, records: Sequence[Record]) -> list[BaseModel]:
        """The records as the contract's type. Raises what the author's validators raise."""
        raw_type = self.contracts(contract_hash).raw_input_type
        typed_of_record = self._made
        typed = []
        for record in records:
            entry = typed_of_record.get((contract_hash, id(record)))
            if entry is None:
                fields = msgspec.structs.asdict(record.data) | {"at": record.at}
                typed_record = validator(raw_type)(fields)
                entry = typed_of_record[contract_hash, id(record)] = (record, typed_record)
            typed.append(entry[1])
        return typed

    def model_input(self, contract_hash: str, subject: str, window: Sequence[Record]) -> tuple[bytes, str]:
        """(JSON of the input that the contract makes of a window, "") or (b"", what is wrong).

        Raises what the author's validators raise.
        """
        contract = self.contracts(contract_hash)
        if is_default(contract) and (
            payload := self._inputs.encoded(subject, window, lambda records: self.of(contract_hash, records))
        ):
            return payload, ""
        return encode_model_input(contract, self.of(contract_hash, window))

    def forget(self, used_count: int) -> None:
        """Empty the cache if it holds far more than the `used_count` records that are in use."""
        if len(self._made) > 2 * used_count + SPARE:
            self._made.clear()


class SubjectRecords(NamedTuple):
    """One subject: its records in order of `at`, and what is missing among them."""

    subject: str
    records: list[Record]
    holes: Holes
    whole_from: int
    """From when on (ms) its records follow each other within the feed's cadence."""


class WindowEnded(NamedTuple):
    """The truth of a window, or the reason why it has none; `at` is when that became known, in ms."""

    truth: dict[str, Any] | None
    reason: str | None
    at: int


def resolve(
    horizon: OpenHorizon,
    sides: Sequence[SubjectRecords],
    terms: Terms,
    typed: TypedRecords,
    clock: int,
    now: int,
) -> WindowEnded | None:
    """The truth of one horizon, or the reason why it has none; None while its window is open.

    Subjects that are asked together have one truth, an object with the truth of each; without all of them there is
    none. `clock` is the time of the last tick, `now` that of the last tick or record, both in ms.
    """
    windows = [_of_subject(horizon, side, terms, typed, clock) for side in sides]
    ended = [window for window in windows if window is not None]
    if len(ended) < len(sides):
        return None
    at = min(max(window.at for window in ended), now)
    if len(sides) == 1:
        return WindowEnded(ended[0].truth, ended[0].reason, at)
    for side, window in zip(sides, ended, strict=True):
        if window.truth is None:
            return WindowEnded(None, f"{side.subject}: {window.reason}", at)
    truths = {side.subject: window.truth for side, window in zip(sides, ended, strict=True)}
    return WindowEnded(truths, None, at)


def _of_subject(
    horizon: OpenHorizon, side: SubjectRecords, terms: Terms, typed: TypedRecords, clock: int
) -> WindowEnded | None:
    """The truth of one subject's window, or the reason why it has none; None while records may still come."""
    records, end = side.records, horizon.resolvable_at
    is_past_end = bool(records) and records[-1].at >= end
    past_ms = clock - end
    if not is_past_end and past_ms < terms.grace_ms:
        return None
    contract = typed.contracts(horizon.contract_hash)
    waits = contract.gap_policy == "wait"
    wait_ms = contract.gap_wait_seconds * 1000 if waits else 0
    has_waited_enough = past_ms >= max(terms.grace_ms, round(wait_ms))
    # The window begins with the record that was the newest one at the point: the price at which the question was asked.
    entry = count_until(records, horizon.point) - 1
    window = records[max(entry, 0) : count_until(records, end)]
    lack = _lack(horizon, side, terms, window) if waits and entry >= 0 else None
    truth: dict[str, Any] | None = None
    reason: str | None = None
    if not is_past_end:
        if not has_waited_enough:
            return None
        within = f"{contract.gap_wait_seconds:g} s" if wait_ms > terms.grace_ms else "the grace"
        reason = f"gap: no record at or past the window's end within {within}"
    elif lack is not None:
        if not lack.lasting and not has_waited_enough:
            return None
        why = "and will not come" if lack.lasting else f"waited {contract.gap_wait_seconds:g} s for them"
        reason = f"gap: {lack.text} missing in the window, {why}"
    elif entry < 0 or len(window) < 2:  # noqa: PLR2004 - the entry and at least one after it
        reason = "gap: no record within the window"
    else:
        truth, reason = truth_of_window(contract, lambda: typed.of(horizon.contract_hash, window))
    at = clock
    if is_past_end:
        # The truth became known with the record that closed the window. If a record of the window came late, it became
        # known only now.
        at = records[count_until(records, end - 1)].at
        if lack is not None or any(record.data.backfilled for record in window):
            at = max(at, clock)
    return WindowEnded(truth, reason, at)


def _lack(
    horizon: OpenHorizon, side: SubjectRecords, terms: Terms, window: Sequence[Record]
) -> MissingRecords | None:
    """What is missing among the records of a window; None if nothing is."""
    cadence = cadence_ms(terms.feed.kind, terms.feed.granularity)
    if is_whole(window, side.whole_from, horizon.resolvable_at, cadence):
        return None
    ats = [record.at for record in window]
    return side.holes.in_window(ats, horizon.point, horizon.resolvable_at, cadence)


def resolved(horizon: OpenHorizon, window: WindowEnded, *, last: bool) -> InputResolved:
    """The event of a horizon's truth. `last`: all horizons of the input are resolved with it."""
    return InputResolved(
        id=f"{horizon.input_id}:resolved:{horizon.horizon_seconds}s",
        at=window.at,
        data=InputResolvedData(
            input_id=horizon.input_id,
            horizon_seconds=horizon.horizon_seconds,
            resolvable_at=horizon.resolvable_at,
            truth=window.truth,
            reason=window.reason,
            last=last,
        ),
    )


def recorded_truth(typed: BaseModel) -> tuple[Any, str | None]:
    """(a truth as the log has it, the path of its first number that is not finite or None).

    Raises what the author's type raises, and TypeError for what is no JSON: here, where the truth can be named, and not
    when it is sent.
    """
    dumped = typed.model_dump(mode="json", by_alias=True)
    encoded = msgspec.json.encode(dumped)
    # `mode="json"` turned NaN into one of these marks: only then the values before it are looked at.
    return dumped, not_finite(typed.model_dump(by_alias=True) if may_lack_a_number(encoded) else dumped)


def truth_of_window(
    contract: CrunchContract, records: Callable[[], list[BaseModel]]
) -> tuple[dict[str, Any] | None, str | None]:
    """(the truth as the log has it, None) or (None, why there is none), of the records that `records` gives."""
    try:
        truth = contract.resolve_ground_truth(records())
        if truth is None:
            return None, "resolve_ground_truth gave None"
        dumped, bad = recorded_truth(validator(contract.ground_truth_type)(plain(truth)))
    except AUTHORS_ERRORS as error:  # the author's fault is recorded, and the node continues
        return None, as_reason(f"resolve_ground_truth: {in_words(error)}", 500)
    return (None, f"resolve_ground_truth gave a value that is not finite: {bad}") if bad else (dumped, None)
