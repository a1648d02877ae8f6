"""Files that an operator imports: the subjects of their records, and errors by file and row."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from coordinator.streams.log.errors import OperatorError
from coordinator.streams.sources.files.file_records import given_files, given_records

OPEN = 1_700_000_040_000
BTC = {"source": "binance", "subject": "BTCUSDT", "kind": "candle", "granularity": "1m"}
HEADER = "ts_event,open,high,low,close,volume"


def line(number: int) -> str:
    return f"{OPEN + number * 60_000},1.10,2,1,1.50,3"


def read(path: Path, **defaults: str):
    return list(given_records(path, defaults))


def test_a_csv_of_candles_keeps_its_digits(tmp_path):
    file = tmp_path / "c.csv"
    file.write_text("\n".join([HEADER, line(0), "", line(1)]) + "\n")
    first, second = read(file, **BTC)
    assert (first.ts_event, first.at, first.values["open"]) == (OPEN, OPEN + 60_000, "1.10")
    assert second.subject == "BTCUSDT"


def test_a_compressed_file_and_json_lines_are_read_alike(tmp_path):
    packed, lines = tmp_path / "c.csv.gz", tmp_path / "c.jsonl"
    packed.write_bytes(gzip.compress("\n".join([HEADER, line(0)]).encode()))
    values = {"open": "1.10", "high": "2", "low": "1", "close": "1.50", "volume": "3"}
    lines.write_text(json.dumps({"ts_event": OPEN, **BTC, "values": values}) + "\n")
    assert read(packed, **BTC) == read(lines)


def test_folders_tell_the_subject_of_records_and_columns_take_precedence(tmp_path):
    folder = (
        tmp_path / "source=pyth" / "subject=BTC%2FUSD" / "kind=tick" / "granularity=1s" / "date=2023-11-14"
    )
    folder.mkdir(parents=True)
    (folder / "b.csv").write_text("ts_event,price\n1700000040123,37000.10\n")
    (folder / "a.csv").write_text("ts_event,subject,price\n1700000040123,ETH/USD,2000.5\n")
    files = given_files(tmp_path)
    assert [file.name for file in files] == ["a.csv", "b.csv"]
    assert [record.subject for file in files for record in read(file)] == ["ETH/USD", "BTC/USD"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            f"{HEADER}\n{line(0)}\n{OPEN + 1},1,2,1,1,3",
            "c.csv, line 3, 2023-11-14T22:14:00.001Z: a 1m candle that opens at",
        ),
        (f"{HEADER}\n{line(0).replace('1.10', 'NaN')}", "c.csv, line 2, .*: open is 'NaN'"),
        (f"{HEADER}\n1,2", "c.csv, line 2: it has 2 columns, the header has 6"),
        ("open,close\n1,2", "c.csv, line 1: no column for a time"),
    ],
)
def test_a_row_that_cannot_be_a_fact_is_named(tmp_path, text, complaint):
    (tmp_path / "c.csv").write_text(text)
    with pytest.raises(OperatorError, match=complaint):
        read(tmp_path / "c.csv", **BTC)


def test_missing_information_is_requested_from_the_operator(tmp_path):
    (tmp_path / "c.csv").write_text("\n".join([HEADER, line(0)]))
    with pytest.raises(OperatorError, match="does not name its kind, granularity: give --kind --granularity"):
        read(tmp_path / "c.csv", source="binance", subject="BTCUSDT")


@pytest.mark.parametrize(("name", "complaint"), [("none.csv", "no such file"), ("empty", "no file in it")])
def test_a_file_without_records_is_reported(tmp_path, name, complaint):
    (tmp_path / "x.txt").write_text("")
    (tmp_path / "empty").mkdir()
    with pytest.raises(OperatorError, match=complaint):
        given_files(tmp_path / name)


def test_a_file_named_by_hand_is_read_whatever_its_name(tmp_path):
    (tmp_path / "candles.txt").write_text(f"{HEADER}\n{line(0)}\n")
    assert [len(read(file, **BTC)) for file in given_files(tmp_path / "candles.txt")] == [1]


def test_a_broken_archive_is_reported(tmp_path):
    (tmp_path / "c.csv.gz").write_bytes(gzip.compress(f"{HEADER}\n{line(0)}\n".encode() * 99)[:60])
    with pytest.raises(OperatorError, match=r"c\.csv\.gz, line .*: the gzip data ends in the middle"):
        read(tmp_path / "c.csv.gz", **BTC)
