"""Sums over trailing windows of buckets, and the numbers of the board that follow from them. Pure.

A bucket is one snapshot interval b. A window of W hours that ends at T covers [floor(T/b)*b - W, T). `window_sums`
sums all windows again; `TrailingSums` keeps the sums from one call to the next.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence

import msgspec

from coordinator.projections.folding.projection import encode_row, wide
from coordinator.streams.durations import HOUR_MS
from coordinator.streams.events import (
    BoardTerms,
    RoundRescoredData,
    RoundScoredData,
    ScopeSum,
    Terms,
    Window,
)
from coordinator.streams.scores.boards import board_count, board_units, scope_name
from coordinator.streams.scores.past_scores import Sums
from coordinator.streams.scores.units import mean_units
from coordinator.streams.snapshots.windows import NO_NUMBER, Number, numbers_of_windows, of_sums

Bucket = dict[str, Sums]
"""model_id -> its sums"""
Scope = tuple[str, str]
"""(subject, scope_key)"""
Cell = tuple[int, int, int]
"""(sum of units, number of values, how many of these are scores): the others are charges for absence"""
WindowSums = dict[Scope, dict[str, Cell]]
"""scope -> model_id -> its cell, of one field"""
Cells = dict[Scope, dict[str, list[int]]]
"""The same, which can be changed."""
CHARGES = "\x00charges"
"""The field of a bucket for charges for absence. No contract can have a score field of this name."""

LAST = "\x00last"
"""The field of a bucket for the time (ms) at which a model was last scored. No score field can have this name,
either.
"""

_bucket_decoder = msgspec.msgpack.Decoder(Bucket)
_wide_bucket_decoder = msgspec.msgpack.Decoder(dict[str, dict[str, tuple[int | str, int]]])


def bucket_of(row: bytes) -> Bucket:
    """A bucket as it was stored. A sum of more than 64 bits is text there (`wide`)."""
    try:
        return _bucket_decoder.decode(row)
    except msgspec.ValidationError:
        return {
            model_id: {field: [int(total), n] for field, (total, n) in sums.items()}
            for model_id, sums in _wide_bucket_decoder.decode(row).items()
        }


def bucket_row(bucket: Bucket) -> bytes:
    """The bucket as `bucket_of` reads it."""
    try:
        return encode_row(bucket)
    except OverflowError:
        return encode_row(
            {
                model_id: {field: (wide(total), n) for field, (total, n) in sums.items()}
                for model_id, sums in bucket.items()
            }
        )


def window_sums(
    buckets: Mapping[int, Mapping[Scope, Bucket]], until: int, terms: Terms, since: int = 0
) -> dict[str, WindowSums]:
    """Window -> scope -> model_id -> its cell of the value field.

    `until` and `since` are in ms. A bucket belongs to every window that contains its start. Buckets before `since` are
    left out, because under the terms of that time scores meant something else.
    """
    end = until // terms.snapshot_interval_ms * terms.snapshot_interval_ms
    field = terms.value_field
    starts = sorted((start for start in buckets if start < until), reverse=True)
    # From the shortest window to the longest, and from the newest bucket to the oldest: a longer window contains the
    # shorter one, so its sums continue from there, and no bucket is added twice.
    running: Cells = {}
    sums_of_window: dict[str, WindowSums] = {}
    at = 0
    for window in sorted(terms.summed_windows, key=lambda window: window.hours):
        oldest = max(end - window.hours * HOUR_MS, since)
        while at < len(starts) and starts[at] >= oldest:
            for scope, bucket in buckets[starts[at]].items():
                totals = running.setdefault(scope, {})
                for model_id, sums in bucket.items():
                    _add_cell(totals.setdefault(model_id, [0, 0, 0]), sums, field, 1)
            at += 1
        cells = {
            scope: {
                model_id: (total[0], total[1], total[2]) for model_id, total in totals.items() if total[1]
            }
            for scope, totals in running.items()
        }
        sums_of_window[window.name] = {scope: of_scope for scope, of_scope in cells.items() if of_scope}
    return sums_of_window


def last_scored(bucket: Bucket) -> Iterator[tuple[str, int]]:
    """(model_id, when it was last scored in this bucket, in ms)."""
    return ((model_id, sums[LAST][0]) for model_id, sums in bucket.items() if LAST in sums)


def mean_of(cell: Cell | None) -> int | None:
    """The mean in units (an integer, see `mean_units`); None if nothing was scored.

    A model with charges alone has no mean, because it must not be ranked by them.
    """
    return mean_units(cell[0], cell[1]) if cell is not None and cell[2] else None


def part_of(window: Window, cell: Cell) -> int | None:
    """The number of one scope in a window over sums: its sum or its mean, by the window's rule.

    `least` of the window counts the values of all scopes together, so it does not apply to one scope.
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
    """The sums of `window_sums`, kept from one call to the next.

    Buckets that entered a window are added, and those that left it are subtracted. Only closed buckets are in the kept
    sums; open ones are added at each call. Before a bucket is changed or dropped, call `touch`: if it is in the kept
    sums, the next call sums everything again.
    """

    def __init__(self) -> None:
        self._terms: Terms | None = None
        self._end = self._since = 0
        self._kept: dict[str, Cells] = {}
        """Window -> its sums."""

    def touch(self, start: int) -> None:
        """The bucket at `start` will be changed or dropped."""
        if self._terms is None or start >= self._end:
            return
        longest = self._terms.hours_max * HOUR_MS
        if start >= self._end - longest:
            self._terms = None

    def at(
        self, buckets: Mapping[int, Mapping[Scope, Bucket]], until: int, terms: Terms, since: int = 0
    ) -> dict[str, WindowSums]:
        """The sums, as `window_sums` gives them."""
        end = until // terms.snapshot_interval_ms * terms.snapshot_interval_ms
        if self._terms != terms or end < self._end or since != self._since:
            self._kept = {
                name: _copied(sums) for name, sums in window_sums(buckets, end, terms, since).items()
            }
        elif end > self._end:
            self._move(buckets, end, terms, since)
        self._terms, self._end, self._since = terms, end, since
        open_buckets = [scopes for start, scopes in buckets.items() if end <= start < until]
        sums_of_window: dict[str, WindowSums] = {}
        for window in terms.summed_windows:
            sums = self._kept[window.name]
            if open_buckets:
                sums = _copied(sums)
                for scopes in open_buckets:
                    _add(sums, scopes, terms.value_field, 1)
            sums_of_window[window.name] = {
                scope: {model_id: (cell[0], cell[1], cell[2]) for model_id, cell in totals.items()}
                for scope, totals in sums.items()
                if totals
            }
        return sums_of_window

    def _move(
        self, buckets: Mapping[int, Mapping[Scope, Bucket]], end: int, terms: Terms, since: int
    ) -> None:
        """Move the end of the kept sums to `end`: add the buckets that enter a window, subtract those that leave it."""
        for window in terms.summed_windows:
            span = window.hours * HOUR_MS
            oldest, oldest_before = max(end - span, since), max(self._end - span, since)
            for start, scopes in buckets.items():
                has_entered = self._end <= start < end and start >= oldest
                has_left = oldest_before <= start < min(oldest, self._end)
                if has_entered or has_left:
                    _add(self._kept[window.name], scopes, terms.value_field, 1 if has_entered else -1)


