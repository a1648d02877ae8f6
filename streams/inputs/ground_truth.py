"""Ground truth: what the market said between an input's point and its horizon. The same window for every model.

For input time t and horizon h: the last record with at <= t, then all with t < at <= t + h. The window is complete
when a record at or past its end was seen and none of its own is missing (`holes.py`). What is missing is waited for, as
the contract's `gap_policy` says; then there is no truth, with that reason: a half-seen window would score the feed,
not the model.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from typing import Any

import msgspec
from pydantic import BaseModel

from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.blame import AUTHORS_ERRORS
from coordinator.streams.events import (
    FeedRecordData,
    InputReceivedData,
    InputResolved,
    InputResolvedData,
    Terms,
)
from coordinator.streams.granularity import cadence_ms
from coordinator.streams.inputs.holes import Holes
from coordinator.streams.log.envelope import Need
from coordinator.streams.log.finite import not_finite, plain
from coordinator.streams.log.reasons import as_reason


class Record:
    """A feed record in memory, with its place in the log and its typed form per contract."""

    __slots__ = ("at", "before", "data", "offset", "typed")

    def __init__(self, at: int, data: FeedRecordData, offset: int, before: Need) -> None:
        self.at = at
        self.data = data
        self.offset = offset
        self.before = before
        self.typed: dict[str, Any] = {}

    def as_type(self, contract_hash: str, raw_type: type[BaseModel]) -> Any:
        """The record as the contract's raw input type."""
        typed = self.typed.get(contract_hash)
        if typed is None:
            fields = msgspec.structs.asdict(self.data) | {"at": self.at}
            typed = self.typed[contract_hash] = raw_type.model_validate(fields)
        return typed


class OpenHorizon(msgspec.Struct, frozen=True, order=True):
    """A truth that is waited for; ordered by when it is due."""

    resolvable_at: int
    point: int
    subject: str
    horizon_seconds: int
    contract_hash: str
    input_id: str


def at_of(record: Record) -> int:
    """When the record became known, in ms: the order in which records are kept."""
    return record.at


def horizons(data: InputReceivedData) -> list[OpenHorizon]:
    """The truths that an input waits for: one for each of its horizons, however many scopes share it."""
    return [
        OpenHorizon(
            data.point + seconds * 1000, data.point, data.subject, seconds, data.contract_hash, data.input_id
        )
        for seconds in sorted({scope.horizon_seconds for scope in data.scopes})
    ]


def resolve(
    one: OpenHorizon,
    records: list[Record],
    holes: Holes,
    terms: Terms,
    contracts: Callable[[str], CrunchContract],
    clock: int,
    now: int,
) -> InputResolved | None:
    """The truth of one horizon, or the reason why there is none; None while its window is open.

    `records` are the subject's in order of `at`, `holes` what is known to be missing; `clock` is the last tick, `now`
    the last that is known of time.
    """
    complete = bool(records) and records[-1].at >= one.resolvable_at
    past_ms = clock - one.resolvable_at
    if not complete and past_ms < terms.grace_ms:
        return None
    contract = contracts(one.contract_hash)
    waits = contract.gap_policy == "wait"
    given_up = past_ms >= max(terms.grace_ms, round(contract.gap_wait_seconds * 1000) if waits else 0)
    truth: dict[str, Any] | None = None
    reason: str | None = None
    entry = bisect_right(records, one.point, key=at_of) - 1
    window = records[max(entry, 0) : bisect_right(records, one.resolvable_at, key=at_of)]
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
        truth, reason = _truth(one.contract_hash, window, contracts)
    at = clock
    if complete:
        # It became known when the closing record did; or now, where that or another came late.
        at = records[bisect_right(records, one.resolvable_at - 1, key=at_of)].at
        if lacks is not None or any(record.data.backfilled for record in window):
            at = max(at, clock)
    return _resolved(one, min(at, now), truth, reason)


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


def _truth(
    contract_hash: str, window: list[Record], contracts: Callable[[str], CrunchContract]
) -> tuple[dict[str, Any] | None, str | None]:
    contract = contracts(contract_hash)
    try:
        typed = [record.as_type(contract_hash, contract.raw_input_type) for record in window]
        truth = contract.resolve_ground_truth(typed)
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
