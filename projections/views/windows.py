"""Sums over trailing windows of buckets. Pure.

A bucket is one snapshot interval; a window of W hours that ends at T covers [floor(T/b)*b - W, T). All
windows are summed in one pass from the newest bucket to the oldest, since the longer ones contain the
shorter.
"""

from __future__ import annotations

from collections.abc import Mapping

from coordinator.streams.events import BoardTerms, ScopeSum, Terms, Window
from coordinator.streams.scores.boards import board_count, board_units, scope_name
from coordinator.streams.scores.units import mean_units
from coordinator.streams.snapshots.windows import NO_NUMBER, Number, numbers_of_windows, of_sums

HOUR_MS = 3_600_000
Sums = dict[str, list[int]]
"""field -> [sum in units, n]"""
Bucket = dict[str, Sums]
"""model_id -> its sums"""
Scope = tuple[str, str]
"""(subject, scope_key)"""
Cell = tuple[int, int, int]
"""(sum in units, n, how many of the n are scores): the rest are charges for absence"""
WindowSums = dict[Scope, dict[str, Cell]]
"""scope -> model_id -> its cell, of one field"""
CHARGES = "\x00charges"
"""The field of a bucket that holds what absences cost; no contract can name a score field so."""

LAST = "\x00last"
"""The field of a bucket that holds when a model was last scored (ms); the same holds for its name."""


def window_sums(
    buckets: Mapping[int, Mapping[Scope, Bucket]], until: int, terms: Terms, since: int = 0
) -> dict[str, WindowSums]:
    """Window name -> scope -> model_id -> (sum in units, n, how many of the n are scores), of the value field.

    `until` and `since` are ms. A bucket belongs to each window that its start lies in. Buckets before `since` are left
    out: their scores were made by terms with another meaning, and adding them would mix units.
    """
    end = until // terms.snapshot_interval_ms * terms.snapshot_interval_ms
    field = terms.value_field
    starts = sorted((start for start in buckets if start < until), reverse=True)
    # From the shortest window to the longest, and from the newest bucket to the oldest: a longer window contains the
    # shorter one, so its sums go on from there and no bucket is added twice.
    running: dict[Scope, dict[str, list[int]]] = {}
    sums_of_window: dict[str, WindowSums] = {}
    at = 0
    for window in sorted(terms.summed_windows, key=lambda one: one.hours):
        oldest = max(end - window.hours * HOUR_MS, since)
        while at < len(starts) and starts[at] >= oldest:
            for scope, bucket in buckets[starts[at]].items():
                totals = running.setdefault(scope, {})
                for model_id, sums in bucket.items():
                    _add_cell(totals.setdefault(model_id, [0, 0, 0]), sums, field, 1)
            at += 1
        cells = {
            scope: {one: (total[0], total[1], total[2]) for one, total in totals.items() if total[1]}
            for scope, totals in running.items()
        }
        sums_of_window[window.name] = {scope: of_scope for scope, of_scope in cells.items() if of_scope}
    return sums_of_window


def mean_of(cell: Cell | None) -> int | None:
    """The mean in units (integer, see `mean_units`), or None where nothing was scored.

    A model with charges for absence alone has no score: it must not be ranked by them.
    """
    return mean_units(cell[0], cell[1]) if cell is not None and cell[2] else None


def part_of(window: Window, cell: Cell) -> int | None:
    """What one scope adds to a window that follows from sums: its sum or its mean, as the window's rule is.

    The window's `least` is of all scopes together, and is not asked of one of them.
    """
    return cell[0] if window.rule == "sum" and cell[2] else mean_of(cell)


def _add_cell(total: list[int], sums: Sums, field: str, sign: int) -> None:
    cell = sums.get(field)
    if cell is not None:
        total[0] += sign * cell[0]
        total[1] += sign * cell[1]
        total[2] += sign * cell[1]
    charged = sums.get(CHARGES)
    if charged is not None:
        total[0] += sign * charged[0]
        total[1] += sign * charged[1]


