"""What a model's `tick` is given: the records up to a point, by the contract's own function, as JSON.

Pure. The input stage makes every tick with it, and `coordinator models check` the same ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec

from coordinator.streams.contract import CrunchContract, ModelInput, RawInput, defaults
from coordinator.streams.contract.blame import AUTHORS_ERRORS
from coordinator.streams.log.finite import not_finite, plain
from coordinator.streams.log.reasons import as_reason

RECORDS_SEEN = 120
"""How many records up to its point an input is built from."""

_encoder = msgspec.json.Encoder()

Pieces = dict[int, tuple[Any, bytes]]
"""id of a raw input -> itself, which keeps its id while it stands here, and its JSON within the default input."""


def encode_model_input(
    contract: CrunchContract, records: Sequence[Any], pieces: Pieces | None = None
) -> tuple[bytes, str]:
    """(JSON, "") or (b"", what is wrong). `records` are raw inputs of the contract's type, oldest first.

    `pieces` is a cache for who makes many: two windows share most of their records.
    """
    if pieces is not None and _is_default(contract) and (payload := _default_input(records, pieces)):
        return payload, ""
    bad = None
    try:
        checked = contract.input_type.model_validate(plain(contract.build_input(list(records))))
        payload = _encoder.encode(checked.model_dump(mode="json", by_alias=True))
        if any(
            mark in payload for mark in (b"null", b"NaN", b"Infinity")
        ):  # what JSON makes of such a number
            bad = not_finite(checked.model_dump(by_alias=True))
    except AUTHORS_ERRORS as error:  # its fault is recorded, and the node goes on
        return b"", as_reason(f"build_input: {type(error).__name__}: {error}", 500)
    if bad:
        return b"", f"build_input gave a value that is not finite: {bad}"
    return payload, ""


def _is_default(contract: CrunchContract) -> bool:
    return (
        contract.build_input is defaults.build_input
        and contract.input_type is ModelInput
        and contract.raw_input_type is RawInput
    )


def _default_input(records: Sequence[Any], pieces: Pieces) -> bytes:
    """What `defaults.build_input` gives, in the same bytes; empty where a value is not finite."""
    found: list[bytes] = []
    for record in records[-defaults.CANDLES_SEEN :]:
        known = pieces.get(id(record))
        if known is None:
            if not all(map(math.isfinite, record.values.values())):
                return b""
            known = pieces[id(record)] = (record, _encoder.encode({"ts": record.ts_event, **record.values}))
        found.append(known[1])
    last = records[-1]
    head = _encoder.encode({"symbol": last.subject, "asof_ts": last.at})
    name = b"candles" if last.kind == "candle" else b"ticks"
    return b'%b,"%b":[%b]}' % (head[:-1], name, b",".join(found))
