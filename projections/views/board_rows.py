"""What the read model of the leaderboard answers: a board with its rows, and rows of its history."""

from __future__ import annotations

import msgspec

from coordinator.projections.views.model_rows import ModelRow


class BoardRow(msgspec.Struct, frozen=True):
    """A row of the board. `windows_units` has null for a window without a number, and the summary's key if that ranks.

    `rank` is null without a number by which the board ranks, and for an ensemble, which takes no place.
    """

    rank: int | None
    model: ModelRow
    active: bool
    windows_units: dict[str, int | None]
    scored_count: int
    last_scored_at: int | None = None
    """The resolvable time of its newest score (ms)."""
    unranked_reason: str = ""
    """Why it has no rank; "" if it has one."""


class Board(msgspec.Struct, frozen=True):
    """The whole board as of `until` (ms of event time)."""

    until: int
    ranking_key: str
    direction: str
    decimals: int
    rows: list[BoardRow]
    contracts: list[str]
    """The contracts whose rounds are in the windows, the oldest first. With several, the windows mix their rules."""
    ranked_as_of: int | None = None
    """If it ranks by a key of the summary: the end (ms) of the snapshot period whose summaries these are."""

    @property
    def mixed_contracts(self) -> list[str]:
        """The contracts if the windows mix rounds of several, otherwise empty."""
        return self.contracts if len(self.contracts) > 1 else []


class HistoryRow(msgspec.Struct, frozen=True):
    """One model's windows in one scope, ending at `until`."""

    until: int
    subject: str
    scope_key: str
    model_id: str
    windows_units: dict[str, int | None]
