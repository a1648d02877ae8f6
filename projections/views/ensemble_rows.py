"""Rows of the read model of predictions that hold only the newest state; older ones are in the log.

These are the newest round of each ensemble in each scope, and the state that a model or an ensemble carries from round
to round. Folds EnsemblesScored and StateCarried of `scores`.
"""

from __future__ import annotations

import msgspec

from coordinator.projections.folding.projection import key
from coordinator.projections.storage.batch import Batch
from coordinator.projections.views.prediction_rows import StateRow
from coordinator.streams.events import NO_OUTPUT, EnsemblesScored, StateCarried

_json = msgspec.json.Encoder()


class EnsembleRow(msgspec.Struct, frozen=True):
    """An ensemble's newest round in one scope. The row is JSON, because its answer is."""

    ensemble_id: str
    subject: str
    scope_key: str
    at: int
    point: int
    input_id: str
    contract_hash: str
    members: dict[str, int]
    """Model -> its weight times 10**9."""
    output: msgspec.Raw
    """Its answer; null if it has none, or a large one, which is only in the log."""
    output_bytes: int
    units: dict[str, int]
    reason: str


read_ensemble = msgspec.json.Decoder(EnsembleRow).decode


def keep_ensembles(event: EnsemblesScored, batch: Batch, output_bytes_max: int) -> None:
    """Write the row `V` of each ensemble, and its state. An answer of more than `output_bytes_max` is left out."""
    keep_states(event, batch)
    data = event.data
    for i, entry in enumerate(data.entries()):
        output = bytes(data.outputs[i])
        row = EnsembleRow(
            ensemble_id=entry.model_id,
            subject=data.subject,
            scope_key=data.scope_key,
            at=event.at,
            point=data.point,
            input_id=data.input_id,
            contract_hash=data.contract_hash,
            members={
                model_id: units
                for model_id, units in zip(data.answered, data.weights[i], strict=False)
                if units
            },
            output=data.outputs[i] if len(output) <= output_bytes_max else NO_OUTPUT,
            output_bytes=0 if output == b"null" else len(output),
            units=entry.units,
            reason=entry.reason,
        )
        batch.put(b"V" + key(entry.model_id, data.subject, data.scope_key), _json.encode(row))


def keep_states(event: StateCarried | EnsemblesScored, batch: Batch) -> None:
    """Write the row `D` of each model or ensemble whose carried state the event changed."""
    data = event.data
    for model_id, state in data.states.items():
        newest = b"D" + key(model_id, data.holder)
        if bytes(state) == b"null":
            batch.delete(newest)
        else:
            row = StateRow(event.at, data.input_id, data.subject, data.scope_key, data.holder, state)
            batch.put(newest, _json.encode(row))


def keep_round_states(event: StateCarried, batch: Batch) -> None:
    """Add the states as this round left them to its row, and take over what the holder's models share."""
    data = event.data
    name = b"C" + key(data.input_id, data.scope_key)
    row = batch.get(name)
    before = msgspec.json.decode(row, type=dict[str, msgspec.Raw]) if row else {}
    batch.put(name, msgspec.json.encode({**before, **data.states}))
    for state in data.shared:
        batch.put(b"E" + key(data.holder), bytes(state))
