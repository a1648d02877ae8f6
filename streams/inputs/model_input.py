"""Makes the payload of a model's `tick`: the contract's function, applied to the records up to a point, as JSON.

Pure. The input stage makes every tick with it, and `coordinator models check` makes the same ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from coordinator.streams.contract import CrunchContract, ModelInput, RawInput, defaults
from coordinator.streams.contract.blame import AUTHORS_ERRORS, in_words
from coordinator.streams.log.finite import not_finite, plain
from coordinator.streams.log.reasons import as_reason

_encoder = msgspec.json.Encoder()


def may_lack_a_number(encoded: bytes) -> bool:
    """Whether JSON has a value in the place of a number that is not finite."""
    return b"null" in encoded or b"NaN" in encoded or b"Infinity" in encoded


def encode_model_input(contract: CrunchContract, records: Sequence[Any]) -> tuple[bytes, str]:
    """(JSON, "") or (b"", what is wrong). `records` are raw inputs of the contract's type, oldest first."""
    bad = None
    try:
        checked = contract.input_type.model_validate(plain(contract.build_input(list(records))))
        payload = _encoder.encode(checked.model_dump(mode="json", by_alias=True))
        # The look at the values is slow, so only then.
        if may_lack_a_number(payload):
            bad = not_finite(checked.model_dump(by_alias=True))
    except AUTHORS_ERRORS as error:  # the author's fault is recorded, and the node continues
        return b"", as_reason(f"build_input: {in_words(error)}", 500)
    if bad:
        return b"", f"build_input gave a value that is not finite: {bad}"
    return payload, ""


def is_default(contract: CrunchContract) -> bool:
    """Whether the contract has the default input, so that `DefaultInputs` can make it."""
    return (
        contract.build_input is defaults.build_input
        and contract.input_type is ModelInput
        and contract.raw_input_type is RawInput
    )


class DefaultInputs:
    """Makes the default input fast, by joining the JSON of its records. The bytes are those of `encode_model_input`.

    It is a cache: a window shares all records but one with the window before it, so only that one is encoded.
    """

    def __init__(self) -> None:
        self._last: dict[str, tuple[Sequence[Any], list[bytes], bytes]] = {}
        """Subject -> (records of the last window, JSON of each, all of them joined)."""

    def encoded(
        self, subject: str, window: Sequence[Any], raw_of: Callable[[Sequence[Any]], Sequence[Any]]
    ) -> bytes:
        """The input of a window of records, oldest first; b"" if a value is not finite.

        `raw_of` returns records as raw inputs.
        """
        records, pieces, body = self._last.get(subject, ((), [], b""))
        (last,) = raw_of(window[-1:])
        # The window is the last one with a record appended, and with its oldest dropped (1) or not yet (0).
        dropped = len(records) + 1 - len(window)
        if records and dropped in (0, 1) and window[:-1] == records[dropped:]:
            new = _piece(last)
            if dropped:
                body = body[len(pieces.pop(0)) + 1 :]
            pieces.append(new)
            body = b"%b,%b" % (body, new) if len(pieces) > 1 else new
        else:
            pieces = [_piece(raw) for raw in raw_of(window)]
            new, body = b"" if b"" in pieces else pieces[-1], b",".join(pieces)
        if not new:
            self._last.pop(subject, None)
            return b""
        self._last[subject] = (window, pieces, body)
        head = _encoder.encode({"symbol": last.subject, "asof_ts": last.at})
        return b'%b,"%b":[%b]}' % (head[:-1], b"candles" if last.kind == "candle" else b"ticks", body)


def _piece(raw: Any) -> bytes:
    """One record as a part of the input; b"" if a value is not finite."""
    if not all(map(math.isfinite, raw.values.values())):
        return b""
    return _encoder.encode({"ts": raw.ts_event, **raw.values})
