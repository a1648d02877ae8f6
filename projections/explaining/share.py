"""Gathers the recorded events of one model's share of a checkpoint, for `streams/audit/explain`.

Reads the rows of `checkpoints` and `snapshots`, and the decisions that they name.
"""

from __future__ import annotations

from coordinator.projections.explaining.log_reading import (
    ReadAppends,
    closing_source,
    read_placed,
    snapshot_source,
    terms_source,
    terms_told,
)
from coordinator.projections.explaining.typed_ids import (
    ID_CHARS_MAX,
    UnknownFigureError,
    checkpoint_of,
    shown,
)
from coordinator.projections.folding.as_of import Readable
from coordinator.projections.folding.past_held import check_rows_held
from coordinator.streams.audit.explain.figure_facts import ShareFacts
from coordinator.streams.contract.terms import TermsInForce
from coordinator.streams.events import CheckpointData, Terms
from coordinator.streams.log.errors import LogError

NEAR_MAX = 5


def share_facts(
    read: Readable,
    checkpoint_id: str,
    model_id: str,
    appends: ReadAppends,
    told: TermsInForce,
) -> ShareFacts:
    """The facts of one share. Raises UnknownFigureError, WorldError, LogError."""
    row = checkpoint_of(read, checkpoint_id)
    data = row.checkpoint
    model_ids = [entry.model_id for entry in data.ranking] + data.unranked
    if model_id not in model_ids:
        some = ", ".join(model_ids[:NEAR_MAX]) or "none"
        raise UnknownFigureError(
            f"checkpoint {data.checkpoint_id} neither ranks nor names model {shown(model_id[:ID_CHARS_MAX])}; it has "
            f"{len(model_ids)} models: {some}{' ..' if len(model_ids) > NEAR_MAX else ''}"
        )
    check_rows_held(read.snapshots, data.period_start, "the checkpoint's period")
    if not told:
        raise LogError("`snapshots` tells no terms, but there is a checkpoint")
    terms = told.at(data.period_start)
    own = sorted(
        read.snapshots.newest(data.period_start + 1, data.period_end, {model_id}),
        key=lambda row: row[1].period_start,
    )
    wanted = {
        "checkpoints": read.checkpoints.told_at(data.checkpoint_id),
        "snapshots": terms_told(read.snapshots.terms, terms.contract_hash),
    }
    closings = (
        list(read.snapshots.closings(data.period_start, data.period_end)) if _needs_closings(terms) else []
    )
    placed = read_placed(appends, wanted)
    return ShareFacts(
        checkpoint=data,
        model_id=model_id,
        status=row.status,
        made_good={later: prizes[model_id] for later, prizes in row.made_good.items() if model_id in prizes},
        owed=row.owed().get(model_id, 0),
        moves=[
            move
            for move in placed
            if move.topic == "checkpoints" and _is_of(getattr(move.event, "data", None), data)
        ],
        snapshots=[(snapshot, snapshot_source(read, at, snapshot)) for at, snapshot in own],
        closings=[
            (closing, closing_source(at, closing, offset)) for at, closing, offset in reversed(closings)
        ],
        terms=terms,
        configured=terms_source(placed, terms.contract_hash),
        contract_hash=data.emission_contract_hash or data.contract_hash,
    )


def _needs_closings(terms: Terms) -> bool:
    """Whether a model's key depends on rounds for which it has no snapshot."""
    return terms.min_participation > 0 or terms.newcomer_past != "nothing"


def _is_of(event_data: object, data: CheckpointData) -> bool:
    of = getattr(event_data, "checkpoint", event_data)
    return getattr(of, "checkpoint_id", None) == data.checkpoint_id