def _copied(sums: Mapping[Scope, Mapping[str, Sequence[int]]]) -> Cells:
    return {
        scope: {model_id: list(cell) for model_id, cell in totals.items()} for scope, totals in sums.items()
    }


def _add(cells_of_scope: Cells, scopes: Mapping[Scope, Bucket], field: str, sign: int) -> None:
    for scope, bucket in scopes.items():
        totals = cells_of_scope.setdefault(scope, {})
        for model_id, sums in bucket.items():
            total = totals.setdefault(model_id, [0, 0, 0])
            _add_cell(total, sums, field, sign)
            if total[1] == 0:  # no value is left in the window: the model has no number, which is not 0
                del totals[model_id]


def numbers_by_model(
    terms: Terms,
    sums: Mapping[str, WindowSums],
    at_period_end: Mapping[str, Mapping[str, Number]],
    sums_for_boards: Mapping[str, WindowSums],
    *,
    holds_past: bool,
) -> dict[str, dict[str, Number]]:
    """Window, or board over a window -> model_id -> its number.

    `at_period_end`: model_id -> the windows that do not follow from sums, as of the last snapshot. If the windows hold
    a past that newcomers were given (`holds_past`), it has all windows, and the sums tell only how many scores are in
    each.
    """
    cells = {name: over_scopes(of_window) for name, of_window in sums.items()}
    if holds_past:
        return _with_past(terms, sums_for_boards, cells, at_period_end)
    numbers_of: dict[str, dict[str, Number]] = {}
    if all(window.plain for window in terms.windows):
        for window in terms.windows:
            numbers_of[window.name] = {
                model_id: Number(mean_of(cell), cell[2]) for model_id, cell in cells[window.name].items()
            }
    else:
        numbers_of = {window.name: {} for window in terms.windows}
        for model_id in set(at_period_end).union(*cells.values()):
            ended = at_period_end.get(model_id, {})
            own_cells = {name: of_window.get(model_id, (0, 0, 0)) for name, of_window in cells.items()}

            def number(
                window: Window,
                ended: Mapping[str, Number] = ended,
                own_cells: Mapping[str, Cell] = own_cells,
            ) -> Number:
                if window.of_sums:
                    return of_sums(window, *own_cells[window.name])
                return ended.get(window.name, NO_NUMBER)

            for name, value in numbers_of_windows(terms.windows, number).items():
                numbers_of[name][model_id] = value
    for board in terms.boards:
        if board.window:
            numbers_of[board.name] = _board(board, sums_for_boards[board.window])
    return numbers_of


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
    names = [
        *(window.name for window in terms.windows),
        *(board.name for board in terms.boards if board.window),
    ]
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
    """model_id -> its cell summed over all scopes, by which the board ranks it."""
    cell_of_model: dict[str, Cell] = {}
    for totals in sums.values():
        for model_id, (total, n, scored) in totals.items():
            before = cell_of_model.get(model_id, (0, 0, 0))
            cell_of_model[model_id] = (before[0] + total, before[1] + n, before[2] + scored)
    return cell_of_model


