"""Computes a model's number on a board: the weighted mean of its scopes' means, or of its scores.

Pure. The mean is computed with exact fractions, and rounded once.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from coordinator.streams.events import BoardTerms, ScopeSum
from coordinator.streams.scores.units import weighted_mean_units


def scope_name(subject: str, scope_key: str) -> str:
    """The name of a scope in sums by scope."""
    return f"{subject}/{scope_key}"


def board_units(board: BoardTerms, sums: Mapping[str, ScopeSum]) -> int | None:
    """A model's number on a board, in units; None if it has none.

    The mean of a scope includes its charges, and may consist of charges alone: a model that is silent in one scope
    still has a number for it. A model without a score in any scope has no number on the board, because silence must not
    rank above a loss.
    """
    if not board_count(board, sums):
        return None
    parts: list[tuple[Fraction, Fraction | None]] = []
    for part in board.parts:
        total = sums.get(scope_name(part.subject, part.scope_key))
        mean = Fraction(total.sum_units, total.n) if total is not None and total.n else None
        if mean is not None or board.every_scope:
            times = total.n if total is not None and board.of_scores else 1
            parts.append((Fraction(int(part.weight) * times), mean))
    return weighted_mean_units(parts)


def board_count(board: BoardTerms, sums: Mapping[str, ScopeSum]) -> int:
    """How many scores a model has in the scopes of a board."""
    names = (scope_name(part.subject, part.scope_key) for part in board.parts)
    return sum(sums[name].scored for name in names if name in sums)
