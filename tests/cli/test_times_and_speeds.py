"""Times and speeds as people write them."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from coordinator.cli.main import app
from coordinator.cli.shared import parse_speed, parse_time, time_text
from coordinator.streams.log.errors import OperatorError

MARCH_10 = 1_678_406_400_000


@pytest.mark.parametrize(
    ("text", "time_ms"),
    [
        ("0", 0),
        ("1678406400000", MARCH_10),
        (" 1678406400000 ", MARCH_10),
        ("2023-03-10T00:00:00Z", MARCH_10),
        ("2023-03-10 00:00:00Z", MARCH_10),
        ("2023-03-10T00:00Z", MARCH_10),
        ("2023-03-10t00:00:00z", MARCH_10),
        ("2023-03-10 00:00:00 UTC", MARCH_10),
        ("2023-03-10T01:00:00+01:00", MARCH_10),
        ("2023-03-09T18:30:00-05:30", MARCH_10),
        ("2023-03-10T00:00:00.250Z", MARCH_10 + 250),
        ("2023-03-10T00:00:00.0019Z", MARCH_10 + 1),
        ("1970-01-01T00:00:00Z", 0),
    ],
)
def test_a_time_is_iso_8601_with_a_zone_or_epoch_ms(text, time_ms):
    assert parse_time(text) == time_ms


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("2023-03-10T00:00:00", "has no zone"),
        ("2023-03-10", "write 2023-03-10T00:00:00Z for midnight UTC"),
        ("2023-03-10Z", "write 2023-03-10T00:00:00Z for midnight UTC"),
        ("yesterday", "is not a time"),
        ("", "is not a time"),
        ("-5", "is not a time"),
        ("2023-13-01T00:00:00Z", "is not a time"),
        ("1969-12-31T23:59:59Z", "before 1970"),
        ("\N{ARABIC-INDIC DIGIT ONE}", "is not a time"),
    ],
)
def test_what_is_no_time_is_refused_with_an_example(text, complaint):
    with pytest.raises(OperatorError, match=complaint):
        parse_time(text)


@pytest.mark.parametrize(
    ("text", "speed"), [("max", 0.0), ("MAX", 0.0), ("60", 60.0), ("0.5", 0.5), ("1e3", 1000.0)]
)
def test_a_speed_is_max_or_a_positive_number(text, speed):
    assert parse_speed(text) == speed


@pytest.mark.parametrize("text", ["0", "-1", "fast", "nan", "inf", ""])
def test_what_is_no_speed_is_refused(text):
    with pytest.raises(OperatorError, match="--speed"):
        parse_speed(text)


@pytest.mark.parametrize(
    ("time_ms", "text"),
    [(None, "-"), (-1, "-"), (0, "1970-01-01 00:00:00Z"), (MARCH_10, "2023-03-10 00:00:00Z")],
)
def test_a_time_is_shown_in_utc(time_ms, text):
    assert time_text(time_ms) == text


@pytest.mark.parametrize(
    "command",
    [
        ("feeds", "backfill", "generated", "BTCUSDT", "candle", "1m", "--from", "1677628800"),
        ("feeds", "export", "generated", "BTCUSDT", "candle", "1m", "--from", "1677628800", "--out", "x"),
        ("replay", "--until", "1677628800"),
    ],
)
def test_a_time_that_is_none_is_told_before_any_kafka_is_asked(command):
    result = CliRunner().invoke(app, [*command, "--kafka", "127.0.0.1:9"])
    assert result.exit_code == 2
    assert "times are in milliseconds, 1677628800000?" in result.output


@pytest.mark.parametrize("address", ["127.0.0.1:8000", "nonsense", "ftp://node", "http://"])
@pytest.mark.parametrize("command", [("verify-e2e", "--api"), ("witness", "--once", "--folder", "wit")])
def test_what_is_no_address_of_a_node_is_refused_before_anything_is_asked(
    command, address, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, [*command, address])
    assert done.exit_code == 2, done.output
    assert f"{address!r} is not an address of a node: write http://HOST:PORT" in done.stderr
    assert list(tmp_path.iterdir()) == []
