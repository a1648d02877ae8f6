"""Files as users have them: every layout that `--candles` and `feeds import` read, and every refusal."""

from __future__ import annotations

import gzip
import io
import json
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.waiting import LIMIT_SECONDS

from coordinator.streams.log.errors import OperatorError
from coordinator.streams.ports import FeedRecord, Subscription
from coordinator.streams.sources.files.candles import candle_file, iter_candles
from coordinator.streams.sources.files.file_records import BadRow, given_records
from coordinator.streams.sources.files.file_rows import make_reading

T0 = 1_677_628_800_000
MINUTE = 60_000
BTC = Subscription("candles", "BTCUSDT", "candle", "1m")
DAILY = Subscription("candles", "BTCUSDT", "candle", "1d")
TICKS = {"source": "binance", "subject": "BTCUSDT", "kind": "tick", "granularity": "1s"}
HEADER = "open_time_ms,open,high,low,close,volume\n"
VALUES = ["1", "3", "0.5", "2", "10"]
KLINE = "1,3,0.5,2,10"


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def both(path: Path, subscription: Subscription = BTC, **reading: Any) -> list[FeedRecord]:
    """The result of both readers, which must be the same. Raises what both raise."""
    how = make_reading(**reading)
    defaults = {"source": "candles", "subject": subscription.subject, "kind": "candle"}
    defaults["granularity"] = subscription.granularity
    by_import: list[FeedRecord] | str
    try:
        by_import = list(given_records(path, defaults, how))
    except OperatorError as error:
        by_import = str(error)
    try:
        records = list(iter_candles(path, subscription, reading=how))
    except OperatorError as error:
        complaint = str(error)
        assert complaint == by_import
        raise
    assert by_import == records
    return records


def zipped(members: dict[str, str | bytes], packing: int = zipfile.ZIP_DEFLATED) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", packing) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return packed.getvalue()


def _flipped(packed: bytes, where: bytes) -> bytes:
    """One visible byte is replaced by another letter or digit."""
    at = packed.index(where)
    return packed[:at] + bytes([packed[at] ^ 1]) + packed[at + 1 :]


