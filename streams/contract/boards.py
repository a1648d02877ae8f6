"""Boards: rankings of some scopes beside the whole one, by horizon, by subject, with a weight for each scope.

    Aggregation(
        boards=[
            Board(name="1h", horizon_seconds=3600, weights={"BTC": 1, "ETH": 0.7}),
            Board(name="1h anchor", horizon_seconds=3600, window="score_anchor"),
        ],
        checkpoint_key="1h",
    )

A board's number is an entry's `keys["1h"]` for the pools of a payout, and `checkpoint_key` may be its name.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from math import lcm, prod
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from coordinator.streams.events import BoardPart, BoardTerms, Scope
from coordinator.streams.log.errors import OperatorError

PERIOD = "period"
BOARDS_MAX = 256


class Board(BaseModel):
    """One board. Without a filter it is of all scopes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=100)
    """Its name: a column, and what `checkpoint_key` and pools call it."""
    subjects: list[str] | None = None
    """Only scopes of these subjects."""
    horizon_seconds: int | None = Field(default=None, gt=0)
    """Only scopes of this horizon."""
    scope_keys: list[str] | None = None
    """Only scopes of these keys."""
    weights: dict[str, float] = {}
    """What a scope weighs (above 0), by its subject or its key, both multiplied. What is not named weighs 1."""
    window: str = PERIOD
    """`period`: the scores of the checkpoint period; or the name of a window, as of the period's end."""
    weigh: Literal["scopes", "scores"] = "scopes"
    """`scopes`: the weighted mean of the scopes' means, so that a scope that is asked more often weighs no more.
    `scores`: the weighted mean of all scores, each with its scope's weight."""
    every_scope: bool = True
    """A model without a score in one of the scopes has no number here; False: it has that of its own scopes."""


def board_terms(boards: Sequence[Board], scopes: Sequence[Scope], windows: Sequence[str]) -> list[BoardTerms]:
    """The boards as terms: each with its scopes, and their weights as integers with a common factor.

    Raises OperatorError, which names the board, if a board has no scope, or names something that is not there.
    """
    terms: list[BoardTerms] = []
    for board in boards:
        parts = [
            (scope.subject, scope.scope_key, _weight(board, scope))
            for scope in scopes
            if (board.subjects is None or scope.subject in board.subjects)
            and (board.horizon_seconds is None or scope.horizon_seconds == board.horizon_seconds)
            and (board.scope_keys is None or scope.scope_key in board.scope_keys)
        ]
        named = {name for subject, key, _ in parts for name in (subject, key)}
        missing = sorted({*board.weights, *(board.subjects or []), *(board.scope_keys or [])} - named)
        wrong = ""
        if not parts:
            wrong = "no scope belongs to it"
        elif missing:
            wrong = f"none of its scopes has {', '.join(missing)}"
        elif any(weight <= 0 for *_, weight in parts):
            wrong = "a weight is not above 0"
        elif board.window != PERIOD and board.window not in windows:
            wrong = f"its window {board.window!r} is none of {list(windows)}"
        if wrong:
            message = f"aggregation.boards: board {board.name!r}: {wrong}"
            raise OperatorError(message)
        common = lcm(*(weight.denominator for *_, weight in parts))
        terms.append(
            BoardTerms(
                name=board.name,
                window="" if board.window == PERIOD else board.window,
                parts=[BoardPart(subject, key, str(int(weight * common))) for subject, key, weight in parts],
                every_scope=board.every_scope,
                of_scores=board.weigh == "scores",
            )
        )
    return terms


def _weight(board: Board, scope: Scope) -> Fraction:
    """The weight of a scope: that of its subject times that of its key, exact, by the decimal digits of each."""
    weights = [board.weights.get(name, 1.0) for name in (scope.subject, scope.scope_key)]
    return prod((Fraction(Decimal(repr(float(weight)))) for weight in weights), start=Fraction(1))
