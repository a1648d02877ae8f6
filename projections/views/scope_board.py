"""The live board of a single scope, and the names of all boards. Reads the sums of `leaderboard.py`.

A scope has no ranks: the contract ranks by windows over all scopes, or by its boards. So the rows are only sorted, and
`rank` is null.
"""

from __future__ import annotations

import msgspec

from coordinator.projections.views.board_places import board_places
from coordinator.projections.views.board_rows import Board, BoardRow
from coordinator.projections.views.board_windows import part_of
from coordinator.projections.views.leaderboard import Leaderboard
from coordinator.projections.views.model_rows import RUNNING
from coordinator.streams.scores.boards import scope_name
from coordinator.streams.snapshots.windows import NO_NUMBER, Number

NO_RANKS = "a scope alone has no ranks"


class BoardName(msgspec.Struct, frozen=True):
    """What a board is asked for by."""

    name: str
    kind: str
    """window, board (of the contract), summary (a key of the snapshot summary), or scope."""
    decides: bool
    """Whether the contract ranks by it."""


def board_names(leaderboard: Leaderboard) -> list[BoardName]:
    """All that the live board can be asked for, that of the contract first. Empty before the first terms."""
    terms = leaderboard.terms_now
    if terms is None:
        return []
    kinds = dict.fromkeys(sorted(leaderboard.summary_keys()), "summary")
    kinds |= {board.name: "board" for board in terms.boards if board.window}
    kinds |= {window.name: "window" for window in terms.windows}
    order = [*(window.name for window in terms.windows), *(board.name for board in terms.boards), *kinds]
    names = dict.fromkeys(name for name in (terms.ranking_key, *order) if name in kinds)
    scopes = {scope for of_window in leaderboard.live_sums(terms).values() for scope in of_window}
    return [
        *(BoardName(name, kinds[name], name == terms.ranking_key) for name in names),
        *(BoardName(scope_name(*scope), "scope", decides=False) for scope in sorted(scopes)),
    ]


def scope_board(leaderboard: Leaderboard, name: str) -> Board | None:
    """The windows of one scope (SUBJECT/SCOPE_KEY) at the end of the board; None before the first terms.

    The rows are in the order of the contract's window, or of its first one that is made of sums. Raises KeyError if
    no score of that scope is in any window.
    """
    terms = leaderboard.terms_now
    if terms is None:
        return None
    subject, _, scope_key = name.rpartition("/")
    windows = {window.name: window for window in terms.summed_windows}
    cells = {
        window: of_window.get((subject, scope_key), {})
        for window, of_window in leaderboard.live_sums(terms).items()
    }
    if not any(cells.values()):
        raise KeyError(name)
    ordered_by = terms.ranking_key if terms.ranking_key in windows else next(iter(windows))
    numbers = {
        window: {
            model_id: Number(part_of(windows[window], cell), cell[2]) for model_id, cell in of_model.items()
        }
        for window, of_model in cells.items()
    }
    models = {model_id: leaderboard.models.get(model_id) for model_id in set().union(*numbers.values())}
    keys = {model_id: numbers[ordered_by].get(model_id, NO_NUMBER) for model_id in models}
    rows = [
        BoardRow(
            None,
            models[model_id],
            models[model_id].status == RUNNING,
            {window: numbers[window].get(model_id, NO_NUMBER).units for window in windows},
            keys[model_id].scored,
            None,
            NO_RANKS,
        )
        for _, model_id in board_places(models, {}, keys, terms.ranking_direction)
    ]
    contracts = leaderboard.contracts_in_windows(terms)
    return Board(
        leaderboard.until, ordered_by, terms.ranking_direction, terms.score_decimals, rows, contracts
    )
