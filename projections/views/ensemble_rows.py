"""Rows of the read model of predictions that hold the newest alone, older ones being in the log: an ensemble's round in
each scope, and what a model or an ensemble carries from round to round.
"""

from __future__ import annotations

import msgspec

from coordinator.projections.folding.base import key
from coordinator.projections.storage.batch import Batch
from coordinator.projections.views.prediction_rows import StateRow
from coordinator.streams.events import NO_OUTPUT, EnsemblesScored, StateCarried

_json = msgspec.json.Encoder()


class EnsembleRow(msgspec.Struct, frozen=True):
    """An ensemble's newest round in one scope. JSON, for its answer is."""

    ensemble_id: str
    subject: str
    scope_key: str
    at: int
    point: int
    input_id: str
    contract_hash: str
    members: dict[str, int]
    """Model -> what it weighs, in parts of 10**9."""
    output: msgspec.Raw
    """Its answer; null where it has none, or one that is in the log alone."""
    output_bytes: int
    units: dict[str, int]
    reason: str


read_ensemble = msgspec.json.Decoder(EnsembleRow).decode


def keep_ensembles(event: EnsemblesScored, batch: Batch, output_bytes_max: int) -> None:
    """Put the row `V` of each ensemble, and what it carries. An answer of more bytes than that is left to the log."""
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
    """Put the row `D` of each model, or ensemble, whose carried state the event changed."""
    data = event.data
    for model_id, state in data.states.items():
        newest = b"D" + key(model_id, data.holder)
        if bytes(state) == b"null":
            batch.delete(newest)
        else:
            made = StateRow(event.at, data.input_id, data.subject, data.scope_key, data.holder, state)
            batch.put(newest, _json.encode(made))
