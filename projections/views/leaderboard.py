"""The read model of the live leaderboard: sums per bucket, ranked over trailing windows.

Folds `scores` (sums and charges), `models` (who takes part), `inputs` (where the windows end), and `snapshots` (the
summaries, and windows that do not follow from sums). A bucket is one snapshot interval b by resolvable time, for each
subject and scope. It has an integer sum and a count for each model and numeric field. Windows end at T, the last
InputsUntil, and cover [floor(T/b)*b - W, T). At the end of a period they equal those of the snapshots; between two ends
an open bucket counts with the scores that it has so far. If newcomers have a past, windows are of the last snapshots.

Buckets that the longest window does not reach from the newest bucket are dropped. That depends on content alone, so a
replay drops the same buckets. At each ScoredUntil the windows of each scope are kept as a row of history.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import msgspec

from coordinator.projections.folding.projection import Projection, TermsRows, eight, encode_row, key
from coordinator.projections.folding.read_limit import ReadBudget
from coordinator.projections.storage.batch import Batch
from coordinator.projections.storage.store import Store
from coordinator.projections.views.board_places import board_places
from coordinator.projections.views.board_rows import Board, BoardRow, HistoryRow
from coordinator.projections.views.board_windows import (
    Bucket,
    Scope,
    TrailingSums,
    WindowSums,
    add_round,
    bucket_of,
    bucket_row,
    correct_bucket,
    last_scored,
    numbers_by_model,
    part_of,
    window_sums,
)
from coordinator.projections.views.ended_windows import EndedWindows
from coordinator.projections.views.model_rows import RUNNING, ModelRows
from coordinator.projections.views.unranked import why_unranked
from coordinator.streams.durations import HOUR_MS
from coordinator.streams.events import (
    CrunchConfigured,
    EnsemblesScored,
    InputsUntil,
    RoundRescored,
    RoundRescoredData,
    RoundScored,
    RoundScoredData,
    ScoredUntil,
    Terms,
)
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.ids import is_ensemble
from coordinator.streams.snapshots.windows import NO_NUMBER

_AFTER_ALL_MODELS = "\U0010ffff"
BUCKETS_SPARE = 2
"""How many more buckets are kept than the longest window needs. So a bucket has left every sum before it is dropped."""

_history_decoder = msgspec.msgpack.Decoder(dict[str, dict[str, int | None]])
_head_decoder = msgspec.msgpack.Decoder(tuple[int, int])


class Leaderboard(Projection):
    """Ranked models, now and per scope at each period's end."""

    name = "leaderboard"
    topics = ("scores", "models", "inputs", "snapshots")
    schema = 8
    explained = frozenset((b"T",))
    leaving = (b"W",)
    owners: ClassVar[Mapping[bytes, str]] = {
        **dict.fromkeys((b"B", b"H", b"L", b"N", b"T", b"W"), "scores"),
        **dict.fromkeys((b"E", b"V"), "snapshots"),
        b"M": "models",
        b"U": "inputs",
    }

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.models = ModelRows(store)
        self.terms = TermsRows(store)
        until = store.get(b"U")
        self.until = int.from_bytes(until, "big") if until else 0
        head = store.get(b"H")
        self._newest, self._floor = _head_decoder.decode(head) if head else (-1, 0)
        self._newest_history = int.from_bytes(store.get(b"N") or b"", "big")
        self._last_dropped = {
            name[1:-1].decode(): int.from_bytes(row, "big") for name, row in store.scan(b"L")
        }
        self._last_scored = dict(self._last_dropped)
        self._buckets: dict[int, dict[Scope, Bucket]] = {}
        self._dirty: set[tuple[int, Scope]] = set()
        self._loaded = False
        self._boards: dict[str, Board] = {}
        self._boards_version = -1
        self._ended = EndedWindows(store)
        self._board_sums = TrailingSums()
        self._history_sums = TrailingSums()

    def _load(self) -> None:
        """Read the buckets, before the first score or board. Other questions to a past state do not need them."""
        if self._loaded:
            return
        self._loaded = True
        # Begin at the floor: a store of a past state also has the buckets that were dropped before it.
        for name, row in self.store.scan(b"B", start=b"B" + key(max(0, self._floor))):
            if int.from_bytes(name[1:9], "big") > self._newest:
                break
            subject, scope_key = name[9:-1].decode().split("\x00")
            bucket = bucket_of(row)
            self._buckets.setdefault(int.from_bytes(name[1:9], "big"), {})[subject, scope_key] = bucket
            for model_id, last in last_scored(bucket):
                self._last_scored[model_id] = max(last, self._last_scored.get(model_id, -1))

    def apply(self, decision: Decision, batch: Batch) -> None:
        if decision.topic == "scores":
            self._fold_scores(decision, batch)
        elif decision.topic == "models":
            self.models.apply(decision, batch)
        elif decision.topic == "snapshots":
            self._ended.fold(decision, batch)
        else:
            for event in decision.events:
                if type(event) is InputsUntil and event.data.until > self.until:
                    self.until = event.data.until
                    batch.put(b"U", eight(self.until))

    def _fold_scores(self, decision: Decision, batch: Batch) -> None:
        self._load()
        for event in decision.events:
            if type(event) is RoundScored or type(event) is EnsemblesScored:
                self._fold_round(event.data, batch)
            elif type(event) is RoundRescored:
                self._correct(event.data)
            elif type(event) is ScoredUntil:
                self._keep_history(event.data.until, batch)
            elif type(event) is CrunchConfigured:
                self.terms.add(event.data, batch)

    def _fold_round(self, data: RoundScoredData, batch: Batch) -> None:
        """Add a round to its bucket: sums by field, charges, and when each model was last scored.

        A round that is too old for every window, or was scored under other rules than its period's, adds only the time.
        """
        last = self._last_scored
        unscored = {entry.model for entry in data.unscored}
        scored = data.models
        if unscored:
            scored = [model_id for i, model_id in enumerate(data.models) if i not in unscored]
        for model_id in scored:
            last[model_id] = max(data.resolvable_at, last.get(model_id, -1))
        start = self._start_of(data.resolvable_at)
        if start > self._newest:
            self._newest = start
            self._drop_old(start, batch)
            batch.put(b"H", encode_row((self._newest, self._floor)))
        if start < self._floor or not self.terms.adds_up(data.contract_hash, data.resolvable_at):
            for model_id in scored:
                self._keep_last(model_id, data.resolvable_at, batch)
            return
        scope = (data.subject, data.scope_key)
        bucket = self._buckets.setdefault(start, {}).setdefault(scope, {})
        self._dirty.add((start, scope))
        self._touch(start)
        add_round(bucket, data, unscored)

    def _correct(self, data: RoundRescoredData) -> None:
        """Put the scores by a corrected truth into the bucket of the first one, where that is still kept."""
        at = data.first_resolvable_at
        if (start := self._start_of(at)) < self._floor or not self.terms.adds_up(data.contract_hash, at):
            return
        scope = (data.subject, data.scope_key)
        bucket = self._buckets.setdefault(start, {}).setdefault(scope, {})
        self._dirty.add((start, scope))
        self._touch(start)
        correct_bucket(bucket, data)

    def _start_of(self, at: int) -> int:
        """The start (ms) of the bucket that holds a time; a change of terms cuts it, as it cuts the period."""
        terms = self.terms.at(at)
        width = terms.snapshot_interval_ms if terms else HOUR_MS
        start = at // width * width
        return terms.effective_from if terms and start < terms.effective_from <= at else start

    def _touch(self, start: int) -> None:
        self._board_sums.touch(start)
        self._history_sums.touch(start)

    def _drop_old(self, newest: int, batch: Batch) -> None:
        terms_in_order = self.terms.in_order
        if not terms_in_order:
            return
        # By all terms so far: those with the longest windows may not hold yet, or not any more.
        longest = max(terms.hours_max for terms in terms_in_order) * HOUR_MS
        floor = newest - longest - BUCKETS_SPARE * max(terms.snapshot_interval_ms for terms in terms_in_order)
        if floor <= self._floor:
            return
        self._floor = floor
        for start in sorted(start for start in self._buckets if start < floor):
            self._touch(start)
            for scope, bucket in self._buckets.pop(start).items():
                for model_id, last in last_scored(bucket):
                    self._keep_last(model_id, last, batch)
                self._dirty.discard((start, scope))
                batch.delete(_bucket_key(start, scope))

    def _keep_last(self, model_id: str, last: int, batch: Batch) -> None:
        """Keep in a row of the model when it was last scored: a bucket, which has that too, is dropped."""
        if last > self._last_dropped.get(model_id, -1):
            self._last_dropped[model_id] = last
            batch.put(b"L" + key(model_id), eight(last))

    def _keep_history(self, until: int, batch: Batch) -> None:
        """Keep the windows of each scope as of `until` (ms). Every score before that is folded, so they are final."""
        terms = self.terms.at(until - 1)
        if terms is None:
            return
        windows = {window.name: window for window in terms.windows}
        by_scope: dict[Scope, dict[str, dict[str, int | None]]] = {}
        since = self.terms.sums_since(until - 1)
        for name, scopes in self._history_sums.at(self._buckets, until, terms, since).items():
            for scope, totals in scopes.items():
                rows = by_scope.setdefault(scope, {})
                for model_id, cell in totals.items():
                    rows.setdefault(model_id, dict.fromkeys(windows))[name] = part_of(windows[name], cell)
        for scope, rows in by_scope.items():
            batch.put(_history_key(until, *scope), encode_row(rows))
        if by_scope and until > self._newest_history:
            self._newest_history = until
            batch.put(b"N", eight(until))

    def flush(self, batch: Batch) -> None:
        super().flush(batch)
        for start, scope in self._dirty:
            batch.put(_bucket_key(start, scope), bucket_row(self._buckets[start][scope]))
        self._dirty.clear()

    def moved_at(self) -> list[int]:
        """The offset in `inputs` of the decision that moved the end of the board to where it is."""
        offset = self.store.written_last_at(b"U")
        return [] if offset is None else [offset]

    @property
    def terms_now(self) -> Terms | None:
        """The terms in force at the end of the board. Terms that hold later do not count."""
        return self.terms.at(self.until - 1)

    def board(self, by: str | None = None) -> Board | None:
        """The board as folded so far; None before the first terms. It is computed once for each version and ranking.

        `by`: the window, the board over a window, or the key of the last period's summary by which it is ranked; None:
        that of the contract. Raises KeyError if there is no such name.
        """
        terms = self.terms_now
        if terms is None:
            return None
        self._load()
        ranking_key = terms.ranking_key if by is None else by
        if by is not None and by not in {terms.ranking_key, *terms.live_keys, *self.summary_keys()}:
            raise KeyError(by)
        if self._boards_version != self.version:
            self._boards, self._boards_version = {}, self.version
        if ranking_key not in self._boards:
            self._boards[ranking_key] = self._make_board(terms, ranking_key)
        return self._boards[ranking_key]

    def _make_board(self, terms: Terms, ranking_key: str) -> Board:
        since = self.terms.comparable_since(self.until - 1)
        sums = self.live_sums(terms)
        windows = numbers_by_model(
            terms,
            sums,
            self._ended.by_model(since),
            self._sums_for_boards(terms, sums),
            holds_past=self.terms.holds_past(self.until - 1),
        )
        ranked_as_of = None
        if ranking_key not in terms.live_keys:
            ranked_as_of, windows[ranking_key] = self._ended.summary(ranking_key, since)
        contracts = self.contracts_in_windows(terms)
        model_ids = set(self.models.by_id).union(*windows.values())
        models = {model_id: self.models.get(model_id) for model_id in model_ids}
        statuses = {model_id: model.status for model_id, model in models.items()}
        keys = windows[ranking_key]
        reasons = {
            model_id: why_unranked(
                status, terms, ranking_key, keys.get(model_id, NO_NUMBER), self._ended.answered(model_id)
            )
            for model_id, status in statuses.items()
            if terms.coverage or model_id not in keys or status != RUNNING or keys[model_id].units is None
        }
        rows = [
            BoardRow(
                place,
                models[model_id],
                place is not None,
                {name: numbers.get(model_id, NO_NUMBER).units for name, numbers in windows.items()},
                keys.get(model_id, NO_NUMBER).scored,
                self._last_scored.get(model_id),
                reasons.get(model_id, ""),
            )
            for place, model_id in board_places(models, reasons, keys, terms.ranking_direction)
        ]
        direction, decimals = terms.ranking_direction, terms.score_decimals
        return Board(self.until, ranking_key, direction, decimals, rows, contracts, ranked_as_of)

    def contracts_in_windows(self, terms: Terms) -> list[str]:
        """The hashes of the contracts whose rounds are in the live windows, the oldest first."""
        since = self.terms.comparable_since(self.until - 1)
        return self.terms.contracts(max(self.until - terms.hours_max * HOUR_MS, since), self.until)

    def summary_keys(self) -> set[str]:
        """The keys of the summary that any model has in the newest closed period."""
        return self._ended.summary_keys()

    def live_sums(self, terms: Terms) -> dict[str, WindowSums]:
        """Window -> scope -> model_id -> its cell, at the end of the board under the terms that hold there."""
        self._load()
        return self._board_sums.at(self._buckets, self.until, terms, self.terms.sums_since(self.until - 1))

    def _sums_for_boards(self, terms: Terms, sums: dict[str, WindowSums]) -> dict[str, WindowSums]:
        """`sums`, as boards over a window count them: snapshots, which are paid by, have sums by scope only of periods
        whose terms have boards.
        """
        if not terms.boards or all(earlier.boards for earlier in self.terms.in_order):
            return sums
        counted = {
            start: scopes
            for start, scopes in self._buckets.items()
            if (held := self.terms.at(start)) is not None and held.boards
        }
        if len(counted) == len(self._buckets):  # those without have left the windows
            return sums
        return window_sums(counted, self.until, terms, self.terms.sums_since(self.until - 1))

    def history(
        self,
        start: int,
        until: int,
        model_ids: set[str] | None,
        *,
        after: tuple[int, str, str, str] | None = None,
        look: ReadBudget | None = None,
        ensembles: bool = True,
    ) -> Iterator[HistoryRow]:
        """The windows of each scope at the period ends in [start, until] (ms), the newest first.

        `after`: (end, subject, scope_key, model_id) of the row after which to continue. Without `ensembles` only those
        of models, unless `model_ids` names an ensemble. `look` limits how many pairs of period and scope are read.
        """
        first = _history_key(until + 1) if after is None else _history_key(*after[:3])
        first = min(first, _history_key(self._newest_history + 1))
        before: tuple[int, str, str, str] | None = None
        for name, row in self.store.scan(b"W", start=first, backwards=True):
            end = int.from_bytes(name[1:9], "big")
            if end < start:
                return
            if end > until:
                continue
            if look is not None and before is not None and not look.at(*before):
                return
            subject, scope_key = name[9:-1].decode().split("\x00")
            before = (end, subject, scope_key, _AFTER_ALL_MODELS)
            last_model = after[3] if after is not None and after[:3] == (end, subject, scope_key) else ""
            for model_id, windows in sorted(_history_decoder.decode(row).items()):
                if model_id <= last_model or (model_ids is not None and model_id not in model_ids):
                    continue
                if ensembles or model_ids is not None or not is_ensemble(model_id):
                    yield HistoryRow(end, subject, scope_key, model_id, windows)


def _bucket_key(start: int, scope: Scope) -> bytes:
    return b"B" + key(start, *scope)


def _history_key(until: int, *scope: str) -> bytes:
    return b"W" + key(until, *scope)
