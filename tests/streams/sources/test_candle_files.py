"""Reading candle files: tables of good and bad ones."""

from __future__ import annotations

import gzip
import os
import tracemalloc
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.streams.granularity import granularity_ms
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.ports import FeedRecord, Subscription
from coordinator.streams.sources.files.candles import CandleFileSource, iter_candles
from coordinator.streams.sources.files.file_records import BadRow
from coordinator.streams.sources.generated import generated_candles

T0 = 1_677_628_800_000
MINUTE = 60_000
BTC = Subscription("candles", "BTCUSDT", "candle", "1m")
HEADER = "open_time_ms,open,high,low,close,volume\n"
GOOD = "23140.48,23150.77,23128.52,23142.31,2.131777"
SHUFFLED = f"""close_time,volume,close,low,high,open,open_time
{T0 + 59_999},2.131777,23142.31,23128.52,23150.77,23140.48,{T0}
"""
VALUES = dict(zip(("open", "high", "low", "close", "volume"), GOOD.split(","), strict=True))


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def rows(count: int, *, step_ms: int = MINUTE) -> str:
    return "".join(f"{T0 + number * step_ms},{GOOD}\n" for number in range(count))


def read_with_bad(path: Path, **window: int) -> tuple[list[FeedRecord], list[BadRow]]:
    bad: list[BadRow] = []
    return list(iter_candles(path, BTC, on_bad_row=bad.append, **window)), bad


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("milliseconds", HEADER + f"{T0},{GOOD}\n{T0 + MINUTE},{GOOD}\n"),
        ("seconds", f"timestamp,open,high,low,close,volume\n{T0 // 1000},{GOOD}\n{T0 // 1000 + 60},{GOOD}\n"),
        ("seconds with a fraction", f"ts,open,high,low,close,volume\n{T0 // 1000}.0,{GOOD}\n"),
        ("microseconds", f"open_time,open,high,low,close,volume\n{T0}000,{GOOD}\n{T0 + MINUTE}000,{GOOD}\n"),
        ("nanoseconds", f"time,open,high,low,close,volume\n{T0}000000,{GOOD}\n"),
        ("ISO with Z", f"time,open,high,low,close,volume\n2023-03-01T00:00:00Z,{GOOD}\n"),
        ("ISO with another zone", f"Date,Open,High,Low,Close,Volume\n2023-03-01 01:00:00+01:00,{GOOD}\n"),
        ("an exchange's dump without header", f"{T0},{GOOD},{T0 + 59_999},49.1,310,1.0,23.4,0\n"),
        ("six columns without header", f"{T0},{GOOD}\n"),
        ("other order, more columns", SHUFFLED),
        ("semicolons", (HEADER + f"{T0},{GOOD}\n").replace(",", ";")),
        ("tabs", (HEADER + f"{T0},{GOOD}\n").replace(",", "\t")),
        ("quotes", HEADER + f'"{T0}",' + ",".join(f'"{value}"' for value in GOOD.split(",")) + "\n"),
        ("CRLF and blank lines", (HEADER + f"\n{T0},{GOOD}\n\n").replace("\n", "\r\n")),
        ("a byte order mark", "\ufeff" + HEADER + f"{T0},{GOOD}\n"),
        ("no newline at the end", HEADER + f"{T0},{GOOD}"),
        ("spaces around values", HEADER + f" {T0} , {GOOD.replace(',', ' , ')} \n"),
        ("the same row twice", HEADER + f"{T0},{GOOD}\n{T0},{GOOD}\n"),
    ],
)  # fmt: skip
def test_a_good_file_delivers_its_candles_with_their_own_text(
    tmp_path: Path, name: str, content: str
) -> None:
    plain = written(tmp_path / "a.csv", content)
    packed = written(tmp_path / "a.CSV.GZ", gzip.compress(content.encode()))

    records, bad = read_with_bad(plain)

    assert bad == [], name
    first = records[0]
    assert (first.ts_event, first.at, first.values) == (T0, T0 + MINUTE, VALUES)
    assert len(records) == len({record.at for record in records})
    assert list(iter_candles(packed, BTC)) == records


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (f"{T0 + MINUTE},abc,2,1,1,1", "open is 'abc', which is not a finite number"),
        (f"{T0 + MINUTE},,2,1,1,1", "open is '', which is not a finite number"),
        (f"{T0 + MINUTE},1,NaN,1,1,1", "high is 'NaN', which is not a finite number"),
        (f"{T0 + MINUTE},1,2,-inf,1,1", "low is '-inf', which is not a finite number"),
        (f"{T0 + MINUTE},1,2,1,1e999,1", "close is '1e999', which is not a finite number"),
        (f"{T0 + MINUTE},1_0,2,1,1,1", "open is '1_0', which is not a finite number"),
        (f"{T0 + MINUTE},\u0661,2,1,1,1", "open is '\u0661', which is not a finite number"),
        (f"{T0 + MINUTE},1,1.0,1.1,1,1", "high 1.0 is below low 1.1"),
        (f"{T0 + MINUTE},1.00000000000000000002,1.00000000000000000001,1.00000000000000000002,1.00000000000000000002,1",
         "high 1.00000000000000000001 is below low 1.00000000000000000002"),
        (f"{T0 + MINUTE},1,2", "it has 3 columns, the header has 6"),
        (f'{T0 + MINUTE},"1,2,1,1,1', "its quotes do not close"),
        (f"yesterday,{GOOD}", "time is 'yesterday', neither a number nor ISO 8601"),
        (f"{T0}.5,{GOOD}", f"time {T0}.5 is not a whole number of milliseconds"),
        (f"{T0 + 1},{GOOD}", "a 1m candle that opens at 2023-03-01T00:00:00.001Z, off the grid"),
        ("9999999999999," + GOOD, "in the future"),
        ("16776," + GOOD, "would be 1970-01-01T04:39:36Z, before 1990"),
        (f"{T0 + MINUTE},1,2,1,2.5,1", "close 2.5 is above high 2"),
        (f"{T0 + MINUTE},0.5,2,1,1,1", "open 0.5 is below low 1"),
        (f"{T0 + MINUTE},0,2,0,1,1", "open is 0, and a price is above zero"),
        (f"{T0 + MINUTE},1,2,-1,1,1", "low is -1, and a price is above zero"),
        (f"{T0 + MINUTE},1,2,1,1,-5", "volume is -5, and none is below zero"),
        (f"{T0 + MINUTE},1,2,1,1,1{'0' * 100}", "volume has 101 characters, at most 100 are taken"),
        (f"{T0 + MINUTE}," + "1,48,2,90,1,1,1,2,1", "it has 10 columns, the header has 6"),
        ("\xff\xfe\x00", "it has 1 columns, the header has 6"),
    ],
)  # fmt: skip
def test_a_bad_row_is_reported_with_its_line_and_the_others_are_read(
    tmp_path: Path, row: str, reason: str
) -> None:
    path = written(
        tmp_path / "a.csv", HEADER + f"{T0 - MINUTE},{GOOD}\n{T0},{GOOD}\n{row}\n{T0 + MINUTE},{GOOD}\n"
    )

    records, bad = read_with_bad(path)

    assert [record.ts_event for record in records] == [T0 - MINUTE, T0, T0 + MINUTE]
    assert [row.line_number for row in bad] == [4]
    assert reason in bad[0].reason
    assert bad[0].text == row.strip("\x00")
    with pytest.raises(OperatorError, match=r"a\.csv, line 4[:,] "):
        list(iter_candles(path, BTC))


