"""A model's windows in one scope, and where in the log they were closed, for an explanation.

Reads the rows and sums of `leaderboard.py`.
"""

from __future__ import annotations

import msgspec

from coordinator.projections.folding.projection import key
from coordinator.projections.views.board_windows import part_of
from coordinator.projections.views.leaderboard import Leaderboard

_decoder = msgspec.msgpack.Decoder(dict[str, dict[str, int | None]])


def scope_windows(
    leaderboard: Leaderboard, model_id: str, subject: str, scope_key: str
) -> dict[str, int | None] | None:
    """A model's windows in one scope at the end of the board; None if no window has a score of the model."""
    terms = leaderboard.terms_now
    if terms is None:
        return None
    sums = leaderboard.live_sums(terms)
    cells = {name: scopes.get((subject, scope_key), {}).get(model_id) for name, scopes in sums.items()}
    if not any(cells.values()):
        return None
    return {window.name: part_of(window, cells[window.name] or (0, 0, 0)) for window in terms.summed_windows}


def scope_history(
    leaderboard: Leaderboard, until: int, model_id: str, subject: str, scope_key: str
) -> dict[str, int | None] | None:
    """The same at the end `until` (ms) of a snapshot period."""
    row = leaderboard.store.get(b"W" + key(until, subject, scope_key))
    return _decoder.decode(row).get(model_id) if row else None


def closed_at(leaderboard: Leaderboard, until: int, subject: str, scope_key: str) -> list[int]:
    """The offset in `scores` of the decision that closed this period."""
    return leaderboard.store.written_at(b"W" + key(until, subject, scope_key))[-1:]
