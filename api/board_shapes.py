"""The shapes of the board's answers; `shapes.py` says what a shape is."""

from __future__ import annotations

from coordinator.api.shapes import Id, Naive, ScoreRanking, Shape, WithWindows, Zulu


class LeaderboardRow(WithWindows):
    """One model on the board, in display order. Unranked ones come last, `rank` null."""

    created_at: Naive
    model_id: Id
    score_metrics: dict[str, float | None]
    score_ranking: ScoreRanking
    ranking_score: float | None
    """The value of `score_ranking`, where a column of the web app can name it."""
    rank: int | None
    model_name: str
    cruncher_name: str
    cruncher_id: str
    username: str
    status: bool
    scored_count: int
    mixed_contracts: list[str]
    """The contracts' hashes, oldest first, where the board's windows mix rounds of several; else empty."""
    last_scored_at: Naive | None


class SeriesRow(Shape):
    """One model: its key score at each end, and its rank at `change_since`."""

    scores: list[float | None]
    change_from: int | None


class LeaderboardHistory(Shape):
    """Each model's way over the last periods."""

    ends: list[Zulu]
    series: dict[str, SeriesRow]
    change_since: Zulu | None
    period_seconds: int | None
    ranking_key: str | None
