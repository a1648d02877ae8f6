"""What a model's `tick` is given: the records up to a point, by the contract's own function, as JSON.

Pure. The input stage makes every tick with it, and `coordinator models check` the same ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.blame import AUTHORS_ERRORS
from coordinator.streams.log.finite import not_finite, plain
from coordinator.streams.log.reasons import as_reason

RECORDS_SEEN = 120
"""How many records up to its point an input is built from."""

_encoder = msgspec.json.Encoder()


def encode_model_input(contract: CrunchContract, records: Sequence[Any]) -> tuple[bytes, str]:
    """(JSON, "") or (b"", what is wrong). `records` are raw inputs of the contract's type, oldest first."""
    try:
        checked = contract.input_type.model_validate(plain(contract.build_input(list(records))))
        bad = not_finite(checked.model_dump(by_alias=True))  # in JSON's form NaN would be null already
        payload = _encoder.encode(checked.model_dump(mode="json", by_alias=True))
    except AUTHORS_ERRORS as error:  # its fault is recorded, and the node goes on
        return b"", as_reason(f"build_input: {type(error).__name__}: {error}", 500)
    if bad:
        return b"", f"build_input gave a value that is not finite: {bad}"
    return payload, ""
