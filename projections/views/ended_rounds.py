"""Which rows of the read model of predictions are over, so that they leave it once they are before the horizon."""

from __future__ import annotations

import msgspec

from coordinator.projections.folding.projection import key
from coordinator.projections.storage.past_cut import Horizon
from coordinator.projections.storage.store import Store
from coordinator.projections.views.prediction_rows import RESOLVED, InputRow
from coordinator.streams.log import ids

_input_decoder = msgspec.msgpack.Decoder(InputRow)


def is_round_over(store: Store, row_key: bytes, row: bytes, horizon: Horizon) -> bool:
    """A round leaves once nothing more can come of it. The inputs of posted questions stay: however old they are, a
    late truth is recorded in their rows.
    """
    if row_key[:1] == b"I":
        return not ids.is_question(row_key[1:-1].decode()) and _input_decoder.decode(row).status == RESOLVED
    input_id = row_key[9 if row_key[:1] in (b"O", b"X") else 1 :].partition(b"\x00")[0].decode()
    name = b"I" + key(ids.question_of(input_id))
    raw = store.get(name)
    if raw is None:
        return not ids.is_question(input_id)  # its input has left before
    asked, written = _input_decoder.decode(raw), store.written_last_at(name)
    # Its last truth came before the horizon, and with it its checkpoint period is over: it is not scored again.
    return asked.status == RESOLVED and written is not None and written < horizon.cuts["inputs"]