BLANK = b" " * 1000 + b"\n"
DUMP = f"{KLINE},{T0 + 59_999},1,1,1,1,0"
YFINANCE = "Price,Close,High,Low,Open,Volume\nTicker,BTC-USD,BTC-USD,BTC-USD,BTC-USD,BTC-USD\nDatetime,,,,,\n"
CDD = "https://www.CryptoDataDownload.com\nunix,date,symbol,open,high,low,close,Volume BTC,Volume USDT,tradecount\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("dump.csv", f"{T0},{DUMP}\n"),
        ("dump in us.csv", f"{T0}000,{DUMP}\n"),
        ("um dump.csv", ("open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,"
                        f"taker_buy_quote_volume,ignore\n{T0},{DUMP}\n")),
        ("kraken.csv", f"{T0 // 1000},{KLINE},57\n"),
        ("polygon.csv", ("ticker,volume,open,close,high,low,window_start,transactions\n"
                        f"X:BTC-USD,10,1,2,3,0.5,{T0}000000,4\n")),
        ("finnhub.csv", "t,o,h,l,c,v,n,vw\n2023-03-01T00:00:00Z," + KLINE + ",4,1.5\n"),
        ("humps.csv", f"startTime,openPrice,highPrice,lowPrice,closePrice,volume,turnover\n{T0},{KLINE},5\n"),
        ("candles.txt", f"{HEADER}{T0},{KLINE}\n"),
        ("yfinance.csv", YFINANCE + "2023-03-01 00:00:00+00:00,2,3,0.5,1,10\n"),
        ("cdd.csv", f"{CDD}{T0},2023-03-01 00:00:00,BTC/USDT,{KLINE},5,1\n"),
        ("bigquery.csv", f"time,open,high,low,close,volume\n2023-03-01 00:00:00 UTC,{KLINE}\n"),
        ("lower z.csv", f"time,open,high,low,close,volume\n2023-03-01t00:00:00z,{KLINE}\n"),
        ("nanoseconds.csv", f"time,open,high,low,close,volume\n2023-03-01T00:00:00.000000000Z,{KLINE}\n"),
        ("pandas.csv", f",open_time,open,high,low,close,volume\n0,{T0},{KLINE}\n"),
        ("pandas index.csv", f",open,high,low,close,volume\n2023-03-01 00:00:00+00:00,{KLINE}\n"),
        ("kaggle.csv", ("Timestamp,Open,High,Low,Close,Volume_(BTC),Volume_(Currency)\n"
                       f"{T0 // 1000}.0,{KLINE},7\n")),
        ("alpha vantage.csv", f"timestamp,1. open,2. high,3. low,4. close,5. volume\n2023-03-01T00:00:00Z,{KLINE}\n"),
        ("coinapi.csv", ("time_period_start;time_period_end;time_open;px_open;px_high;px_low;px_close;sx_sum\n"
                        "2023-03-01T00:00:00.0000000Z;2023-03-01T00:01:00Z;2023-03-01T00:00:01.1Z;1;3;0.5;2;10\n")),
        ("excel.csv", f"sep=;\nMTS;OPEN;CLOSE;HIGH;LOW;VOLUME\n{T0};1;2;3;0.5;10\n"),
        ("comments.csv", f"# mine\n{HEADER}{T0},{KLINE}\n"),
        ("trailing.csv", f"{HEADER.strip()},\n{T0},{KLINE},\n"),
        ("mark.csv", f"\ufeff{HEADER}{T0},{KLINE}\n"),
        ("latin.csv", (HEADER.strip() + f",note\n{T0},{KLINE},caf").encode() + b"\xe9\n"),
        ("upper.CSV", f"{HEADER}{T0},{KLINE}\n"),
        ("tabs.tsv", f"{HEADER}{T0},{KLINE}\n".replace(",", "\t")),
        ("named ms in us.csv", f"{HEADER}{T0}000,{KLINE}\n"),
        ("lines.jsonl", json.dumps({"t": T0 // 1000, "o": 1, "h": 3, "l": 0.5, "c": 2, "v": 10}) + "\n"),
        ("arrays.jsonl", json.dumps([T0, "1", "3", "0.5", "2", "10"]) + "\n"),
        ("lines.jsonl.gz", gzip.compress(json.dumps({"ts": T0, "open": "1", "high": "3", "low": "0.5", "close": "2",
                                                     "volume": "10"}).encode())),
        ("one.zip", zipped({"BTCUSDT-1m.csv": f"{T0},{DUMP}\n", "__MACOSX/._x": "x"})),
        ("gzip called csv.csv", gzip.compress(f"{HEADER}{T0},{KLINE}\n".encode())),
        ("a row that comes again.csv", f"{HEADER}{T0},{KLINE}\n{T0},1.0,3.00,.5,2,10\n"),
        ("a header that comes again.csv", f"{HEADER}{T0},{KLINE}\n{HEADER}"),
    ],
)  # fmt: skip
def test_a_layout_is_read_by_both_readers_alike(tmp_path: Path, name: str, content: str | bytes) -> None:
    path = written(tmp_path / name, content)
    if name == "polygon.csv":  # X:BTC-USD, alone in its file, counts as BTCUSDT if one subject is requested
        assert [
            record.subject for record in given_records(path, {**TICKS, "kind": "candle", "granularity": "1m"})
        ] == ["X:BTC-USD"]
        records = list(iter_candles(path, BTC))
    else:
        records = both(path)
    assert [(record.ts_event, list(record.values.values()), record.subject) for record in records] == [
        (T0, VALUES, "BTCUSDT")
    ]


def test_each_row_is_in_its_own_unit_and_headers_may_come_in_the_middle(tmp_path: Path) -> None:
    header = "open_time,open,high,low,close,volume,close_time,quote_volume,count,a,b,ignore\n"
    rows = [f"{T0 + n * MINUTE}{'000' * (n >= 6)},{DUMP}\n" for n in range(12)]
    path = written(tmp_path / "a.csv", "".join([*rows[:6], header, *rows[6:]]))
    assert [record.ts_event for record in both(path)] == [T0 + n * MINUTE for n in range(12)]


def test_dates_alone_are_midnight_of_daily_candles(tmp_path: Path) -> None:
    header = "Date,Open,High,Low,Close,Adj Close,Volume\n"
    path = written(tmp_path / "yahoo.csv", f"{header}2023-03-01,1,3,0.5,2,2,10\n2023-03-02Z,1,3,0.5,2,2,10\n")
    assert [record.ts_event for record in both(path, DAILY)] == [T0, T0 + 86_400_000]
    with pytest.raises(OperatorError, match="only a 1d candle may have; write it as 2023-03-01T00:00:00Z"):
        both(path)


def test_rows_in_any_order_are_sorted_and_repeats_counted(tmp_path: Path) -> None:
    order = [3, 2, 1, 0, 4, 5, 3, 4]
    path = written(tmp_path / "a.csv", HEADER + "".join(f"{T0 + n * MINUTE},{KLINE}\n" for n in order))
    assert [record.ts_event for record in both(path)] == [T0 + n * MINUTE for n in range(6)]
    file, _ = candle_file(path, BTC)
    assert file.account.text() == "6 records, 2 rows that came again"


def test_empty_minutes_are_gaps_and_counted(tmp_path: Path) -> None:
    empty = "".join(f"{T0 + n * MINUTE},NaN,NaN,NaN,NaN,{'NaN' if n % 2 else '0'}\n" for n in range(1, 1500))
    path = written(tmp_path / "a.csv", f"{HEADER}{T0},{KLINE}\n{empty}{T0 + 1500 * MINUTE},{KLINE}\n")
    assert [record.ts_event for record in both(path)] == [T0, T0 + 1500 * MINUTE]
    file, _ = candle_file(path, BTC)
    assert file.account.text() == "2 records, 1,499 times without a price (holes)"


def test_bad_rows_after_a_step_back_are_reported_once_each(tmp_path: Path) -> None:
    rows = (
        f"{T0},1,3,0.5,9,10",
        f"{T0 + MINUTE},{KLINE}",
        f"{T0},{KLINE}",
        f"{T0 + 2 * MINUTE},1,3,0.5,x,10",
    )
    path = written(tmp_path / "a.csv", HEADER + "\n".join(rows))
    bad: list[BadRow] = []
    assert len(list(iter_candles(path, BTC, on_bad_row=bad.append))) == 2
    assert [row.said("a.csv") for row in bad] == [
        "a.csv, line 2, 2023-03-01T00:00:00Z: close 9 is above high 3",
        "a.csv, line 5, 2023-03-01T00:02:00Z: close is 'x', which is not a finite number",
    ]


def test_an_unfinished_candle_is_left_out(tmp_path: Path) -> None:
    from coordinator.streams.clock import wall_ms

    opened = wall_ms() // 86_400_000 * 86_400_000
    path = written(tmp_path / "a.csv", f"{HEADER}{opened - 86_400_000},{KLINE}\n{opened},{KLINE}\n")
    assert [record.ts_event for record in both(path, DAILY)] == [opened - 86_400_000]


@pytest.mark.parametrize("stamp", ["59999", "60000", "59.999"])
def test_candles_stamped_at_their_end_are_recognised(tmp_path: Path, stamp: str) -> None:
    time = f"2023-03-01T00:00:{stamp}Z" if "." in stamp else str(T0 + int(stamp))
    path = written(tmp_path / "a.csv", f"timestamp,open,high,low,close,volume\n{time},{KLINE}\n")
    assert [record.ts_event for record in both(path, stamp="close")] == [T0]
    only = written(tmp_path / "b.csv", f"close_time,open,high,low,close,volume\n{time},{KLINE}\n")
    assert [record.ts_event for record in both(only, stamp="close")] == [T0]
    with pytest.raises(OperatorError, match="it has only when candles close: say --stamp close"):
        both(only)
    with pytest.raises(OperatorError, match="stamp 'end': write open"):
        make_reading(stamp="end")


def test_columns_can_be_named_by_name_and_by_number(tmp_path: Path) -> None:
    named = written(tmp_path / "a.csv", f"when,first,top,bottom,last,vol.\n{T0},{KLINE}\n")
    mapping = "time=when,open=first,high=TOP,low=bottom,close=last,volume=vol."
    assert [list(record.values.values()) for record in both(named, columns=mapping)] == [VALUES]
    bare = written(tmp_path / "b.csv", f"x,0.5,3,1,2,{T0 // 1000},10,vwap\n")
    mapping = "time=6,open=4,high=3,low=2,close=5,volume=7"
    assert [list(record.values.values()) for record in both(bare, columns=mapping)] == [VALUES]
    with pytest.raises(
        OperatorError, match="--columns names 'nowhere', which is not a column; it has when, first"
    ):
        both(named, columns="time=nowhere")
    with pytest.raises(OperatorError, match="'price' is not NAME=COLUMN"):
        make_reading("price")


def test_prices_below_zero_are_read_if_the_operator_allows_them(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", f"{HEADER}{T0},-1.43,0.01,-2.5,-2.5,100\n{T0 + MINUTE},0,0,0,0,0\n")
    assert len(both(path, any_price=True)) == 2
    with pytest.raises(OperatorError, match=r"open is -1\.43, and a price is above zero"):
        both(path)


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("sci.csv", f"{HEADER}{T0},{KLINE}\n1.67763E+12,{KLINE}\n",
         "line 3: time 1.67763E+12 is in scientific notation, which has lost its digits"),
        ("sci with a comma.csv", f"open_time;open;high;low;close;volume\n1,67763E+12;{KLINE.replace(',', ';')}\n",
         "line 2: time 1,67763E+12 is in scientific notation"),
        ("utf16.csv.gz", gzip.compress((HEADER + f"{T0},{KLINE}\n").encode("utf-16")), "this is UTF-16 or no text"),
        ("page.csv", json.dumps([[T0, "1", "3", "0.5", "2", "10"]]), "this is JSON; write one record on each line"),
        ("page.jsonl", json.dumps([[T0, "1", "3", "0.5", "2", "10"]]), "it holds several records; write one a line"),
        ("two truths.csv", f"{HEADER}{T0},{KLINE}\n{T0 + MINUTE},{KLINE}\n{T0},9,9,9,9,9\n",
         "line 4: 2023-03-01T00:00:00Z occurs already with other values (line 2 has open 1, this one 9)"),
        ("utf16.csv", (HEADER + f"{T0},{KLINE}\n").encode("utf-16"), "this is UTF-16"),
        ("utf16 without mark.csv", (HEADER + f"{T0},{KLINE}\n").encode("utf-16-le"), "this is UTF-16 or no text"),
        ("decimal comma.csv", f"time;open;high;low;close;volume\n2023-03-01T00:00:00Z;{'23140,48;' * 4}1\n",
         "open is '23140,48', which is not a finite number; write numbers plainly, like 23140.48"),
        ("thousands.csv", HEADER + f'{T0},"23,140.48","23,150.77","23,128.52","23,142.31",2.1\n',
         "write numbers plainly"),
        ("investing.csv", '"Date","Price","Open","High","Low","Vol.","Change %"\n"03/01/2023","1","1","1","1","1K","1%"\n',
         "no column for close, volume; it has Date, Price"),
        ("us dates.csv", f"date,open,high,low,close,volume\n03/01/2023 00:00,{KLINE}\n",
         "which may put the day or the month first; write it like 2023-03-01"),
        ("year 1970.csv", f"time,open,high,low,close,volume\n1970-01-20T10:00:00Z,{KLINE}\n", "before 1990"),
        ("yyyymmdd.csv", f"time,open,high,low,close,volume\n20230301,{KLINE}\n", "before 1990"),
        ("yyyymmddhhmm.csv", f"time,open,high,low,close,volume\n202303010000,{KLINE}\n", "before 1990"),
        ("serial date.csv", f"time,open,high,low,close,volume\n44986.5,{KLINE}\n", "before 1990"),
        ("year 56969.csv", f"time,open,high,low,close,volume\n{T0 // 1000}0000000000000,{KLINE}\n", "in the future"),
        ("year 2286.csv", f"{HEADER}9999999960000,{KLINE}\n", "in the future"),
        ("far.csv", f"{HEADER}{'9' * 60},{KLINE}\n", "in the future"),
        ("eight.csv", f"{T0},{KLINE},1,1\n", "no header and 8 columns"),
        ("coinbase.csv", f"{T0},0.5,3,1,2,10\n", "open 0.5 is below low 1"),
        ("two.zip", zipped({"a.csv": "x", "b.csv": "y"}), "it holds 2 files instead of one"),
        ("sheet.xlsx.csv", zipped({"xl/workbook.xml": "x"}), "this is a spreadsheet; save it as CSV"),
        ("picture.zip", zipped({"a.png": "x"}), "its content, a.png, is not text"),
        ("cut.zip", zipped({"a.csv": f"{HEADER}{T0},{KLINE}\n" * 50})[:-40], "the zip data is broken"),
        ("other.csv", b"\xfd7zXZ\0rest", "it is packed with xz"),
        ("no gzip.csv.gz", b"hello", "the gzip data is broken"),
        ("bomb.csv.gz", gzip.compress(HEADER.encode() + BLANK * 10_000, 9), "it unpacks to more than 200 times"),
        ("bomb.zip", zipped({"a.csv": HEADER.encode() + BLANK * 10_000}), "it unpacks to more than 200 times"),
        ("long line.csv.gz", gzip.compress(HEADER.encode() + b"1" * (10 << 20)), "longer than 65536 characters"),
        ("flipped.zip", _flipped(zipped({"a.csv": f"{HEADER}{T0},{KLINE}\n"}, zipfile.ZIP_STORED), b"open_time"),
         "the zip data is broken"),
        ("flipped.csv.gz", _flipped(gzip.compress(f"{HEADER}{T0},{KLINE}\n".encode(), 0), b"open_time"),
         "the gzip data is broken"),
        ("flipped row.csv.gz", _flipped(gzip.compress(f"{HEADER}{T0},{KLINE}\n".encode(), 0), b"3,0.5"),
         "the gzip data is broken"),
        ("page of an error.csv", "<!DOCTYPE html><html>404</html>", "this is a web page or XML, not records"),
        ("page.json", json.dumps([[T0, "1", "3", "0.5", "2", "10"]]), "this is JSON; write one record on each line"),
        ("hours.csv", HEADER + "".join(f"{T0 + n * 3_600_000},{KLINE}\n" for n in range(20)),
         "its rows are 3600 s apart or more, which is not 1m"),
        ("blank rows.csv", f"{HEADER}{T0},,,,,\n", "none of its rows is a record that was asked for"),
    ],
)  # fmt: skip
def test_an_unusable_file_is_refused_in_one_line_with_the_true_reason(
    tmp_path: Path, name: str, content: str | bytes, complaint: str
) -> None:
    path = written(tmp_path / name, content)
    with pytest.raises(OperatorError) as by_candles:
        list(iter_candles(path, BTC, on_bad_row=lambda _row: None))
    assert complaint in str(by_candles.value)
    assert name in str(by_candles.value)
    assert "\n" not in str(by_candles.value)
    with pytest.raises(OperatorError) as by_import:
        list(given_records(path, {**TICKS, "kind": "candle", "granularity": "1m"}))
    assert complaint in str(by_import.value)