def test_times_without_a_zone_are_refused_with_what_to_write(tmp_path: Path) -> None:
    header = "time,open,high,low,close,volume\n"
    path = written(tmp_path / "a.csv", header + f"2023-03-01 00:00:00,{GOOD}\n")
    with pytest.raises(OperatorError, match=r"a\.csv, line 2: time 2023-03-01 00:00:00 has no zone"):
        read_with_bad(path)


PACKED = gzip.compress((HEADER + rows(500)).encode())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.csv", b"", "empty.csv: the file is empty"),
        ("blank.csv", b"\n\n", "blank.csv: the file is empty"),
        ("empty.csv.gz", gzip.compress(b""), "empty.csv.gz: the file is empty"),
        ("header.csv", HEADER.encode(), "header.csv: there is a header but no row under it"),
        ("cut.csv.gz", PACKED[: len(PACKED) // 2], "the gzip data ends in the middle; the file is truncated"),
        ("cut.csv.gz", PACKED[:-3], "line 502: the gzip data ends in the middle; the file is truncated"),
        ("wrong.csv.gz", PACKED[:200] + b"\0" * 40 + PACKED[240:], "the gzip data is broken"),
        ("plain.csv.gz", (HEADER + rows(3)).encode(), "line 1: the gzip data is broken: Not a gzipped file"),
        ("columns.csv", b"time,open,high,price\n1,1,1,1\n", "no column for low, close, volume; it has time"),
        ("timeless.csv", b"open,high,low,close,volume\n1,1,1,1,1\n", "line 1: no column for a time"),
        ("narrow.csv", b"1677628800000,1,2\n", "line 1: no header and 3 columns"),
        ("candles.xlsx", b"PK", "the zip data is broken"),
        ("noise.csv", b"\x00\x01" * 90_000, "line 1: longer than 65536 characters"),
        ("noise.parquet", b"PAR1 and then nothing", "noise.parquet: cannot be read as Parquet"),
        ("junk.csv", HEADER.encode() + b"a,b,c,d,e,f\n" * 3, "line 2: time is 'a', neither a number nor ISO 8601"),
        ("seconds.csv", (HEADER + rows(90, step_ms=1000)).encode(), "its rows are closer than 1m"),
        ("hours.csv", (HEADER + rows(90, step_ms=3_600_000)).encode(), "its rows are 3600 s apart or more"),
    ],
)  # fmt: skip
def test_an_unusable_file_is_refused_in_one_line(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    path = written(tmp_path / name, content)
    with pytest.raises(OperatorError) as error:
        read_with_bad(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_truncated_gzip_is_refused_before_its_first_record(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv.gz", PACKED[:-9])
    with pytest.raises(OperatorError, match="truncated"):
        next(iter_candles(path, BTC))


def test_a_missing_file_a_folder_and_an_unknown_granularity_are_the_operators_fault(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match=r"none\.csv: there is no such file"):
        list(iter_candles(tmp_path / "none.csv", BTC))
    with pytest.raises(OperatorError, match="this is a folder; name one file"):
        list(iter_candles(tmp_path, BTC))
    with pytest.raises(
        OperatorError, match="granularity '7m' is unknown; choose from 1s, 5s, 1m, 5m, 15m, 1h"
    ):
        list(iter_candles(tmp_path, Subscription("candles", "BTCUSDT", "candle", "7m")))
    assert granularity_ms("4h") == 14_400_000


def test_a_window_includes_both_its_ends(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", HEADER + rows(10))
    records, _ = read_with_bad(path, start_ms=T0 + 3 * MINUTE, end_ms=T0 + 5 * MINUTE)
    assert [record.at for record in records] == [T0 + 3 * MINUTE, T0 + 4 * MINUTE, T0 + 5 * MINUTE]


@pytest.mark.parametrize(
    ("times", "opens"),
    [
        (pa.array([T0, T0 + MINUTE], pa.timestamp("ms", "UTC")), pa.array([23140.48, 23140.48])),
        (pa.array([T0 * 1000, (T0 + MINUTE) * 1000], pa.timestamp("us", "UTC")), pa.array(["23140.48"] * 2)),
        (pa.array([T0 * 10**6, (T0 + MINUTE) * 10**6]), pa.array([23140.48] * 2, pa.float32())),
        (pa.array([T0, T0 + MINUTE]), pa.array([Decimal("23140.48")] * 2)),
        (pa.array(["2023-03-01T00:00:00Z", "2023-03-01T00:01:00Z"]), pa.array([23140.48] * 2)),
    ],
)
def test_a_parquet_file_delivers_the_same_candles_as_text(tmp_path: Path, times: Any, opens: Any) -> None:
    table = {"open_time": times, "open": opens} | {
        name: pa.array([VALUES[name]] * 2) for name in ("high", "low", "close", "volume")
    }
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    records, bad = read_with_bad(tmp_path / "a.parquet")
    assert bad == []
    assert [(record.ts_event, record.values) for record in records] == [(T0, VALUES), (T0 + MINUTE, VALUES)]


def test_a_parquet_file_with_gaps_without_zone_or_without_rows_is_handled(tmp_path: Path) -> None:
    def table(times: Any, closes: list[float | None]) -> Any:
        ones = pa.array([1.0] * len(closes))
        names = {"time": times, "open": ones, "high": ones, "low": ones, "volume": ones}
        return pa.table(names | {"close": pa.array(closes, pa.float64())})

    path = tmp_path / "a.parquet"
    pq.write_table(table(pa.array([T0, T0 + MINUTE, T0 + 2 * MINUTE]), [1.0, None, float("nan")]), path)
    records, bad = read_with_bad(path)
    assert len(records) == 1
    assert [(row.line_number, row.reason) for row in bad] == [
        (2, "close is '', which is not a finite number"),
        (3, "close is 'nan', which is not a finite number"),
    ]
    pq.write_table(table(pa.array([T0], pa.timestamp("ms")), [1.0]), path)
    with pytest.raises(
        OperatorError,
        match=r"time 2023-03-01 00:00:00\.000 has no zone; write it as 2023-03-01T00:00:00\.000Z if it is UTC",
    ):
        read_with_bad(path)
    pq.write_table(table(pa.array([], pa.int64()), []), path)
    with pytest.raises(OperatorError, match="the file holds no rows"):
        read_with_bad(path)


prices = st.decimals(min_value="0.00000001", max_value="99999999", places=8).map(lambda price: f"{price:f}")


@settings(max_examples=60, deadline=None)
@given(
    candles=st.lists(st.tuples(prices, prices, prices, prices, prices), min_size=1, max_size=30),
    header=st.booleans(),
    packed=st.booleans(),
)
def test_a_written_file_is_read_back_to_the_letter(
    tmp_path_factory: pytest.TempPathFactory,
    candles: list[tuple[str, ...]],
    header: bool,
    packed: bool,
) -> None:
    lines, expected = [], []
    for number, (*quotes, volume) in enumerate(candles):
        open_ms = T0 + number * MINUTE
        low, opened, closed, high = sorted(quotes, key=Decimal)
        lines.append(f"{open_ms},{opened},{high},{low},{closed},{volume}\n")
        expected.append((open_ms, [opened, high, low, closed, volume]))
    text = (HEADER if header else "") + "".join(lines)
    path = tmp_path_factory.mktemp("written") / ("a.csv.gz" if packed else "a.csv")
    written(path, gzip.compress(text.encode()) if packed else text)

    records = list(iter_candles(path, BTC))

    assert [(record.ts_event, list(record.values.values())) for record in records] == expected
    assert all(record.at == record.ts_event + MINUTE for record in records)


@settings(max_examples=100, deadline=None)
@given(noise=st.binary(max_size=300), packed=st.booleans(), name=st.sampled_from(["a.csv", "a.parquet"]))
def test_any_bytes_whatever_lead_to_records_bad_rows_or_one_clear_line(
    tmp_path_factory: pytest.TempPathFactory,
    noise: bytes,
    packed: bool,
    name: str,
) -> None:
    folder = tmp_path_factory.mktemp("noise")
    content = HEADER.encode() + f"{T0},{GOOD}\n".encode() + noise
    path = folder / (f"{name}.gz" if packed and name == "a.csv" else name)
    written(path, gzip.compress(content) if packed else content)
    try:
        records, bad = read_with_bad(path)
    except OperatorError as error:
        message = str(error)
        assert str(path) in message
        assert "\n" not in message
        return
    assert records
    assert all(row.reason for row in bad)


def test_the_memory_of_reading_does_not_grow_with_the_file(tmp_path: Path) -> None:
    def peak_bytes(count: int) -> int:
        path = written(tmp_path / f"{count}.csv", HEADER + rows(count))
        tracemalloc.start()
        read = sum(1 for _ in iter_candles(path, BTC))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert read == count
        return peak

    peak_bytes(10)  # what is imported and compiled once does not belong to the file
    # The least of three: another thread of the process may need memory meanwhile.
    large, small = (min(peak_bytes(count) for _ in range(3)) for count in (4_500, 1_500))
    assert large < 1.3 * small


async def test_a_file_is_a_source_with_history_and_no_stream(tmp_path: Path) -> None:
    written(tmp_path / "BTCUSDT.csv", HEADER + rows(3) + "x,1,1,1,1,1\n")
    garbage: list[tuple[str, str]] = []
    source = CandleFileSource(
        str(tmp_path / "{subject}.csv"), lambda *reason_and_text: garbage.append(reason_and_text)
    )
    assert [record.at async for record in source.history(BTC, T0 + 2 * MINUTE, T0 + 9 * MINUTE)] == [
        T0 + 2 * MINUTE,
        T0 + 3 * MINUTE,
    ]
    assert garbage[0][0].startswith("BTCUSDT.csv, line 5: ")
    assert [record async for record in source.stream([BTC, BTC])] == []


async def test_a_file_without_symbols_has_one_subject_only(tmp_path: Path) -> None:
    source = CandleFileSource(str(written(tmp_path / "one.csv", HEADER + rows(3))))
    ether = Subscription("candles", "ETHUSDT", "candle", "1m")
    assert len([record async for record in source.history(BTC, 0, 1 << 62)]) == 3
    with pytest.raises(
        OperatorError,
        match="its rows do not name their subject, so the file cannot be used for BTCUSDT and ETHUSDT",
    ):
        _ = [record async for record in source.history(ether, 0, 1 << 62)]


async def test_a_file_with_symbols_delivers_each_subject_its_own(tmp_path: Path) -> None:
    text = "symbol,open_time,open,high,low,close,volume\n" + "".join(
        f"{symbol},{T0 + n * MINUTE},{price},{price},{price},{price},1\n"
        for symbol, price in (("BTC/USDT", 100), ("ETHUSDT", 7))
        for n in range(3)
    )
    source = CandleFileSource(str(written(tmp_path / "both.csv", text)))
    for subject, price in (("BTCUSDT", "100"), ("ETHUSDT", "7")):
        wanted = Subscription("candles", subject, "candle", "1m")
        assert {record.values["close"] async for record in source.history(wanted, 0, 1 << 62)} == {price}
    with pytest.raises(
        OperatorError,
        match="its rows are for BTC/USDT, ETHUSDT, not for SOLUSDT; choose the subject with --subject",
    ):
        list(iter_candles(tmp_path / "both.csv", Subscription("candles", "SOLUSDT", "candle", "1m")))


def test_three_weeks_of_candles_are_read_completely(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    count, last_at = 30_240, T0 + 30_240 * MINUTE
    folder = Path(os.environ.get("COORDINATOR_CANDLES_DIR", Path(__file__).parents[4] / "shared" / "data"))
    path = folder / "BTCUSDT-1m-2023-03-01_2023-03-21.csv.gz"
    if not path.exists():
        with capsys.disabled():
            print("(no real candles beside the repository: reading three generated weeks)", end=" ")
        candles = generated_candles(BTC, T0 + MINUTE, last_at, seed=1)
        lines = (f"{record.ts_event},{','.join(record.values.values())}\n" for record in candles)
        path = written(tmp_path / "made.csv.gz", gzip.compress((HEADER + "".join(lines)).encode()))

    records, bad = read_with_bad(path)

    assert (len(records), bad) == (count, [])
    assert (records[0].at, records[-1].at) == (T0 + MINUTE, last_at)
    with gzip.open(path, "rt") as lines_of_file:
        text = lines_of_file.read()
    assert text == HEADER + "".join(
        f"{record.ts_event},{','.join(record.values.values())}\n" for record in records
    )