class TrailingSums:
    """The same sums, kept from one call to the next: buckets that entered a window are added, those that left it are
    subtracted.

    Buckets before the last full boundary are held as sums; the open ones behind it are added at each call. Whoever
    changes or drops a bucket calls `touch` before: if it is part of the held sums, the next call sums everything anew.
    """

    def __init__(self) -> None:
        self._terms: Terms | None = None
        self._end = self._since = 0
        self._kept: dict[str, dict[Scope, dict[str, list[int]]]] = {}

    def touch(self, start: int) -> None:
        """The bucket at `start` is about to change, or be dropped."""
        if self._terms is None or start >= self._end:
            return
        longest = self._terms.hours_max * HOUR_MS
        if start >= self._end - longest:
            self._terms = None

    def at(
        self, buckets: Mapping[int, Mapping[Scope, Bucket]], until: int, terms: Terms, since: int = 0
    ) -> dict[str, WindowSums]:
        """As `window_sums`."""
        end = until // terms.snapshot_interval_ms * terms.snapshot_interval_ms
        if self._terms != terms or end < self._end or since != self._since:
            self._kept = {
                name: {
                    scope: {model_id: list(cell) for model_id, cell in totals.items()}
                    for scope, totals in sums.items()
                }
                for name, sums in window_sums(buckets, end, terms, since).items()
            }
        elif end > self._end:
            for window in terms.summed_windows:
                kept = self._kept[window.name]
                span = window.hours * HOUR_MS
                for start, scopes in buckets.items():
                    oldest = max(end - span, since)
                    came = self._end <= start < end and start >= oldest
                    fell = max(self._end - span, since) <= start < min(oldest, self._end)
                    if came or fell:
                        _add(kept, scopes, terms.value_field, 1 if came else -1)
        self._terms, self._end, self._since = terms, end, since
        open_buckets = [scopes for start, scopes in buckets.items() if end <= start < until]
        sums_of_window: dict[str, WindowSums] = {}
        for window in terms.summed_windows:
            sums = self._kept[window.name]
            if open_buckets:
                sums = {scope: {one: cell[:] for one, cell in kept.items()} for scope, kept in sums.items()}
                for scopes in open_buckets:
                    _add(sums, scopes, terms.value_field, 1)
            sums_of_window[window.name] = {
                scope: {model_id: (cell[0], cell[1], cell[2]) for model_id, cell in totals.items()}
                for scope, totals in sums.items()
                if totals
            }
        return sums_of_window


def _add(
    cells_of_scope: dict[Scope, dict[str, list[int]]], scopes: Mapping[Scope, Bucket], field: str, sign: int
) -> None:
    for scope, bucket in scopes.items():
        totals = cells_of_scope.setdefault(scope, {})
        for model_id, sums in bucket.items():
            total = totals.setdefault(model_id, [0, 0, 0])
            _add_cell(total, sums, field, sign)
            if total[1] == 0:  # no score is left in the window, which is not a score of 0
                del totals[model_id]


def numbers_by_model(
    terms: Terms, sums: Mapping[str, WindowSums], at_period_end: Mapping[str, Mapping[str, Number]]
) -> dict[str, dict[str, Number]]:
    """Window, and board over a window -> model_id -> its number.

    `at_period_end` has, by model, the windows that do not follow from sums: as the last snapshot has them. Where
    newcomers have a past it has all of them, and the sums say only how many scores are in each.
    """
    cells = {name: over_scopes(of_window) for name, of_window in sums.items()}
    if terms.newcomer_past != "nothing":
        return _with_past(terms, sums, cells, at_period_end)
    found: dict[str, dict[str, Number]] = {}
    if all(window.plain for window in terms.windows):
        for window in terms.windows:
            found[window.name] = {
                model_id: Number(mean_of(cell), cell[2]) for model_id, cell in cells[window.name].items()
            }
    else:
        found = {window.name: {} for window in terms.windows}
        for model_id in set(at_period_end).union(*cells.values()):
            ended = at_period_end.get(model_id, {})
            numbers = {name: of_model.get(model_id, (0, 0, 0)) for name, of_model in cells.items()}

            def number(
                window: Window,
                ended: Mapping[str, Number] = ended,
                numbers: Mapping[str, Cell] = numbers,
            ) -> Number:
                if window.of_sums:
                    return of_sums(window, *numbers[window.name])
                return ended.get(window.name, NO_NUMBER)

            for name, value in numbers_of_windows(terms.windows, number).items():
                found[name][model_id] = value
    for board in terms.boards:
        if board.window:
            found[board.name] = _board(board, sums[board.window])
    return found


def _with_past(
    terms: Terms,
    sums: Mapping[str, WindowSums],
    cells: Mapping[str, Mapping[str, Cell]],
    at_period_end: Mapping[str, Mapping[str, Number]],
) -> dict[str, dict[str, Number]]:
    scored = {
        name: {model_id: cell[2] for model_id, cell in of_window.items()} for name, of_window in cells.items()
    }
    for board in terms.boards:
        if board.window:
            scored[board.name] = {
                model_id: number.scored for model_id, number in _board(board, sums[board.window]).items()
            }
    names = [*(window.name for window in terms.windows), *(one.name for one in terms.boards if one.window)]
    return {
        name: {
            model_id: Number(numbers[name].units, scored.get(name, {}).get(model_id, numbers[name].scored))
            for model_id, numbers in at_period_end.items()
            if name in numbers
        }
        for name in names
    }


def _board(board: BoardTerms, sums: WindowSums) -> dict[str, Number]:
    by_model: dict[str, dict[str, ScopeSum]] = {}
    for scope, cells in sums.items():
        for model_id, cell in cells.items():
            by_model.setdefault(model_id, {})[scope_name(*scope)] = ScopeSum(*cell)
    return {
        model_id: Number(board_units(board, scopes), board_count(board, scopes))
        for model_id, scopes in by_model.items()
    }


def over_scopes(sums: WindowSums) -> dict[str, Cell]:
    """model_id -> its cell summed over all scopes: the board ranks a model as a whole."""
    cell_of_model: dict[str, Cell] = {}
    for totals in sums.values():
        for model_id, (total, n, scored) in totals.items():
            before = cell_of_model.get(model_id, (0, 0, 0))
            cell_of_model[model_id] = (before[0] + total, before[1] + n, before[2] + scored)
    return cell_of_model