def add_round(bucket: Bucket, data: RoundScoredData, unscored: Container[int]) -> None:
    """Add the scores and charges of a round to a bucket. `unscored`: the indices of the models without a score."""
    no_sums: dict[str, list[int]] = {}
    sums_of = [
        no_sums if i in unscored else bucket.setdefault(model_id, {})
        for i, model_id in enumerate(data.models)
    ]
    for i, model_id in enumerate(data.models):
        if i in unscored:
            continue
        cell = bucket[model_id].setdefault(LAST, [0, 1])
        cell[0] = max(cell[0], data.resolvable_at)
    for field, column in data.units.items():  # this loop runs for every score of the node
        for sums, units in zip(sums_of, column, strict=True):
            if units is None:
                continue
            field_sums = sums.get(field)
            if field_sums is None:
                sums[field] = [units, 1]
            else:
                field_sums[0] += units
                field_sums[1] += 1
    for entry in data.unscored:
        if entry.charge_units is not None:
            charges = bucket.setdefault(data.models[entry.model], {}).setdefault(CHARGES, [0, 0])
            charges[0] += entry.charge_units
            charges[1] += 1


def correct_bucket(bucket: Bucket, data: RoundRescoredData) -> None:
    """Take the scores of a question by its first truth out of a bucket, and put those by the corrected one in."""
    for columns, sign in ((data.before, -1), (data, 1)):
        changes = [
            (i, field, units)
            for field, column in columns.units.items()
            for i, units in enumerate(column)
            if units is not None
        ]
        changes += [
            (entry.model, CHARGES, entry.charge_units)
            for entry in columns.unscored
            if entry.charge_units is not None
        ]
        for i, field, units in changes:
            sums = bucket.setdefault(columns.models[i], {})
            total = sums.setdefault(field, [0, 0])
            total[0] += sign * units
            total[1] += sign
            if total[1] == 0:
                del sums[field]