@settings(max_examples=150, deadline=None)
@given(
    at=st.integers(0, 10_000), bit=st.integers(0, 7), how=st.sampled_from(["a.csv.gz", "a.zip", "a.parquet"])
)
def test_a_flipped_bit_of_an_archive_always_ends_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, at: int, bit: int, how: str
) -> None:
    data = bytearray(_packed(how))
    data[at % len(data)] ^= 1 << bit
    path = written(tmp_path_factory.getbasetemp() / how, bytes(data))
    try:
        list(iter_candles(path, BTC, on_bad_row=lambda _row: None))
    except OperatorError as error:
        complaint = str(error)
        assert "\n" not in complaint


_READS_EACH = """
import pathlib, sys
from tests.streams.sources.test_file_dialects import BTC, _packed, iter_candles
from coordinator.streams.log.errors import OperatorError
path = pathlib.Path(sys.argv[1])
for at in range(int(sys.argv[2]), len(_packed("a.parquet")), int(sys.argv[3])):
    data = bytearray(_packed("a.parquet"))
    data[at] ^= 1 << at % 8
    path.write_bytes(data)
    print(at, flush=True)
    try:
        list(iter_candles(path, BTC, on_bad_row=lambda _row: None))
    except OperatorError as error:
        assert "\\n" not in str(error)
"""


