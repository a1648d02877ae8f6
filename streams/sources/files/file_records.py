"""Records from an operator's file or folder of files: the reader of `--candles` and of `feeds import`.

A file is checked as a whole before its first record is yielded. So a file that cannot be used is refused before
anything of it is taken: damaged, of another granularity, rounded by a spreadsheet, or with two values for one time. A
row that is not a record is reported as a `BadRow`, and the other rows are read. Rows in the wrong order are sorted; a
row that is repeated with the same numbers (pages overlap) counts once; minutes without a price are holes. The `Account`
counts all of these.

The subscription of a row follows from its own columns (source, subject or symbol, kind, granularity), else from folders
with names like `subject=BTCUSDT` (as `coordinator feeds export` writes them), else from the defaults.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from urllib.parse import unquote

import msgspec

from coordinator.streams.clock import wall_ms
from coordinator.streams.granularity import granularity_ms
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.ports import FeedRecord, Subscription
from coordinator.streams.sources.files.file_lines import damage_of
from coordinator.streams.sources.files.file_order import Account, Check, Item, Order, OutOfOrderError
from coordinator.streams.sources.files.file_rows import Hole, OffGridError, Reading, Records, rows_of_file
from coordinator.streams.sources.files.file_times import FileFaultError

SUFFIXES = (".csv", ".csv.gz", ".csv.zip", ".zip", ".tsv", ".jsonl", ".jsonl.gz", ".ndjson", ".parquet")
DIMENSIONS = ("source", "subject", "kind", "granularity")
SORTED_RECORDS_MAX = 3_000_000
"""How many records are sorted in memory at most; a longer file must be in order."""


class BadRow(msgspec.Struct, frozen=True):
    """A row that is not a record. `line_number` counts lines from 1 (in Parquet, rows); `time` is the row's, if any."""

    line_number: int
    reason: str
    text: str
    time: str = ""

    def said(self, file: str) -> str:
        """The reason with file, line and time."""
        return f"{file}, line {self.line_number}{', ' if self.time else ''}{self.time}: {self.reason}"


OnBadRow = Callable[[BadRow], None]


def keep_first(bad: list[BadRow], count: int) -> OnBadRow:
    """A function that keeps the first `count` bad rows in `bad`. The account counts all of them."""

    def keep(row: BadRow) -> None:
        if len(bad) < count:
            bad.append(row)

    return keep


def given_files(path: Path) -> list[Path]:
    """The files to read, in order of their names. Raises OperatorError if there are none."""
    if path.is_file():
        return [path]  # the operator names it: its bytes, not its ending, decide what it is
    if not path.is_dir():
        raise OperatorError(f"{path}: there is no such file or folder")
    files = sorted(
        each for each in path.rglob("*") if each.is_file() and each.name.lower().endswith(SUFFIXES)
    )
    if not files:
        raise OperatorError(f"{path}: no file in it ends in {', '.join(SUFFIXES)}")
    return files


def given_records(
    path: Path,
    defaults: Mapping[str, str],
    reading: Reading | None = None,
) -> Iterator[FeedRecord]:
    """The records of one file, in order of time. A row that is not a record refuses the file.

    Raises OperatorError naming the file and the line.
    """
    file = GivenFile(path, SubscriptionFinder(path, defaults), reading)
    file.look()
    return file.records()


class SubscriptionFinder:
    """Finds the subscription of a row from the row itself, the folders above the file, or the defaults."""

    def __init__(self, path: Path, defaults: Mapping[str, str]) -> None:
        self._path = path
        self._known = {**defaults, **_from_folders(path)}
        self._told = defaults.get("subject", "")
        self.kind = self._known.get("kind", "")

    def __call__(self, row_fields: Mapping[str, str]) -> Subscription:
        """The subscription of a row with these columns. Raises OperatorError if a part of it is not known."""
        fields = {name: row_fields.get(name) or self._known.get(name, "") for name in DIMENSIONS}
        lacking = [name for name, text in fields.items() if not text]
        if lacking:
            raise OperatorError(
                f"{self._path} does not name its {', '.join(lacking)}: give {' '.join(f'--{name}' for name in lacking)}"
            )
        if self._told and plain_symbol(fields["subject"]) == plain_symbol(self._told):
            fields["subject"] = self._told  # BTC/USDT in the file, BTCUSDT in the settings
        granularity_ms(fields["granularity"])
        return Subscription(**fields)


def plain_symbol(text: str) -> str:
    """A symbol without differences of spelling: X:BTC-USD, BTC/USD and btcusd are the same."""
    return "".join(filter(str.isalnum, text.rpartition(":")[2].upper()))


def _from_folders(path: Path) -> dict[str, str]:
    parts = dict(part.split("=", 1) for part in path.absolute().parent.parts if "=" in part)
    return {name: unquote(parts[name]) for name in DIMENSIONS if name in parts}


