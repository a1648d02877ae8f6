"""Candles from a file, as feed records of one subscription in order of time.

`given_files` reads, refuses and counts the rows, in the same way for `up --candles` and `feeds import`. This module
decides which rows belong to the one subject that is asked for, and holds the feed source `candles`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

from coordinator.streams.granularity import GRANULARITIES_MS, granularity_ms
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.ports import FeedRecord, Subscription
from coordinator.streams.sources.candle_values import OnGarbage
from coordinator.streams.sources.files.file_records import (
    BadRow,
    GivenFile,
    OnBadRow,
    keep_first,
    plain_symbol,
)
from coordinator.streams.sources.files.file_rows import Reading

SYMBOLS_NAMED = 5
BAD_ROWS_TOLD = 1_000
_YIELD_EVERY = 8_192


def iter_candles(
    path: str | Path,
    subscription: Subscription,
    start_ms: int | None = None,
    end_ms: int | None = None,
    on_bad_row: OnBadRow | None = None,
    reading: Reading | None = None,
) -> Iterator[FeedRecord]:
    """Records with start_ms <= at <= end_ms in order of `at`, with bounded memory.

    `at` is open time + granularity; values are the file's own text. Wrong rows go to `on_bad_row` before the first
    record; without `on_bad_row` the first of them refuses the file, because nothing may be dropped silently. Raises
    OperatorError for a file that cannot be used.
    """
    file, _ = candle_file(path, subscription, on_bad_row, reading)
    yield from _within(file, start_ms, end_ms)


def candle_file(
    path: str | Path,
    subscription: Subscription,
    on_bad_row: OnBadRow | None = None,
    reading: Reading | None = None,
) -> tuple[GivenFile, bool]:
    """(the checked file, whether its rows name their subject). Raises OperatorError for a file that cannot be used."""
    granularity_ms(subscription.granularity)
    path = Path(path)
    asked = _SubscriptionFilter(subscription)
    file = GivenFile(path, asked, reading, subscription.kind)
    try:
        file.look(on_bad_row)
    except OperatorError:
        if asked.met or not asked.others:
            raise
        others = sorted(asked.others)
        (first, *more) = (plain_symbol(other) for other in others)
        wanted = plain_symbol(subscription.subject)
        if more or not first or not (wanted.startswith(first) or first.startswith(wanted)):
            named = ", ".join(others[:SYMBOLS_NAMED]) + (", .." if len(others) > SYMBOLS_NAMED else "")
            raise OperatorError(
                f"{path}: its rows are for {named}, not for {subscription.subject}; choose the subject with --subject "
                "(or FEED_SUBJECTS)"
            ) from None
        asked.alias = first  # BTC or BTC-USD, alone in its file, for BTCUSDT
        file = GivenFile(path, asked, reading, subscription.kind)
        file.look(on_bad_row)
    return file, asked.said


class _SubscriptionFilter:
    """Whether a row belongs to the subscription that is asked for. A row that names no subject does."""

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription
        self.alias = plain_symbol(subscription.subject)
        self.met = self.said = False
        self.others: set[str] = set()

    def __call__(self, row_fields: Mapping[str, str]) -> Subscription | None:
        wanted = self._subscription
        if (
            row_fields.get("kind", wanted.kind) != wanted.kind
            or row_fields.get("granularity", wanted.granularity) != wanted.granularity
        ):
            return None
        subject = row_fields.get("subject")
        if subject is not None:
            self.said = True
            if subject != wanted.subject and plain_symbol(subject) != self.alias:
                if len(self.others) <= SYMBOLS_NAMED:
                    self.others.add(subject)
                return None
        self.met = True
        return wanted


def _within(file: GivenFile, start_ms: int | None, end_ms: int | None) -> Iterator[FeedRecord]:
    for record in file.records():
        if end_ms is not None and record.at > end_ms:
            return
        if start_ms is None or record.at >= start_ms:
            yield record


def path_for(path: str, subject: str) -> Path:
    """`{subject}` in a path is replaced by the subject, without slashes."""
    return Path(path.replace("{subject}", subject.replace("/", "")))


class CandleFileSource:
    """A feed source over files. `path` may hold `{subject}`, for one file per subject."""

    name = "candles"
    about = "candles from a file (CSV, JSON lines, Parquet; gz, zip), read once; option path"
    offers: ClassVar[Mapping[str, tuple[str, ...]]] = MappingProxyType({"candle": tuple(GRANULARITIES_MS)})

    def __init__(
        self, path: str, on_garbage: OnGarbage | None = None, reading: Reading | None = None
    ) -> None:
        self._path = path
        self._on_garbage = on_garbage
        self._reading = reading
        self._served: dict[Path, str] = {}

    async def history(
        self, subscription: Subscription, start_ms: int, end_ms: int
    ) -> AsyncIterator[FeedRecord]:
        """Records of the file with start_ms <= at <= end_ms.

        Raises OperatorError, also for a file that says no subject and was another subject's already.
        """
        path = path_for(self._path, subscription.subject)
        bad: list[BadRow] = []
        handler = None if self._on_garbage is None else keep_first(bad, BAD_ROWS_TOLD)
        file, says_whose = await asyncio.to_thread(candle_file, path, subscription, handler, self._reading)
        if not says_whose and self._served.setdefault(path, subscription.subject) != subscription.subject:
            raise two_subjects(path, [self._served[path], subscription.subject])
        if self._on_garbage is not None:
            for row in bad:
                self._on_garbage(row.said(path.name), row.text)
            if (rest := file.account.refused - len(bad)) > 0:
                self._on_garbage(f"{path.name}: {rest:,} more rows are no candles", "")
        for count, record in enumerate(_within(file, start_ms, end_ms)):
            if count % _YIELD_EVERY == 0:
                await asyncio.sleep(0)
            yield record

    async def stream(self, subscriptions: Sequence[Subscription]) -> AsyncIterator[FeedRecord]:  # noqa: ARG002
        """Yields nothing: the file has only history."""
        return
        yield


def two_subjects(path: Path, subjects: Sequence[str]) -> OperatorError:
    """The error for a file that is asked for two subjects and has no column for them."""
    return OperatorError(
        f"{path}: its rows do not name their subject, so the file cannot be used for {' and '.join(subjects)}; add "
        "a column symbol, or give a file for each subject with {subject} in its name"
    )
