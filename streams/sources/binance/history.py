"""Reads Binance's history page by page: candles, trades and settled funding rates.

Reads the REST routes; yields records in order of time. The exchange's clock decides whether the last candle has closed,
because a candle that is read too early would be recorded half-made. A page without progress raises an error, so that a
server which repeats itself cannot hold the reader. Raises WorldError if history cannot be read, OperatorError if the
exchange refuses.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from itertools import groupby
from typing import Any, TypeVar

import httpx
import msgspec

from coordinator.streams.granularity import granularity_ms
from coordinator.streams.log.errors import UNREADABLE_JSON, WorldError
from coordinator.streams.ports import FeedRecord, Subscription
from coordinator.streams.sources.binance.messages import (
    FundingRow,
    TradeRow,
    candle_of_row,
    funding_of,
    funding_record,
    interval_of,
    kline_of,
    record_of_trades,
    rows_of_page,
    trade_of,
)
from coordinator.streams.sources.candle_values import OnGarbage
from coordinator.streams.sources.rest import Rest

PAGE_ROWS_MAX = 1_000
Row = TypeVar("Row")


async def candles(
    rest: Rest, subscription: Subscription, start_ms: int, end_ms: int, on_garbage: OnGarbage
) -> AsyncGenerator[FeedRecord, None]:
    """Candles with start_ms <= at <= end_ms that have closed by the exchange's clock."""
    length_ms = granularity_ms(interval_of(subscription))
    async with rest.client() as client:
        end_ms = min(end_ms, await _exchange_time_ms(rest, client, "/api/v3/time"))
        next_ms = -(-(start_ms - length_ms) // length_ms) * length_ms
        last_ms = end_ms - length_ms
        while next_ms <= last_ms:
            query: dict[str, str | int] = {
                "interval": interval_of(subscription),
                "startTime": next_ms,
                "endTime": last_ms,
            }
            page = await _page(rest, client, "/api/v3/klines", subscription, query)
            if not page:
                return
            rows = _read(kline_of, page, on_garbage)
            records = [_made(candle_of_row, row, subscription, on_garbage) for row in rows]
            new_records = [
                record for record in records if record is not None and next_ms <= record.ts_event <= last_ms
            ]
            if not new_records:
                # Wrong rows count as the answer for their minutes: otherwise these would be requested without end.
                next_ms = _after_bad_rows(rows, length_ms, next_ms, last_ms, subscription)
            for record in sorted(new_records, key=lambda candle: candle.ts_event):
                if record.ts_event >= next_ms:
                    next_ms = record.at
                    yield record


def _after_bad_rows(
    rows: Sequence[Sequence[Any]], length_ms: int, next_ms: int, last_ms: int, subscription: Subscription
) -> int:
    """Where to continue after a page without a valid candle. Raises WorldError for a page of earlier rows only."""
    opens = [row[0] for row in rows if row and type(row[0]) is int]
    ahead = [open_ms for open_ms in opens if next_ms <= open_ms <= last_ms]
    if opens and not ahead:
        raise _nothing_new(subscription, next_ms)
    # If the times cannot be read, either, the page is all that there is of this period.
    return max(ahead) // length_ms * length_ms + length_ms if ahead else last_ms + length_ms


async def trades(
    rest: Rest, subscription: Subscription, start_ms: int, end_ms: int, on_garbage: OnGarbage
) -> AsyncGenerator[FeedRecord, None]:
    """Ticks with start_ms <= at <= end_ms: one complete record for each millisecond that has passed."""
    async with rest.client() as client:
        end_ms = min(end_ms, await _exchange_time_ms(rest, client, "/api/v3/time") - 1)
        if end_ms < start_ms:
            return
        query: dict[str, str | int] = {"startTime": start_ms}
        next_id, held = -1, list[TradeRow]()
        while True:
            page = await _page(rest, client, "/api/v3/aggTrades", subscription, query)
            rows = _read(trade_of, page, on_garbage)
            fresh = sorted((row for row in rows if row.trade_id >= next_id), key=lambda row: row.trade_id)
            if (rows or len(page) == PAGE_ROWS_MAX) and not fresh:
                raise _nothing_new(subscription, next_id)
            held += [row for row in fresh if start_ms <= row.traded_at <= end_ms]
            over = len(page) < PAGE_ROWS_MAX or fresh[-1].traded_at > end_ms
            groups = [list(group) for _, group in groupby(held, key=lambda row: row.traded_at)]
            # The last millisecond of a page may continue on the next one.
            held = [] if over or not groups else groups.pop()
            for group in groups:
                record = _made(record_of_trades, group, subscription, on_garbage)
                if record is not None:
                    yield record
            if over:
                return
            next_id = fresh[-1].trade_id + 1
            query = {"fromId": next_id}


async def fundings(
    rest: Rest, subscription: Subscription, start_ms: int, end_ms: int, on_garbage: OnGarbage
) -> AsyncGenerator[FeedRecord, None]:
    """Settled rates with start_ms <= at <= end_ms."""
    async with rest.client() as client:
        end_ms = min(end_ms, await _exchange_time_ms(rest, client, "/fapi/v1/time"))
        next_ms = start_ms
        while next_ms <= end_ms:
            query = {"startTime": next_ms, "endTime": end_ms}
            page = await _page(rest, client, "/fapi/v1/fundingRate", subscription, query)
            rows = _read(funding_of, page, on_garbage)
            if not rows and len(page) < PAGE_ROWS_MAX:
                return
            fresh = [row for row in rows if next_ms <= row.funding_time <= end_ms]
            if not fresh:
                raise _nothing_new(subscription, next_ms)
            for row in sorted(fresh, key=_funding_time):
                record = _made(funding_record, row, subscription, on_garbage)
                if record is not None and record.ts_event >= next_ms:
                    next_ms = record.ts_event + 1
                    yield record
            next_ms = max(map(_funding_time, fresh)) + 1
            if len(page) < PAGE_ROWS_MAX:
                return


def _funding_time(row: FundingRow) -> int:
    return row.funding_time


def _read(
    read: Callable[[msgspec.Raw], Row], page: Sequence[msgspec.Raw], on_garbage: OnGarbage
) -> list[Row]:
    """The rows that can be read; `on_garbage` is called for each of the others."""
    rows: list[Row] = []
    for raw in page:
        try:
            rows.append(read(raw))
        except ValueError as error:
            on_garbage(f"binance history: {error}", bytes(raw).decode(errors="backslashreplace"))
    return rows


def _made(
    make: Callable[[Row, Subscription], FeedRecord],
    row: Row,
    subscription: Subscription,
    on_garbage: OnGarbage,
) -> FeedRecord | None:
    try:
        return make(row, subscription)
    except (ValueError, ArithmeticError) as error:
        on_garbage(f"binance history: {error}", msgspec.json.encode(row).decode())
        return None


async def _page(
    rest: Rest,
    client: httpx.AsyncClient,
    path: str,
    subscription: Subscription,
    query: Mapping[str, str | int],
) -> list[msgspec.Raw]:
    params = {"symbol": subscription.subject.upper(), **query, "limit": PAGE_ROWS_MAX}
    body = await rest.get(client, path, params)
    try:
        return rows_of_page(body)
    except ValueError as error:
        raise WorldError(f"binance: {error}") from error


async def _exchange_time_ms(rest: Rest, client: httpx.AsyncClient, path: str) -> int:
    body = await rest.get(client, path, {})
    try:
        return msgspec.json.decode(body, type=dict[str, int])["serverTime"]
    except (*UNREADABLE_JSON, KeyError) as error:
        raise WorldError(f"binance: its clock cannot be read: {body[:100]!r}") from error


def _nothing_new(subscription: Subscription, where: int) -> WorldError:
    return WorldError(f"binance: the page of {subscription.subject} from {where} holds no usable row")
