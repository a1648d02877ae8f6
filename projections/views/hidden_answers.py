"""Until when answers that stand in the log up to some place are hidden: what holds that part of the log must wait.

Reads the rows of `predictions.py`: rounds by the time of their opening, each with the offset of the decision that
opened it, which comes before its answers.
"""

from __future__ import annotations

import msgspec

from coordinator.projections.storage.versions import value_of, version_of
from coordinator.projections.views.predictions import Predictions

_scope_keys_decoder = msgspec.msgpack.Decoder(list[str])
_TIME_BYTES = 8


def hidden_until(predictions: Predictions, offset: int) -> int | None:
    """When (ms of event time) every answer may be seen that the topic `predictions` holds up to `offset`.

    None where all may be seen now. Rounds are looked at from the newest back to where no horizon can be open.
    """
    horizons = (scope.horizon_seconds for terms in predictions.terms.in_order for scope in terms.scopes)
    longest_ms = 1000 * max(horizons, default=0)
    latest: int | None = None
    for name, stored in predictions.store.stored(b"O", start=None, backwards=True):
        opened_at = int.from_bytes(name[1 : 1 + _TIME_BYTES], "big")
        if opened_at + longest_ms < predictions.resolved_until:
            return latest
        row = value_of(stored)
        if row is None or version_of(stored) > offset:
            continue
        asked = predictions.input(name[1 + _TIME_BYTES : -1].decode())
        for scope_key in _scope_keys_decoder.decode(row):
            if predictions.is_closed(asked, scope_key):
                # Of an input that is not folded yet nobody knows the horizon: the longest is the careful answer.
                known = asked.scopes.get(scope_key) if asked else None
                latest = max(latest or 0, known[2] if known else opened_at + longest_ms)
    return latest