class GivenFile:
    """One file. Call `look()` first, then `records()`; `account` counts what was found.

    `whose` returns the subscription of a row with these columns; None for a row that is not asked for.
    """

    def __init__(
        self,
        path: Path,
        whose: SubscriptionFinder | Callable[[Mapping[str, str]], Subscription | None],
        reading: Reading | None = None,
        kind: str = "",
    ) -> None:
        self.path = path
        self.account = Account()
        self._whose = whose
        self._reading = reading or Reading()
        self._kind = kind or (whose.kind if isinstance(whose, SubscriptionFinder) else "")
        self._now_ms = wall_ms()
        self._in_order: list[FeedRecord] | None = None
        self._told_to = 0
        self._off_grid: Counter[str] = Counter()
        self._first_bad: BadRow | None = None

    def look(self, on_bad_row: OnBadRow | None = None) -> Account:
        """Check the whole file. Wrong rows go to `on_bad_row`; without it the first of them refuses the file.

        Raises OperatorError for a file that cannot be used.
        """
        try:
            return self._look(on_bad_row or self._refuse)
        except OperatorError as error:
            raise damage_of(self.path) or error from None  # if the archive is damaged, that is the cause

    def _look(self, tell: OnBadRow) -> Account:
        check = Check(self.account)
        order = Order(self.path, self.account)
        try:
            for record in order.records(self._items(self.account, tell)):
                check.add(record)
        except OutOfOrderError:
            self.account.records = self.account.repeated = 0
            self._in_order, check = self._sorted(tell), Check(self.account)
            for record in self._in_order:
                check.add(record)
        self._refuse_wrong(check)
        return self.account

    def records(self) -> Iterator[FeedRecord]:
        """The records in order of `at`, a correction after the record that it corrects. Memory is bounded."""
        if self._in_order is not None:
            yield from self._in_order
            return
        try:
            yield from Order(self.path, Account()).records(self._items(Account(), self._refuse))
        except OutOfOrderError as error:
            raise OperatorError(f"{self.path}: it changed while it was read") from error

    def _items(self, account: Account, tell: OnBadRow) -> Iterator[Item]:
        """The record of each row; the account counts rows without one.

        A wrong row is reported once, however often read.
        """
        records = Records(self._reading)
        account.refused = account.empty = account.unfinished = 0
        self._off_grid.clear()
        for row in rows_of_file(self.path, self._kind, self._reading):
            subscription: Subscription | None = None
            try:
                if row.fault:
                    raise ValueError(row.fault)
                subscription = self._whose(records.whose(row))
                if subscription is None:
                    continue
                record = records.record(row, subscription, self._now_ms)
            except FileFaultError as error:
                raise OperatorError(f"{self.path}, line {row.line_number}: {error}") from None
            except ValueError as error:
                account.refused += 1
                if isinstance(error, OffGridError):
                    self._off_grid[error.granularity] += 1
                kind = subscription.kind if subscription is not None else self._kind
                bad = BadRow(row.line_number, str(error), row.text, records.time_text(row, kind))
                self._first_bad = self._first_bad or bad
                if bad.line_number > self._told_to:
                    self._told_to = bad.line_number
                    tell(bad)
                continue
            if record is Hole.EMPTY:
                account.empty += 1
            elif record is Hole.OPEN:
                account.unfinished += 1
            else:
                yield row.line_number, record, records.trade_id(row, subscription.kind)

    def _refuse(self, bad: BadRow) -> None:
        raise OperatorError(bad.said(str(self.path)))

    def _sorted(self, tell: OnBadRow) -> list[FeedRecord]:
        items: list[Item] = []
        for item in self._items(self.account, tell):
            items.append(item)
            if len(items) > SORTED_RECORDS_MAX:
                raise OperatorError(
                    f"{self.path}, line {item[0]}: its rows are not in order of time, and there are too many to "
                    f"sort them here (more than {SORTED_RECORDS_MAX:,}); sort the file, oldest first"
                )
        items.sort(key=lambda item: (item[1].at, item[1].revision, item[2].zfill(20)))
        return list(Order(self.path, self.account).records(iter(items)))

    def _refuse_wrong(self, check: Check) -> None:
        account, path = self.account, self.path
        (granularity, off_grid), *_ = self._off_grid.most_common(1) or [("", 0)]
        if off_grid > account.records:
            raise OperatorError(
                f"{path}: its rows are closer than {granularity}, or off its grid ({off_grid:,} of "
                f"{account.records + account.refused:,} rows); set the granularity of the file"
            )
        if not account.records:
            first = self._first_bad
            if first is None:
                rest = account.text().partition(", ")[2]
                raise OperatorError(
                    f"{path}: none of its rows is a record that was asked for{rest and f'; {rest}'}"
                )
            raise OperatorError(f"{first.said(str(path))}; none of its rows is a record")
        wide = check.wider_than_said()
        if wide is not None:
            raise OperatorError(
                f"{path}: its rows are {wide[1] / 1000:g} s apart or more, which is not {wide[0].granularity}; "
                "set the granularity of the file"
            )
