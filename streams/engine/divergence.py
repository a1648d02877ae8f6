"""How far a shadow's decisions are from the live ones, in words for the operator who bounded it. Pure."""

from __future__ import annotations

import msgspec

from coordinator.streams.durations import moment_text
from coordinator.streams.engine.plan import ModelStanding
from coordinator.streams.engine.shadow import NO_CHECKPOINT, PeriodDecided, SideDecisions


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """How large a divergence must be to raise an alert. None: no alert."""

    rank_moves: int | None = None
    """In places on the board."""
    share_frac64: int | None = None
    """In billionths of a checkpoint's emission."""


def divergence(new: SideDecisions, live: SideDecisions, bounds: Bounds) -> str:
    """How the newest board and the newest checkpoint of both sides differ, in words; "" if by less than the bounds.

    Only the model with the largest difference is named. A model without a rank counts as one place behind the last.
    """
    texts = []
    if bounds.rank_moves is not None and new.board_end == live.board_end:
        old, places = live.board(), new.board()
        moves = {
            model_id: abs((places[model_id].rank or len(places) + 1) - (old[model_id].rank or len(old) + 1))
            for model_id in places
            if model_id in old
        }
        furthest = max(moves, key=lambda model_id: moves[model_id], default="")
        if furthest and moves[furthest] >= bounds.rank_moves:
            texts.append(
                f"{furthest} is {_place(old[furthest])} on the live board, "
                f"{_place(places[furthest])} on the shadow's"
            )
    both = newest_of_both(new, live)
    if bounds.share_frac64 is not None and both is not None:
        after, before = both
        differences = {
            model_id: abs(_share(after, model_id) - _share(before, model_id))
            for model_id in {**after.models, **before.models}
        }
        most = max(differences, key=lambda model_id: differences[model_id], default="")
        if most and differences[most] >= bounds.share_frac64:
            texts.append(
                f"{most} gets {_share(before, most) / 1e7:.2f} % of the checkpoint that ends at "
                f"{moment_text(after.end)}, and {_share(after, most) / 1e7:.2f} % under the shadow's rules"
            )
    return "; ".join(texts)


def why_uncompared(new: SideDecisions, live: SideDecisions, bounds: Bounds) -> str:
    """Why `divergence` says nothing of places now, in words; "" if it compares them, or was not asked to.

    Two boards of different times differ anyway: the shadow's is older while it catches up, and newer where the other
    rules close a period earlier.
    """
    if bounds.rank_moves is None or live.board_end is None or new.board_end == live.board_end:
        return ""
    live_end = moment_text(live.board_end)
    if new.board_end is None:
        return f"places are not compared: the shadow has no board yet; the live one ends at {live_end}"
    end = moment_text(new.board_end)
    if new.board_end < live.board_end:
        return f"places are not compared: the shadow is behind: its board ends at {end}, the live one at {live_end}"
    return f"places are not compared: the live board is behind: it ends at {live_end}, the shadow's at {end}"


def newest_of_both(new: SideDecisions, live: SideDecisions) -> tuple[PeriodDecided, PeriodDecided] | None:
    """(the shadow's, the live one) of the newest live checkpoint period that the shadow has decided, too.

    The shadow's is a checkpoint of the same period, or says that the shadow has none. Periods that only overlap,
    because the other rules cut them elsewhere, are not compared.
    """
    for paid in reversed(live.periods):
        overlapping = [
            period for period in new.periods if period.start < paid.end and paid.start < period.end
        ]
        same = [period for period in overlapping if (period.start, period.end) == (paid.start, paid.end)]
        if same:
            return same[0], paid
        # The shadow is past the period and has no checkpoint in it: under its rules nobody is paid.
        if not overlapping and new.board_end is not None and new.board_end >= paid.end:
            return PeriodDecided(paid.start, paid.end, {}, NO_CHECKPOINT), paid
    return None


def _share(decided: PeriodDecided, model_id: str) -> int:
    return decided.models.get(model_id, ModelStanding()).share_frac64


def _place(standing: ModelStanding) -> str:
    return "unranked" if standing.rank is None else f"number {standing.rank}"
