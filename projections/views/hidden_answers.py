"""Until when the answers in the log up to an offset are hidden.

Whoever publishes a part of the log must wait until every answer in it may be seen. Reads the rows of `predictions.py`:
rounds by the time of their opening. Each row has the offset of the decision that opened the round, and a round's
answers always come after it.
"""

from __future__ import annotations

import msgspec

from coordinator.projections.storage.versions import value_of, version_of
from coordinator.projections.views.predictions import Predictions
from coordinator.streams.log import ids

_scope_keys_decoder = msgspec.msgpack.Decoder(list[str])
_question_decoder = msgspec.msgpack.Decoder(tuple[int, list[str]])
_TIME_BYTES = 8


def hidden_until(predictions: Predictions, offset: int) -> int | None:
    """The event time (ms) from which on every answer in `predictions` up to `offset` may be seen; None if all may be
    now.

    Rounds are read from the newest back, until no horizon can be open any more.
    """
    horizons = (scope.horizon_seconds for terms in predictions.terms.in_order for scope in terms.scopes)
    longest_ms = 1000 * max(horizons, default=0)
    latest = _questions_until(predictions, offset)
    for name, stored in predictions.store.stored(b"O", start=None, backwards=True):
        opened_at = int.from_bytes(name[1 : 1 + _TIME_BYTES], "big")
        if opened_at + longest_ms < predictions.resolved_until:
            return latest
        row = value_of(stored)
        if row is None or version_of(stored) > offset:
            continue
        asked = predictions.input(ids.question_of(name[1 + _TIME_BYTES : -1].decode()))
        for scope_key in _scope_keys_decoder.decode(row):
            if predictions.is_closed(asked, scope_key):
                # If the input is not folded yet its horizon is not known. The longest one hides the answer long enough.
                scope = asked.scopes.get(scope_key) if asked else None
                latest = max(latest or 0, scope[2] if scope else opened_at + longest_ms)
    return latest


def _questions_until(predictions: Predictions, offset: int) -> int | None:
    """The same for posted questions. These may be open for months, so their open rounds have rows of their own."""
    latest: int | None = None
    for name, stored in predictions.store.stored(b"Q", start=None, backwards=False):
        row = value_of(stored)
        if row is None or version_of(stored) > offset:
            continue
        closes_at, scope_keys = _question_decoder.decode(row)
        asked = predictions.input(ids.question_of(name[1:-1].decode()))
        if any(predictions.is_closed(asked, scope_key) for scope_key in scope_keys):
            # If it was to close before now, it closes later than it was first said.
            latest = max(latest or 0, closes_at, predictions.resolved_until)
    return latest