def test_no_flipped_bit_of_a_parquet_file_ends_the_process(tmp_path: Path) -> None:
    """It once did, inside pyarrow, for a damaged description of a column. So it runs in a separate process."""
    read = subprocess.run(
        [sys.executable, "-c", _READS_EACH, str(tmp_path / "a.parquet"), "1", "7"],
        capture_output=True, text=True, check=False, timeout=LIMIT_SECONDS, cwd=Path(__file__).parents[3],
    )  # fmt: skip
    assert read.returncode == 0, (read.stdout.splitlines()[-1:], read.stderr[-2000:])


def _packed(how: str) -> bytes:
    rows = [(T0 + n * MINUTE, 100 + n, 103.25 + n, 99.5 + n, 101 + n, n) for n in range(60)]
    if how.endswith(".parquet"):
        names = ("open_time", "open", "high", "low", "close", "volume")
        columns: dict[str, Any] = dict(zip(names, zip(*rows, strict=True), strict=True))
        sink = io.BytesIO()
        pq.write_table(pa.table(columns | {"symbol": ["BTCUSDT"] * 60}), sink)
        return sink.getvalue()
    text = HEADER + "".join(",".join(map(str, row)) + "\n" for row in rows)
    return zipped({"a.csv": text}) if how.endswith(".zip") else gzip.compress(text.encode(), mtime=0)


