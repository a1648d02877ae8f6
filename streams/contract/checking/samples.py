"""Sample data for trying a contract: records of an invented market, the truth of them, a ranking; and how it is tried.

Nothing is read and nothing written. An error of the author's code or types is a ContractError that names the field.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from coordinator.streams.contract import CrunchContract, RankingDirection
from coordinator.streams.contract.blame import AUTHORS_ERRORS, described
from coordinator.streams.durations import MINUTE_MS
from coordinator.streams.log.errors import ContractError
from coordinator.streams.log.finite import not_finite, plain

SAMPLE_PRICES = (20000.25, 20007.25, 20014.25, 20021.25, 20028.25)
_WINDOW_MINUTES_MAX = 1440


def run_step(field: str, run: Callable[[], Any]) -> Any:
    """What `run` returns. Raises ContractError that names the field if it raises an error of the author's."""
    try:
        return run()
    except AUTHORS_ERRORS as error:
        message = f"contract field {field}: {described(error)}"
        raise ContractError(message) from error


def check_finite(field: str, value: Any) -> None:
    """Raises ContractError if a number in `value` is not finite."""
    if bad := not_finite(value):
        message = f"contract field {field}: {bad} is not finite"
        raise ContractError(message)


def truth_of(contract: CrunchContract, records: Sequence[Any]) -> Any:
    """The ground truth of a window, typed as in the stages; None if there is none. Raises ContractError.

    If the first schedule asks several subjects together, the truth is by subject. Every second subject has the records
    in reverse order, so that the subjects differ.
    """
    schedules = contract.schedules()
    together = schedules[0].scope.together if schedules else ()
    if not together:
        return _truth_of(contract, records)
    truths = {
        subject: _truth_of(contract, _turned(records) if i % 2 else records)
        for i, subject in enumerate(together)
    }
    return None if None in truths.values() else truths


def _turned(records: Sequence[Any]) -> list[Any]:
    return [
        record.model_copy(update={"values": mirrored.values})
        for record, mirrored in zip(records, reversed(records), strict=True)
    ]


def _truth_of(contract: CrunchContract, records: Sequence[Any]) -> Any:
    truth = run_step("resolve_ground_truth", lambda: contract.resolve_ground_truth(list(records)))
    if truth is None:
        return None
    typed = run_step("ground_truth_type", lambda: contract.ground_truth_type.model_validate(plain(truth)))
    check_finite("resolve_ground_truth", typed.model_dump(by_alias=True))
    recorded = typed.model_dump(mode="json", by_alias=True)
    return run_step("ground_truth_type", lambda: contract.ground_truth_type.model_validate(recorded))


def sample_records(contract: CrunchContract, kind: str, prices: Sequence[float] = SAMPLE_PRICES) -> list[Any]:
    """Raw inputs of an invented market, a minute apart, with these prices. Raises ContractError."""
    return [
        run_step("raw_input_type", partial(contract.raw_input_type.model_validate, _sample(kind, i, price)))
        for i, price in enumerate(prices)
    ]


def sample_window(contract: CrunchContract, kind: str, prices: Sequence[float] = SAMPLE_PRICES) -> list[Any]:
    """`sample_records` over the horizon of the first schedule, at most a day. Raises ContractError.

    For a longer horizon than `prices` has minutes, the prices are interpolated.
    """
    schedules = contract.schedules()
    seconds = (schedules[0].scope if schedules else contract.scope).horizon_seconds
    minutes, last = min(seconds // 60, _WINDOW_MINUTES_MAX), len(prices) - 1
    if minutes <= last:
        return sample_records(contract, kind, prices)
    course = [divmod(i * last, minutes) for i in range(minutes)]
    between = [prices[at] + (prices[at + 1] - prices[at]) * part / minutes for at, part in course]
    return sample_records(contract, kind, [*between, prices[last]])


def sample_entries(contract: CrunchContract) -> list[dict[str, Any]]:
    """Twelve ranked models, best first, as `build_emission` and the rules of `payout` get them. All are better than
    what each pool asks for (`above`), so that each pool pays.
    """
    pools = contract.payout.pools if contract.payout else []
    names = [contract.aggregation.value_field, *(pool.key for pool in pools if pool.key)]
    counts = {"prediction_count": 10_000, "failed_count": 0, "absent_count": 0, "rounds_count": 10_000}
    asc = contract.aggregation.ranking_direction == RankingDirection.ASC
    bounds = [pool.above for pool in pools if pool.above is not None]
    entries: list[dict[str, Any]] = []
    for i in range(12):
        if not asc:
            key = max([*bounds, 0.0]) + 1.0 / (i + 1)
        elif not bounds:
            key = i + 1.0
        else:
            key = min(bounds) * (i + 1) / 13 if min(bounds) > 0 else min(bounds) - 12 + i
        keys = dict.fromkeys(names, key)
        who = {"model_id": f"model-{i}", "player": f"player-{i}", "rank": i + 1, "key": key}
        entries.append(keys | who | {"keys": keys, "counts": {}, "hours_here": 10_000.0} | counts)
    return entries


def _sample(kind: str, i: int, price: float) -> dict[str, Any]:
    text = f"{price:.2f}"
    values = (
        {"open": "20000.00", "high": "40000.00", "low": "10000.00", "close": text, "volume": "1.5"}
        if kind == "candle"
        else {"price": text}
    )
    return {
        "source": "sample",
        "subject": "SAMPLE",
        "kind": kind,
        "granularity": "1m",
        "ts_event": i * MINUTE_MS,
        "at": (i + 1) * MINUTE_MS,
        "values": values,
    }
