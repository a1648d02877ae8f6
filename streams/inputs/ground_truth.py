"""Ground truth: what the market said between an input's point and its horizon. The same window for every model.

For input time t and horizon h: the last record with at <= t, then all with t < at <= t + h. The window is complete
when a record at or past its end was seen and none of its own is missing (`holes.py`). What is missing is waited for, as
the contract's `gap_policy` says; then there is no truth, with that reason: a half-seen window would score the feed,
not the model.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec
from pydantic import BaseModel

from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.blame import AUTHORS_ERRORS
from coordinator.streams.events import (
    FeedRecordData,
    InputResolved,
    InputResolvedData,
    Terms,
)
from coordinator.streams.granularity import cadence_ms
from coordinator.streams.inputs.holes import Holes
from coordinator.streams.inputs.model_input import DefaultInputs, encode_model_input, is_default
from coordinator.streams.inputs.open_horizons import OpenHorizon
from coordinator.streams.log.envelope import Need
from coordinator.streams.log.finite import not_finite, plain
from coordinator.streams.log.reasons import as_reason

LOOKED_AT = 8
"""Of the newest records: they are looked at one by one before all are searched."""
SPARE = 1_000
"""How many typed records more than are of use may be held."""


class Record(msgspec.Struct, frozen=True):
    """A feed record, when it became known, in ms, and where its append stands."""

    at: int
    data: FeedRecordData
    before: Need


def at_of(record: Record) -> int:
    """When the record became known, in ms: the order in which records are kept."""
    return record.at


def count_until(records: Sequence[Record], until_ms: int) -> int:
    """How many of the records, which are in order, have at <= until_ms. Nearly always all but the last few have."""
    count = len(records)
    if not count or records[-1].at <= until_ms:
        return count
    searched = max(count - LOOKED_AT, 0)
    for earlier in range(count - 1, searched, -1):
        if records[earlier - 1].at <= until_ms:
            return earlier
    return bisect_right(records, until_ms, 0, searched, key=at_of)


class TypedRecords:
    """Records as the raw input type of a contract. Each is made once: windows share most of theirs.

    A cache beside the state: what it gives depends on the record alone.
    """

    def __init__(self, contracts: Callable[[str], CrunchContract]) -> None:
        self.contracts = contracts
        self._made: dict[tuple[str, int], tuple[Record, BaseModel]] = {}
        """(contract, id of the record) -> the record, which keeps its id while it stands here, and its typed form."""
        self._inputs = DefaultInputs()

    def of(self, contract_hash: str, records: Sequence[Record]) -> list[BaseModel]:
        """The records as the contract's type. Raises what the author's validators raise."""
        raw_type = self.contracts(contract_hash).raw_input_type
        made = self._made
        found = []
        for record in records:
            known = made.get((contract_hash, id(record)))
            if known is None:
                fields = msgspec.structs.asdict(record.data) | {"at": record.at}
                known = made[contract_hash, id(record)] = (record, raw_type.model_validate(fields))
            found.append(known[1])
        return found

    def model_input(self, contract_hash: str, subject: str, window: Sequence[Record]) -> tuple[bytes, str]:
        """(the JSON of what a window's input is, "") or (b"", what is wrong), by the contract's own function. Raises
        what the author's validators raise.
        """
        contract = self.contracts(contract_hash)
        if is_default(contract) and (
            payload := self._inputs.encoded(subject, window, lambda records: self.of(contract_hash, records))
        ):
            return payload, ""
        return encode_model_input(contract, self.of(contract_hash, window))

    def forget(self, kept: int) -> None:
        """Begin anew once far more is held than the `kept` records that are still of use."""
        if len(self._made) > 2 * kept + SPARE:
            self._made.clear()


class Side(NamedTuple):
    """What is known of one subject: its records in order of `at`, and what is known to be missing."""

    subject: str
    records: list[Record]
    holes: Holes


class Seen(NamedTuple):
    """What became of one subject's window: its truth, or the reason why there is none, and when that was known (ms)."""

    truth: dict[str, Any] | None
    reason: str | None
    at: int


def resolve(
    one: OpenHorizon, sides: Sequence[Side], terms: Terms, typed: TypedRecords, clock: int, now: int
) -> InputResolved | None:
    """The truth of one horizon, or the reason why there is none; None while its window is open.

    Of several subjects, which are asked together, it has the truth of each, and there is none unless each has one.
    `clock` is the last tick, `now` the last that is known of time.
    """
    seen = [_of_subject(one, side, terms, typed, clock) for side in sides]
    closed = [each for each in seen if each is not None]
    if len(closed) < len(sides):
        return None
    at = min(max(each.at for each in closed), now)
    if len(sides) == 1:
        return _resolved(one, at, closed[0].truth, closed[0].reason)
    for side, each in zip(sides, closed, strict=True):
        if each.truth is None:
            return _resolved(one, at, None, f"{side.subject}: {each.reason}")
    return _resolved(
        one, at, {side.subject: each.truth for side, each in zip(sides, closed, strict=True)}, None
    )


def _of_subject(one: OpenHorizon, side: Side, terms: Terms, typed: TypedRecords, clock: int) -> Seen | None:
    records, holes = side.records, side.holes
    complete = bool(records) and records[-1].at >= one.resolvable_at
    past_ms = clock - one.resolvable_at
    if not complete and past_ms < terms.grace_ms:
        return None
    contract = typed.contracts(one.contract_hash)
    waits = contract.gap_policy == "wait"
    given_up = past_ms >= max(terms.grace_ms, round(contract.gap_wait_seconds * 1000) if waits else 0)
    truth: dict[str, Any] | None = None
    reason: str | None = None
    entry = count_until(records, one.point) - 1
    window = records[max(entry, 0) : count_until(records, one.resolvable_at)]
    lacks = None
    if waits and entry >= 0:
        cadence = cadence_ms(terms.feed.kind, terms.feed.granularity)
        lacks = holes.in_window([record.at for record in window], one.point, one.resolvable_at, cadence)
    if not complete:
        if not given_up:
            return None
        waited = contract.gap_wait_seconds * 1000 if waits else 0
        within = f"{contract.gap_wait_seconds:g} s" if waited > terms.grace_ms else "the grace"
        reason = f"gap: no record at or past the window's end within {within}"
    elif lacks is not None:
        if not lacks.lasting and not given_up:
            return None
        why = "and will not come" if lacks.lasting else f"waited {contract.gap_wait_seconds:g} s for them"
        reason = f"gap: {lacks.text} missing in the window, {why}"
    elif entry < 0 or len(window) < 2:  # noqa: PLR2004 - the entry and at least one after it
        reason = "gap: no record within the window"
    else:
        truth, reason = truth_of_window(contract, lambda: typed.of(one.contract_hash, window))
    at = clock
    if complete:
        # It became known when the closing record did; or now, where that or another came late.
        at = records[count_until(records, one.resolvable_at - 1)].at
        if lacks is not None or any(record.data.backfilled for record in window):
            at = max(at, clock)
    return Seen(truth, reason, at)


def unresolved(one: OpenHorizon, at: int, reason: str) -> InputResolved:
    """No truth for this horizon, and why."""
    return _resolved(one, at, None, reason)


def _resolved(one: OpenHorizon, at: int, truth: dict[str, Any] | None, reason: str | None) -> InputResolved:
    return InputResolved(
        id=f"{one.input_id}:resolved:{one.horizon_seconds}s",
        at=at,
        data=InputResolvedData(
            input_id=one.input_id,
            horizon_seconds=one.horizon_seconds,
            resolvable_at=one.resolvable_at,
            truth=truth,
            reason=reason,
            last=False,
        ),
    )


def truth_of_window(
    contract: CrunchContract, records: Callable[[], list[BaseModel]]
) -> tuple[dict[str, Any] | None, str | None]:
    """(the truth as the log has it, None) or (None, why there is none), of the records that `records` gives."""
    try:
        truth = contract.resolve_ground_truth(records())
        if truth is None:
            return None, "resolve_ground_truth gave None"
        typed_truth = contract.ground_truth_type.model_validate(plain(truth))
        # In JSON's form NaN would be null already.
        bad = not_finite(typed_truth.model_dump(by_alias=True))
        dumped = typed_truth.model_dump(mode="json", by_alias=True)
        msgspec.json.encode(dumped)  # what cannot be written fails here, by its name, and not at the send
    except AUTHORS_ERRORS as error:  # its fault is recorded, and the node goes on
        return None, as_reason(f"resolve_ground_truth: {type(error).__name__}: {error}", 500)
    return (None, f"resolve_ground_truth gave a value that is not finite: {bad}") if bad else (dumped, None)