def test_a_parquet_file_whose_text_is_a_bomb_is_refused(tmp_path: Path) -> None:
    count = 20_000
    table = {name: pa.array(["1"] * count) for name in ("open", "high", "low", "close", "volume")}
    times = pa.array([T0 + n * MINUTE for n in range(count)])
    pq.write_table(
        pa.table(
            table
            | {
                "open_time": times,
                "note": pa.DictionaryArray.from_arrays(pa.array([0] * count), ["x" * 300_000]),
            }
        ),
        tmp_path / "a.parquet",
    )
    with pytest.raises(
        OperatorError, match="column note has a cell of 300,000 characters, which no record has"
    ):
        list(iter_candles(tmp_path / "a.parquet", BTC))


def test_a_flipped_byte_of_a_parquet_file_with_checksums_is_reported(tmp_path: Path) -> None:
    columns: dict[str, Any] = {name: [100.5] * 60 for name in ("open", "high", "low", "close", "volume")}
    columns["open_time"] = [T0 + n * MINUTE for n in range(60)]
    path = tmp_path / "a.parquet"
    pq.write_table(
        pa.table(columns), path, compression="none", use_dictionary=False, write_page_checksum=True
    )
    assert len(both(path)) == 60
    written(path, _flipped(path.read_bytes(), struct.pack("<4d", *[100.5] * 4)))
    with pytest.raises(
        OperatorError, match=r"a\.parquet: cannot be read as Parquet: .*CRC checksum verification failed"
    ):
        both(path)


