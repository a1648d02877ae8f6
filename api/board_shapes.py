"""The shapes of the board's answers; `shapes.py` says what a shape is."""

from __future__ import annotations

from typing import Literal

from coordinator.api.shapes import Id, Naive, ScoreRanking, Shape, WithWindows, Zulu


class LeaderboardRow(WithWindows):
    """One model on the board, in display order. Unranked models come last, with `rank` null."""

    created_at: Naive
    model_id: Id
    score_metrics: dict[str, float | None]
    score_ranking: ScoreRanking
    ranking_score: float | None
    """`score_ranking.value` again: a column of the web app can name only a field of the row itself."""
    rank: int | None
    model_name: str
    cruncher_name: str
    cruncher_id: str
    username: str
    status: bool
    ensemble: bool
    """A virtual model, made of the others' answers: never ranked, never paid."""
    scored_count: int
    mixed_contracts: list[str]
    """The hashes of the contracts, oldest first, if the board's windows hold rounds of several; otherwise empty."""
    ranked_as_of: Naive | None
    """If the board ranks by a key of the snapshot summary: the end of the period whose summaries these are."""
    last_scored_at: Naive | None
    unranked_reason: str | None
    """Why `rank` is null."""


class NamedBoard(Shape):
    """A board that can be asked for."""

    name: str
    kind: Literal["window", "board", "summary", "scope"]
    """A window or a board of the contract, or a key of the snapshot summary: `by`. A scope alone: `scope`."""
    decides: bool
    """Whether the contract ranks by it."""


class SeriesRow(Shape):
    """One model: its key score at each end, and its rank at `change_since`."""

    scores: list[float | None]
    change_from: int | None


class LeaderboardHistory(Shape):
    """Each model's key score at the ends of the last periods."""

    ends: list[Zulu]
    series: dict[str, SeriesRow]
    change_since: Zulu | None
    period_seconds: int | None
    ranking_key: str | None
