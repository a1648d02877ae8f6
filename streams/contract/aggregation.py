"""How scores become the numbers that a board, a checkpoint or a pool ranks by: windows, boards, their rules."""

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
    """An exponentially weighted mean: each new value weighs `alpha`, all before it 1 - alpha. It begins with the first
    value, is rounded to units at each step, and begins anew when nothing came for as long as its window is.
    """

    alpha: float = Field(gt=0, le=1)
    """The weight of the newest value: 0.003 remembers some 300 of them."""


class AggregationWindow(_Strict):
    """A named trailing window: one number per model, which the board, a checkpoint or a pool can rank by.

    AggregationWindow(name="day", hours=24)
    AggregationWindow(name="global", last=600, least=200)
    AggregationWindow(name="fast", rule=Ewma(alpha=0.003))
    AggregationWindow(name="overall", combines={"global": 0.6, "fast": 0.4})
    """

    name: str = Field(min_length=1, max_length=100)
    """Its name on the board, and what `ranking_key`, `checkpoint_key` and pools call it."""
    hours: int | None = Field(default=None, gt=0, le=24 * 3660)
    """What resolved within so many hours before a period's end. May be left out for `last`, `ewma` and `latest` (then
    it is a year) and is for `combines`."""
    last: int | None = Field(default=None, gt=0, le=10_000)
    """Only the newest so many scores and charges within `hours`."""
    least: int = Field(default=0, ge=0)
    """With fewer scores and charges the model has no number here, and is not ranked by it."""
    rule: Literal["mean", "sum", "latest"] | Ewma = "mean"
    """What becomes of the values: their mean, their sum, `Ewma(alpha=0.003)`, or the latest one alone. For a function
    of your own see `metrics` and `aggregate_snapshot`."""
    combines: dict[str, float] = {}
    """Name of a window before this one -> weight (above 0): the weighted mean of their numbers; none where one has
    none."""

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
        if any(not 0 < one < math.inf for one in self.combines.values()):
            raise ValueError(f"window {self.name!r}: a weight is a finite number above 0")
        return self


class RankingDirection(StrEnum):
    """`desc`: more is better."""

    ASC = "asc"
    DESC = "desc"


class Aggregation(_Strict):
    """How scores become a board and a payment.

    `ranking_key` is what the live board ranks by: a window, a board over a window, or a key of the snapshot summary.
    `checkpoint_key` is `period` (the mean over the whole checkpoint period), a window as of the period's end, a board,
    or a key of the snapshot summary. `coordinator contract check` refuses a name that is nowhere or means two things.
    """

    windows: list[AggregationWindow] = [
        AggregationWindow(name="score_recent", hours=24),
        AggregationWindow(name="score_steady", hours=72),
        AggregationWindow(name="score_anchor", hours=168),
    ]
    """Trailing windows: each a number per model and a column of the board."""
    boards: list[Board] = Field(default=[], max_length=BOARDS_MAX)
    """Rankings of some scopes beside the whole one, each with a number that pools and `checkpoint_key` may rank by."""
    value_field: str = "value"
    """The field of score_type that windows and boards are made of."""
    ranking_key: str = "score_recent"
    """What the live board ranks by: a window, a board over a window, or a key of the summary (of `aggregate_snapshot`,
    or a metric). A window moves with each score. A key of the summary is as of the end of the last closed snapshot
    period; the board says when that was, and a model without the number there has no rank."""
    checkpoint_key: str = "period"
    """What a checkpoint ranks by: `period`, a window, a board, or a key of the summary."""
    ranking_direction: RankingDirection = RankingDirection.DESC
    """`desc`: more is better; `asc`: less is."""
    metrics: Metrics | None = None
    """Metrics over the whole snapshot period (ic, max_drawdown, ..), each a key of the summary."""

    @model_validator(mode="after")
    def _names_mean_one_thing(self) -> Aggregation:
        names = [window.name for window in self.windows]
        if len(set(names)) != len(names):
            message = f"aggregation.windows: two windows share a name: {names}"
            raise ValueError(message)
        for window in self.windows:
            unknown = [one for one in window.combines if one not in names[: names.index(window.name)]]
            if unknown:
                message = (
                    f"aggregation.windows: {window.name!r} combines {unknown}, which are no windows before it"
                )
                raise ValueError(message)
        means = [one.name for one in self.windows if one.hours and one.rule == "mean" and not one.last]
        if unsummed := [one.window for one in self.boards if one.window in names and one.window not in means]:
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