# --- ticks ----------------------------------------------------------------------------------------------


def ticks(path: Path) -> list[tuple[int, int, dict[str, str]]]:
    return [(record.ts_event, record.revision, record.values) for record in given_records(path, TICKS)]


def test_trades_interleaved_from_two_ends_of_a_month_are_sorted(tmp_path: Path) -> None:
    header = "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker\n"
    rows = [(1, T0), (9, T0 + 10**9), (2, T0 + 28), (10, T0 + 10**9), (3, T0 + 28), (3, T0 + 28)]
    path = written(tmp_path / "a.csv", header + "".join(f"{n},{n}.5,0.1,1,1,{at},true\n" for n, at in rows))
    quantity = {"quantity": "0.1"}
    two = {"quantity": "0.2"}
    assert ticks(path) == [
        (T0, 0, quantity | {"price": "1.5", "trade_id": "1"}),
        (T0 + 28, 1, two | {"price": "3.5", "trade_id": "3"}),
        (T0 + 10**9, 1, two | {"price": "10.5", "trade_id": "10"}),
    ]
    bare = written(tmp_path / "b.csv", "".join(f"{n},{n}.5,0.1,1,1,{at},true\n" for n, at in rows))
    assert ticks(bare) == ticks(path)


def test_both_amounts_of_trades_of_one_millisecond_are_added(tmp_path: Path) -> None:
    path = written(
        tmp_path / "a.csv", f"id,price,qty,quote_qty,time\n1,100,0.5,50,{T0}\n2,101,0.5,50.5,{T0}\n"
    )
    assert ticks(path) == [(T0, 1, {"price": "101", "qty": "1.0", "quote_qty": "100.5", "trade_id": "2"})]


def test_trades_of_one_millisecond_without_ids_are_one_record_of_the_last_price(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", f"timestamp,price\n{T0},1\n{T0},2\n{T0},2\n{T0},3\n")
    assert ticks(path) == [(T0, 2, {"price": "3"})]


def test_tardis_and_kraken_trades_are_read(tmp_path: Path) -> None:
    header = "exchange,symbol,timestamp,local_timestamp,id,side,price,amount\n"
    tardis = written(tmp_path / "a.csv", f"{header}binance,BTCUSDT,{T0}456,{T0}999,7,buy,6412.5,0.01\n")
    assert ticks(tardis) == [(T0, 0, {"price": "6412.5", "trade_id": "7", "amount": "0.01"})]
    kraken = written(tmp_path / "b.csv", f"{T0 // 1000}.25,6412.5,0.01\n")
    assert ticks(kraken) == [(T0 + 250, 0, {"price": "6412.5", "quantity": "0.01"})]
    zero = written(tmp_path / "c.csv", f"{T0 // 1000},0,0.01\n")
    with pytest.raises(OperatorError, match=r"c\.csv, line 1, 2023-03-01T00:00:00Z: price is 0"):
        ticks(zero)
