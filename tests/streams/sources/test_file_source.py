"""A file as a feed: followed while it grows, is truncated, rotated or damaged; and read whole."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.waiting import limit

from coordinator.streams.log.errors import OperatorError, WorldError
from coordinator.streams.ports import FeedRecord, Subscription
from coordinator.streams.sources.catalog import source_by_name
from coordinator.streams.sources.files.file import FileSource
from coordinator.streams.sources.files.grown_lines import LINE_BYTES_MAX, GrownLines

AT = 1_700_000_040_000
TICKS = Subscription("file", "BTCUSDT", "tick", "1s")
ETH = Subscription("file", "ETHUSDT", "tick", "1s")
CANDLES = Subscription("file", "BTCUSDT", "candle", "1m")


@pytest.fixture
def garbage() -> list[tuple[str, str]]:
    return []


def tick(number: int, **more: Any) -> str:
    return json.dumps({"ts": AT + number, "price": f"{number}.50"} | more) + "\n"


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


async def whole(records: AsyncIterator[FeedRecord]) -> list[FeedRecord]:
    async with limit():
        return [record async for record in records]


async def followed(
    source: FileSource, subscriptions: list[Subscription], steps: list[tuple[Callable[[], Any], int]]
) -> list[FeedRecord]:
    """Does each step once the stream waits, then takes the records that the step should bring."""
    stream = source.stream(subscriptions)
    assert isinstance(stream, AsyncGenerator)
    taken: list[FeedRecord] = []
    async with limit(), aclosing(stream):
        coming = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0.1)
        for step, count in steps:
            step()
            for _ in range(count):
                taken.append(await coming)
                coming = asyncio.ensure_future(anext(stream))
            await asyncio.sleep(0.1)
            assert not coming.done()
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)
    return taken


def numbers(records: list[FeedRecord]) -> list[int]:
    return [record.ts_event - AT for record in records]


async def test_a_growing_file_delivers_each_line_when_it_is_complete(
    tmp_path: Path, garbage: list[tuple[str, str]]
) -> None:
    path = tmp_path / "ticks.jsonl"
    append(path, tick(1) + tick(2) + '{"ts":')
    source = FileSource(
        str(path), lambda *reason_and_text: garbage.append(reason_and_text), poll_seconds=0.02
    )
    records = await followed(
        source,
        [TICKS],
        [
            (lambda: append(path, f' {AT + 3}, "price": 3.5'), 0),
            (lambda: append(path, "0, "), 0),
            (lambda: append(path, '"note": "x", "size": 7}\n' + tick(4)), 2),
            (lambda: append(path, "oops\n\n[1]\n" + tick(5)), 1),
        ],
    )
    assert numbers(records) == [3, 4, 5]
    assert records[0].values == {"price": "3.50", "size": "7"}
    assert numbers(await whole(source.history(TICKS, 0, 1 << 62))) == [1, 2, 3, 4, 5]
    assert [text for _, text in garbage[:2]] == ["oops", "[1]"]
    assert source.health.state == "connected"


async def test_rotation_and_truncation_lose_no_complete_line(
    tmp_path: Path, garbage: list[tuple[str, str]]
) -> None:
    path = tmp_path / "ticks.jsonl"
    append(path, tick(1))

    def rotate() -> None:
        append(path, tick(3) + '{"ts": 17')
        path.rename(tmp_path / "ticks.jsonl.1")
        append(path, tick(4))

    def cut() -> None:
        path.write_text(tick(6))

    def rewrite_longer() -> None:
        path.write_text(tick(7) + tick(8) + tick(9))

    source = FileSource(
        str(path), lambda *reason_and_text: garbage.append(reason_and_text), poll_seconds=0.02
    )
    records = await followed(
        source,
        [TICKS],
        [(lambda: append(path, tick(2)), 1), (rotate, 2), (lambda: append(path, tick(5)), 1), (cut, 1),
         (rewrite_longer, 3)],
    )  # fmt: skip
    assert numbers(records) == [2, 3, 4, 5, 6, 7, 8, 9]
    assert [reason for reason, _ in garbage] == [
        "ticks.jsonl, byte 117: the file was replaced while this line was not whole"
    ]


async def test_a_missing_file_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "later.csv"
    source = FileSource(str(path), poll_seconds=0.02)
    with pytest.raises(WorldError, match=r"later\.csv: there is no such file"):
        await whole(source.history(TICKS, 0, 1))
    records = await followed(
        source,
        [TICKS],
        [(lambda: None, 0), (lambda: append(path, f"ts,price,subject\n{AT},1.5,BTCUSDT\n"), 1)],
    )
    assert numbers(records) == [0]
    assert records[0].values == {"price": "1.5"}


async def test_the_rows_of_two_subjects_never_mix(tmp_path: Path, garbage: list[tuple[str, str]]) -> None:
    path = tmp_path / "both.jsonl"
    path.touch()
    source = FileSource(
        str(path), lambda *reason_and_text: garbage.append(reason_and_text), poll_seconds=0.02
    )
    rows = "".join(tick(n, subject=("BTCUSDT", "ETHUSDT", "SOLUSDT")[n % 3]) for n in range(1, 31)) + tick(31)
    records = await followed(source, [TICKS, ETH], [(lambda: append(path, rows), 20)])
    assert [(record.subject, n % 3) for record, n in zip(records, numbers(records), strict=True)] == [
        ("ETHUSDT", 1) if n % 3 else ("BTCUSDT", 0) for n in numbers(records)
    ]
    assert [reason for reason, _ in garbage] == [
        "both.jsonl, line 31, 2023-11-14T22:14:00.031Z: the row names no subject, and 2 are followed"
    ]

    for subject in ("BTCUSDT", "ETHUSDT"):
        append(tmp_path / f"one-{subject}.jsonl", tick(len(subject)) if subject == "BTCUSDT" else tick(99))
    apart = FileSource(str(tmp_path / "one-{subject}.jsonl"))
    assert numbers(await whole(apart.history(ETH, 0, 1 << 62))) == [99]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"price": "1"}, "no column for a time"),
        ({"ts": AT, "prize": "1"}, "no column for price"),
        ({"ts": AT, "price": "NaN"}, "price is 'NaN', which is not a finite number"),
        ({"ts": AT, "price": "0"}, "price is 0, and a price is above zero"),
        ({"ts": AT, "price": "1", "quantity": -1}, "quantity is -1, and none is below zero"),
        ({"ts": AT, "price": "1", "revision": "-1"}, "revision is '-1', which is not a count"),
        ({"ts": "soon", "price": "1"}, "time is 'soon', neither a number nor ISO 8601"),
        ({"ts": -5, "price": "1"}, "time -5 would be 1969-12-31T23:59:55Z, before 1990"),
        ({"ts": 4_000_000_000_000, "price": "1"}, "in the future"),
        ({"ts": AT, "values": [1]}, "its values are no object"),
        ({"ts": AT} | {f"v{n}": 1 for n in range(300)} | {"price": 1}, "301 values, at most 200 are taken"),
    ],
)
async def test_a_row_that_is_no_record_has_a_reason(
    tmp_path: Path, garbage: list[tuple[str, str]], row: dict[str, Any], reason: str
) -> None:
    path = tmp_path / "ticks.jsonl"
    path.write_text(json.dumps(row) + "\n" + tick(1))
    source = FileSource(str(path), lambda *reason_and_text: garbage.append(reason_and_text))
    assert numbers(await whole(source.history(TICKS, 0, 1 << 62))) == [1]
    assert reason in garbage[0][0]


async def test_whole_files_of_candles_are_read_from_csv_and_parquet_alike(
    tmp_path: Path, garbage: list[tuple[str, str]]
) -> None:
    rows = [(AT + n * 60_000, 100.5 + n, 103.25 + n, 99.0 + n, 101.0 + n, 7.5) for n in range(50)]
    names = ("timestamp", "open", "high", "low", "close", "volume")
    csv_path, parquet_path = tmp_path / "c.csv", tmp_path / "c.parquet"
    shuffled = [rows[(n * 7) % 50] for n in range(50)]
    csv_path.write_text(
        ",".join(names) + "\n" + "".join(",".join(map(repr, row)) + "\n" for row in shuffled) + "1,2\n"
    )
    columns: dict[str, Any] = dict(zip(names, zip(*rows, strict=True), strict=True))
    moments = [datetime.fromtimestamp(ms / 1000, UTC) for ms in columns["timestamp"]]
    pq.write_table(
        pa.table(columns | {"timestamp": pa.array(moments, pa.timestamp("us", "UTC"))}), parquet_path
    )
    by_csv, by_parquet = [
        await whole(
            FileSource(str(path), lambda *reason_and_text: garbage.append(reason_and_text)).history(
                CANDLES, AT + 60_000, AT + 600_000
            )
        )
        for path in (csv_path, parquet_path)
    ]
    assert by_csv == by_parquet
    assert [record.ts_event for record in by_csv] == [AT + n * 60_000 for n in range(10)]
    assert by_csv[3].values == {
        "open": "103.5",
        "high": "106.25",
        "low": "102.0",
        "close": "104.0",
        "volume": "7.5",
    }
    assert garbage == [("c.csv, line 52: it has 2 columns, the header has 6", "1,2")]


def test_a_wrong_path_or_option_is_refused_with_what_to_change(tmp_path: Path) -> None:
    for options, message in (
        ({}, "needs the option path: set FEED_OPT_PATH=FILE.jsonl"),
        ({"path": "a.txt"}, "should end in one of .jsonl, .ndjson, .csv, .parquet"),
        ({"path": "a.csv", "poll_seconds": "0"}, "poll_seconds is '0'; give a positive number of seconds"),
    ):
        with pytest.raises(OperatorError) as error:
            source_by_name("file", options)
        assert message in str(error.value)


async def test_a_csv_without_a_time_column_is_the_operators_to_change(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("price,size\n1,2\n")
    with pytest.raises(OperatorError, match="no column for a time"):
        await whole(FileSource(str(path)).history(TICKS, 0, 1))


@settings(max_examples=60, deadline=None)
@given(
    lines=st.lists(st.text('ab"{}é,', max_size=12), max_size=30),
    cuts=st.lists(st.integers(1, 40), max_size=40),
)
def test_however_a_file_is_written_its_complete_lines_come_once_in_order(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], cuts: list[int]
) -> None:
    path = tmp_path_factory.mktemp("grown") / "x.jsonl"
    path.touch()
    data = "".join(line + "\n" for line in lines).encode()
    grown, read = GrownLines(path), []
    try:
        for size in [*cuts, len(data)]:
            with path.open("ab") as file:
                file.write(data[:size])
            data = data[size:]
            while got := grown.read():
                read += got
    finally:
        grown.close()
    assert [line.text for line in read] == [line.strip("\r \0") for line in lines]
    assert [line.first for line in read] == [n == 0 for n in range(len(lines))]


def test_an_endless_line_costs_itself_and_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"a" * (3 * LINE_BYTES_MAX) + b"\nb\n")
    grown = GrownLines(path)
    lines = grown.read() + grown.read()
    grown.close()
    assert [(len(line.text), line.fault != "") for line in lines] == [(LINE_BYTES_MAX, True), (1, False)]
    assert not [fd for fd in os.listdir("/proc/self/fd") if _target(fd) == str(path)]


def _target(fd: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""
