"""The part of a contract that says how scores become the numbers of a ranking: windows, boards, metrics.

The snapshot and checkpoint stages read it. The validators refuse a name that means two things, since a board, a
checkpoint and a pool refer to these numbers by name. Pure.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from coordinator.streams.contract.boards import BOARDS_MAX, Board
from coordinator.streams.contract.metrics import Metrics


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Ewma(_Strict):
    """An exponentially weighted mean: each new value has the weight `alpha`, the mean before it 1 - alpha.

    It starts with the first value, and is rounded to units at each step. If there was no value for as long as its
    window, it restarts.
    """

    alpha: float = Field(gt=0, le=1)
    """The weight of the newest value. With 0.003 the mean covers about the last 300 values."""


class AggregationWindow(_Strict):
    """A named trailing window: one number per model, which the board, a checkpoint or a pool can rank by.

    AggregationWindow(name="day", hours=24)
    AggregationWindow(name="global", last=600, least=200)
    AggregationWindow(name="fast", rule=Ewma(alpha=0.003))
    AggregationWindow(name="overall", combines={"global": 0.6, "fast": 0.4})
    """

    name: str = Field(min_length=1, max_length=100)
    """Its name on the board, and in `ranking_key`, `checkpoint_key` and the key of a pool."""
    hours: int | None = Field(default=None, gt=0, le=24 * 3660)
    """The window has what resolved in this many hours before the end of a period. It may be left out with `last`,
    `Ewma` and `latest` (then it is a year). With `combines` it must be left out.
    """
    last: int | None = Field(default=None, gt=0, le=10_000)
    """Only this many of the newest scores and charges within `hours`."""
    least: int = Field(default=0, ge=0)
    """The least number of scores and charges. A model with fewer has no number in this window, and no rank by it."""
    rule: Literal["mean", "sum", "latest"] | Ewma = "mean"
    """How the values become one number: their mean, their sum, `Ewma(alpha=0.003)`, or the latest value alone. For your
    own function see `metrics` and `aggregate_snapshot`."""
    combines: dict[str, float] = {}
    """Name of an earlier window -> weight (above 0). The number is the weighted mean of theirs. A model that has none
    in one of them has none here.
    """

    @model_validator(mode="after")
    def _says_one_thing(self) -> AggregationWindow:
        in_order = self.last is not None or self.rule == "latest" or isinstance(self.rule, Ewma)
        if self.combines:
            if in_order or self.hours or self.least or self.rule != "mean":
                raise ValueError(f"window {self.name!r}: it combines other windows, and can say nothing more")
        elif self.hours is None and not in_order:
            raise ValueError(f"window {self.name!r}: hours is missing")
        if self.last is not None and self.least > self.last:
            raise ValueError(
                f"window {self.name!r}: of the last {self.last} there are never {self.least}; least is at most last"
            )
        if any(not 0 < weight < math.inf for weight in self.combines.values()):
            raise ValueError(f"window {self.name!r}: a weight is a finite number above 0")
        return self


class RankingDirection(StrEnum):
    """`desc`: more is better."""

    ASC = "asc"
    DESC = "desc"


class Aggregation(_Strict):
    """How scores become a board and a payment.

    The live board ranks by `ranking_key`: a window, a board over a window, or a key of the snapshot summary.
    A checkpoint ranks by `checkpoint_key`: `period` (the mean over the whole checkpoint period), a window as of the end
    of the period, a board, or a key of the snapshot summary. `coordinator contract check` refuses an unknown name, and
    one that means two things.
    """

    windows: list[AggregationWindow] = [
        AggregationWindow(name="score_recent", hours=24),
        AggregationWindow(name="score_steady", hours=72),
        AggregationWindow(name="score_anchor", hours=168),
    ]
    """Trailing windows. Each gives a number per model, and is a column of the board."""
    boards: list[Board] = Field(default=[], max_length=BOARDS_MAX)
    """Rankings over some of the scopes, beside that over all. Pools and `checkpoint_key` may rank by their numbers."""
    value_field: str = "value"
    """The field of score_type from which windows and boards are computed."""
    ranking_key: str = "score_recent"
    """The number that the live board ranks by: a window, a board over a window, or a key of the summary (from
    `aggregate_snapshot`, or a metric). A window changes with each score. A key of the summary is as of the end of the
    last closed snapshot period; the board shows that time. A model without the number has no rank."""
    checkpoint_key: str = "period"
    """The number that a checkpoint ranks by: `period`, a window, a board, or a key of the summary."""
    ranking_direction: RankingDirection = RankingDirection.DESC
    """`desc`: more is better; `asc`: less is better."""
    metrics: Metrics | None = None
    """Metrics over the whole snapshot period (ic, max_drawdown, ..), each a key of the summary."""

    @model_validator(mode="after")
    def _names_mean_one_thing(self) -> Aggregation:
        names = [window.name for window in self.windows]
        if len(set(names)) != len(names):
            message = f"aggregation.windows: two windows share a name: {names}"
            raise ValueError(message)
        for window in self.windows:
            unknown = [name for name in window.combines if name not in names[: names.index(window.name)]]
            if unknown:
                message = (
                    f"aggregation.windows: {window.name!r} combines {unknown}, which are no windows before it"
                )
                raise ValueError(message)
        # A board is computed from the sums of each scope, and only these windows have such sums.
        means = [
            window.name
            for window in self.windows
            if window.hours and window.rule == "mean" and not window.last
        ]
        if unsummed := [
            board.window for board in self.boards if board.window in names and board.window not in means
        ]:
            message = f"aggregation.boards: {unsummed} are no means over hours, and have no sums by scope"
            raise ValueError(message)
        boards = [board.name for board in self.boards]
        taken = {*names, "period", self.value_field}
        if len(set(boards)) != len(boards) or taken & set(boards):
            message = f"aggregation.boards: a name means two things: {boards} beside {sorted(taken)}"
            raise ValueError(message)
        both = sorted({*names, *boards, "period"}.intersection(self.metrics.keys if self.metrics else ()))
        if both:
            message = f"aggregation.metrics: {both} name a window, a board or the period too; one name means one thing"
            raise ValueError(message)
        return self
