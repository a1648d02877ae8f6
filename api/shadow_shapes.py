"""The shapes of what a shadow decides beside the live rules; `shapes.py` says what a shape is."""

from __future__ import annotations

from typing import Literal

from coordinator.api.checkpoint_shapes import Frac64
from coordinator.api.shapes import Id, Shape, Zulu


class ShadowState(Shape):
    """Whether a shadow was started, and under which rules. Without one everything but `started` and `paid` is null."""

    started: bool
    paid: Literal[False]
    contract: str | None
    contract_hash: str | None
    decided_from: Zulu | None
    decided_until: Zulu | None
    """Null also while it has decided nothing yet."""
    state: Literal["runs", "waits", "stopped", "failed"] | None
    reason: str | None
    divergence: str | None


class ShadowHead(Shape):
    """The rules of this answer. It is a shadow's, so nothing in it is paid."""

    shadow: Literal[True]
    paid: Literal[False]
    contract: str
    contract_hash: str
    decided_from: Zulu | None
    """The end of a checkpoint period, from which on the other rules hold in the shadow. Null: from the first event."""
    decided_until: Zulu
    """The event time up to which it has decided."""
    state: Literal["runs", "waits", "stopped", "failed"]
    reason: str
    """Why it failed, or what it waits for."""
    divergence: str
    """How it differs by as much as the operator's bounds say; empty where it does not."""


class ShadowModel(Shape):
    """One model on both sides: its places on the boards, its shares of the newest checkpoint of both."""

    model_id: Id
    model_name: str
    cruncher_name: str
    rank: int | None
    live_rank: int | None
    ranking_score: float | None
    live_ranking_score: float | None
    share_frac64: Frac64 | None
    live_share_frac64: Frac64 | None
    unranked_reason: str | None
    live_unranked_reason: str | None


class ShadowModels(ShadowHead):
    """The two boards may be of different times: see `board_at` and `live_board_at`. `checkpoint_end` is the end of the
    latest checkpoint that both sides have decided; null if there is none.
    """

    board_at: Zulu | None
    live_board_at: Zulu | None
    checkpoint_end: Zulu | None
    models: list[ShadowModel]


class ShadowPlace(Shape):
    """One model in a checkpoint on both sides."""

    model_id: Id
    rank: int | None
    share_frac64: Frac64
    live_rank: int | None
    live_share_frac64: Frac64


class ShadowPeriod(Shape):
    """A period on both sides. `note` says why there is no checkpoint, or why it would be withheld."""

    period_start: Zulu
    period_end: Zulu
    note: str
    live_note: str
    differs: bool
    models: list[ShadowPlace]


class ShadowPeriods(ShadowHead):
    """The newest first."""

    periods: list[ShadowPeriod]
