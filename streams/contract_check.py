"""A contract is run once on sample data before the node starts; a wrong one is named by its field.

The samples are records of the feed's own kind, in a made-up market. No I/O here; loading is `infra/contracts.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from coordinator.streams.contract import CrunchContract, EmissionCheckpoint
from coordinator.streams.emission import emission_faults
from coordinator.streams.errors import ContractError
from coordinator.streams.finite import not_finite
from coordinator.streams.period_ranking import PERIOD_KEY
from coordinator.streams.units import to_units

SAMPLE_PUBKEY = "1" * 32
"""Thirty-two zero bytes in base58: valid in form, nobody's account."""
_MINUTE_MS = 60_000
_PLAUSIBLE: tuple[tuple[type, Any], ...] = ((int, 1), (str, "sample"), (bool, True))


def check_contract(contract: CrunchContract, *, kind: str = "candle") -> None:
    """Run every callable of `contract` once. Raises ContractError naming the field and what is wrong."""
    records = [
        _step("raw_input_type", partial(contract.raw_input_type.model_validate, _sample(kind, i)))
        for i in range(5)
    ]
    built = _step("build_input", lambda: contract.build_input(records))
    checked = _step("input_type", lambda: contract.input_type.model_validate(built))
    _finite("build_input", checked.model_dump(by_alias=True))  # in JSON's form NaN would be null already
    _step("input_type", lambda: msgspec.json.encode(checked.model_dump(mode="json", by_alias=True)))
    truth = _step("resolve_ground_truth", lambda: contract.resolve_ground_truth(records))
    if truth is None:
        message = "contract field resolve_ground_truth: gave None on a complete sample window"
        raise ContractError(message)
    typed_truth = _step("ground_truth_type", lambda: contract.ground_truth_type.model_validate(truth))
    _finite("resolve_ground_truth", typed_truth.model_dump(by_alias=True))
    recorded = typed_truth.model_dump(mode="json", by_alias=True)
    typed_truth = _step("ground_truth_type", lambda: contract.ground_truth_type.model_validate(recorded))
    output = _step("output_type", lambda: contract.output_type.model_validate(_sample_output(contract)))
    scored = _step("score_prediction", lambda: contract.score_prediction(output, typed_truth))
    result = _step("score_type", lambda: contract.score_type.model_validate(scored))
    numbers = {
        name: value
        for name, value in result.__dict__.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }
    value_field = contract.aggregation.value_field
    if value_field not in numbers:
        has = sorted(numbers)
        message = (
            f"contract field aggregation.value_field: score_type has no number {value_field!r}, has {has}"
        )
        raise ContractError(message)
    _step(
        "score_prediction",
        lambda: {name: to_units(value, contract.score_decimals) for name, value in numbers.items()},
    )
    kept = _step(
        "score_type", lambda: contract.score_type.model_validate(numbers)
    )  # only numbers are recorded
    summary = _step("aggregate_snapshot", lambda: contract.aggregate_snapshot([kept, kept]))
    _check_summary(contract, summary)
    _check_emission(contract)


def _check_summary(contract: CrunchContract, summary: Any) -> None:
    if not isinstance(summary, dict):
        message = f"contract field aggregate_snapshot: gave a {type(summary).__name__}, not a dict"
        raise ContractError(message)
    key = contract.aggregation.checkpoint_key
    numbers = [
        name for name, one in summary.items() if isinstance(one, (int, float)) and not isinstance(one, bool)
    ]
    _step(
        "aggregate_snapshot", lambda: [to_units(summary[name], contract.score_decimals) for name in numbers]
    )
    known = [PERIOD_KEY, *(window.name for window in contract.aggregation.windows), *numbers]
    if key not in known:
        message = f"contract field aggregation.checkpoint_key: {key!r} is none of {known}"
        raise ContractError(message)


def _check_emission(contract: CrunchContract) -> None:
    value = contract.aggregation.value_field
    entries = [
        {
            "model_id": f"model-{i}",
            "rank": i + 1,
            "key": 1.0 / (i + 1),
            value: 1.0 / (i + 1),
            "prediction_count": 10,
        }
        for i in range(12)
    ]
    pubkey = contract.crunch_pubkey or SAMPLE_PUBKEY
    built = _step(
        "build_emission",
        lambda: contract.build_emission(entries, pubkey, contract.compute_provider, contract.data_provider),
    )
    emission = _step(
        "build_emission", lambda: EmissionCheckpoint.model_validate(built).model_dump(mode="json")
    )
    faults = emission_faults(emission, len(entries))
    if faults:
        message = f"contract field build_emission: {'; '.join(faults)}"
        raise ContractError(message)


def _step(field: str, run: Callable[[], Any]) -> Any:
    try:
        return run()
    except Exception as error:
        message = f"contract field {field}: {type(error).__name__}: {error}"
        raise ContractError(message) from error


def _finite(field: str, value: Any) -> None:
    if bad := not_finite(value):
        message = f"contract field {field}: {bad} is not finite"
        raise ContractError(message)


def _sample(kind: str, i: int) -> dict[str, Any]:
    price = f"{20000 + 7 * i}.25"
    values = (
        {"open": "20000.00", "high": "20100.00", "low": "19900.00", "close": price, "volume": "1.5"}
        if kind == "candle"
        else {"price": price}
    )
    return {
        "source": "sample",
        "subject": "SAMPLE",
        "kind": kind,
        "granularity": "1m",
        "ts_event": i * _MINUTE_MS,
        "at": (i + 1) * _MINUTE_MS,
        "values": values,
    }


def _sample_output(contract: CrunchContract) -> dict[str, Any]:
    """A plausible answer: 0.5 for each number that has no default."""
    out: dict[str, Any] = {}
    for name, field in contract.output_type.model_fields.items():
        if field.is_required():
            out[name] = next((value for kind, value in _PLAUSIBLE if field.annotation is kind), 0.5)
    return out
