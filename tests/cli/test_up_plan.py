"""What `up` decides before it starts anything."""

from __future__ import annotations

import socket

import pytest

from coordinator.cli.shared import DEMO_CONTRACT, NodeFile, node_settings, write_node_file
from coordinator.cli.up_plan import UpOptions, example_models, make_plan
from coordinator.infra.models.host.model_folder import read_models
from coordinator.streams.log.errors import OperatorError


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch, tmp_path):
    names = "KAFKA_BOOTSTRAP DATA_DIR CRUNCH_ID API_PORT CONTRACT FEED_SOURCE FEED_SUBJECTS FEED_KIND FEED_GRANULARITY CHECKPOINT_INTERVAL_SECONDS SETTLE_REHEARSALS"
    for name in names.split():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def left_by(folder, **fields):
    defaults = {
        "bootstrap": "127.0.0.1:2",
        "api": "http://127.0.0.1:3",
        "crunch_id": "btc-up",
        "feed_source": "binance",
    }
    write_node_file(folder, NodeFile(**(defaults | fields)))


def test_the_defaults_are_those_of_a_demonstration(tmp_path):
    plan = make_plan(UpOptions(data_dir=tmp_path))
    assert plan.embedded
    assert plan.choose_feed
    assert plan.settings.checkpoint_interval_seconds == 21_600
    assert plan.settings.settle_rehearsals
    assert plan.settings.contract == DEMO_CONTRACT
    assert plan.settings.replay_models_min == len(read_models(example_models())) >= 5


def test_the_environment_wins_over_the_demonstrations_defaults(tmp_path, monkeypatch):
    monkeypatch.setenv("CHECKPOINT_INTERVAL_SECONDS", "604800")
    monkeypatch.setenv("SETTLE_REHEARSALS", "false")
    monkeypatch.setenv("CONTRACT", "mine:Contract")
    plan = make_plan(UpOptions(data_dir=tmp_path))
    assert plan.settings.checkpoint_interval_seconds == 604_800
    assert not plan.settings.settle_rehearsals
    assert plan.settings.contract == "mine:Contract"
    assert (
        make_plan(UpOptions(data_dir=tmp_path, contract="other:Contract")).settings.contract
        == "other:Contract"
    )


def test_what_is_taken_from_a_feed_is_named_in_options_or_in_the_environment(tmp_path, monkeypatch):
    plan = make_plan(
        UpOptions(
            data_dir=tmp_path, feed="binance", subjects=("BTCUSDT", "ETHUSDT"), kind="tick", granularity="1s"
        )
    )
    asked = plan.settings
    assert (asked.feed_source, asked.feed_subjects) == ("binance", ("BTCUSDT", "ETHUSDT"))
    assert (asked.feed_kind, asked.feed_granularity, asked.replay_days) == ("tick", "1s", 0.0)
    monkeypatch.setenv("FEED_SOURCE", "pyth")
    monkeypatch.setenv("FEED_SUBJECTS", "BTC/USD")
    streamed = make_plan(UpOptions(data_dir=tmp_path)).settings
    assert (streamed.feed_subjects, streamed.feed_kind, streamed.replay_days) == (("BTC/USD",), "tick", 0.0)
    assert make_plan(UpOptions(data_dir=tmp_path, kind="candle")).settings.replay_days == 3.0


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"kind": "news"}, "binance delivers no news; it has candle"),
        ({"kind": "candle", "granularity": "5s"}, "binance delivers no candle of 5s; it has 1s"),
    ],
)
def test_what_a_source_does_not_deliver_is_refused_before_anything_is_started(tmp_path, options, complaint):
    with pytest.raises(OperatorError, match=complaint):
        make_plan(UpOptions(data_dir=tmp_path, feed="binance", **options))


HEADER = "open_time,open,high,low,close,volume\n"
T0 = 1_677_628_800_000


def candles(path, rows=3):
    path.write_text(HEADER + "".join(f"{T0 + n * 60_000},1,3,0.5,2,10\n" for n in range(rows)))
    return path


def test_a_file_of_candles_is_the_feed_and_was_looked_through(tmp_path):
    file = candles(tmp_path / "x.csv")
    with file.open("a") as more:
        more.write(f"{T0 + 180_000},1,3,0.5,9,10\n{T0 + 240_000},100,300,50,200,10\n")
    plan = make_plan(
        UpOptions(data_dir=tmp_path, candles=file, replay_from_ms=T0, replay_until_ms=T0 + 90_000)
    )
    assert not plan.choose_feed
    assert plan.settings.feed_source == "candles"
    assert plan.settings.feed_candles_file == str(file)
    assert (plan.settings.replay_from_ms, plan.settings.replay_until_ms) == (T0, T0 + 90_000)
    assert plan.remarks[-3:] == [
        "x.csv: BTCUSDT 1m, 4 records, 1 rows refused; 2023-03-01 00:01:00Z to 2023-03-01 00:05:00Z",
        "  refused: x.csv, line 5, 2023-03-01T00:03:00Z: close 9 is above high 3",
        "  is this price right? BTCUSDT 2023-03-01T00:04:00Z: close 200 after 2",
    ]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"candles": "none.csv"}, "none.csv: there is no such file"),
        ({"candles": "x.csv", "granularity": "1h"}, "off its grid"),
        ({"candles": "x.csv", "subjects": ("BTCUSDT", "ETHUSDT")}, "cannot be used for BTCUSDT and ETHUSDT"),
        (
            {"candles": "{subject}.csv", "subjects": ("BTCUSDT", "ETHUSDT")},
            "ETHUSDT.csv: there is no such file",
        ),
        ({"candles": "x.csv", "replay_from_ms": T0 + 10**9}, "--from is after the last candle"),
        ({"candles": "x.csv", "replay_until_ms": T0 - 1}, "--until is before the first candle"),
        ({"candles": "x.csv", "columns": "when"}, "is not NAME=COLUMN"),
        (
            {"candles": "x.csv", "stamp": "middle"},
            "FEED_STAMP='middle' is unknown: choose 'open' or 'close'. What the times in that file mean",
        ),
    ],
)
def test_a_file_of_candles_that_cannot_be_used_is_refused_before_anything_is_started(
    tmp_path, options, complaint
):
    candles(tmp_path / "x.csv", 30)
    candles(tmp_path / "BTCUSDT.csv")
    options = options | {"candles": tmp_path / options["candles"]}
    with pytest.raises(OperatorError, match=complaint):
        make_plan(UpOptions(data_dir=tmp_path, **options))


def test_a_file_for_each_subject_gives_each_its_own(tmp_path):
    candles(tmp_path / "BTCUSDT.csv")
    candles(tmp_path / "ETHUSDT.csv", 5)
    plan = make_plan(
        UpOptions(data_dir=tmp_path, candles=tmp_path / "{subject}.csv", subjects=("BTCUSDT", "ETHUSDT"))
    )
    assert [line.split(";")[0] for line in plan.remarks[-2:]] == [
        "BTCUSDT.csv: BTCUSDT 1m, 3 records",
        "ETHUSDT.csv: ETHUSDT 1m, 5 records",
    ]


def test_a_command_looks_at_the_feed_that_the_node_runs_with(tmp_path, monkeypatch):
    feed = {
        "FEED_SOURCE": "generated",
        "FEED_SUBJECTS": "ETHUSDT",
        "FEED_GRANULARITY": "5m",
        "FEED_CANDLES_FILE": "",
    }
    left_by(tmp_path, feed=feed)
    monkeypatch.setenv("FEED_SOURCE", "binance")
    settings, _ = node_settings(tmp_path)
    assert (settings.feed_source, settings.feed_subjects, settings.feed_granularity) == (
        "generated",
        ("ETHUSDT",),
        "5m",
    )


@pytest.mark.parametrize(
    ("before", "feed", "source", "choose"),
    [
        (None, None, None, True),
        (None, "generated", "generated", False),
        ({"feed_source": "generated", "feed_chosen": True}, None, "generated", False),
        ({"feed_source": "binance", "feed_chosen": True}, None, "binance", False),
        ({"feed_source": "generated", "feed_chosen": True}, "binance", "binance", False),
        ({"feed_source": "candles", "feed_chosen": False}, None, None, True),
    ],
)
def test_a_log_that_began_with_one_market_goes_on_with_it(tmp_path, before, feed, source, choose):
    if before is not None:
        left_by(tmp_path, **before)
    plan = make_plan(UpOptions(data_dir=tmp_path, feed=feed))
    assert plan.choose_feed is choose
    if source is not None:
        assert plan.settings.feed_source == source


def test_a_taken_default_port_gives_way_and_says_so(tmp_path, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setenv("MODEL_RUNNER_NODE_PORT", str(port))
        plan = make_plan(UpOptions(data_dir=tmp_path))
        assert plan.settings.model_runner_node_port != port
        assert any(f"port {port} is taken" in remark for remark in plan.remarks)
        with pytest.raises(OperatorError, match=f"port {port} on"):
            make_plan(UpOptions(data_dir=tmp_path, api_port=port))


def test_a_foreign_kafka_is_used_and_none_started(tmp_path):
    plan = make_plan(UpOptions(data_dir=tmp_path, kafka="kafka-1:9092"))
    assert not plan.embedded
    assert plan.settings.kafka_bootstrap == "kafka-1:9092"


@pytest.mark.parametrize(
    ("by_hand", "kafka", "variable", "expected"),
    [
        (True, None, None, ("127.0.0.1:2", "eth-up")),
        (True, None, "kafka-9:9", ("127.0.0.1:2", "eth-up")),
        (True, "kafka-1:9092", None, ("kafka-1:9092", "btc-up")),
        (False, None, None, ("127.0.0.1:2", "eth-up")),
        (False, None, "kafka-9:9", ("kafka-9:9", "btc-up")),
        (False, "kafka-1:9092", "kafka-9:9", ("kafka-1:9092", "btc-up")),
    ],
)
def test_where_a_command_finds_kafka(tmp_path, monkeypatch, by_hand, kafka, variable, expected):
    folder = tmp_path / "coordinator-data"
    folder.mkdir()
    left_by(folder, crunch_id="eth-up")
    if variable is not None:
        monkeypatch.setenv("KAFKA_BOOTSTRAP", variable)
    settings, _ = node_settings(folder if by_hand else None, kafka)
    assert (settings.kafka_bootstrap, settings.crunch_id) == expected


def test_a_kafka_that_the_environment_names_is_used_and_said(tmp_path, monkeypatch):
    monkeypatch.setenv("KAFKA_BOOTSTRAP", "127.0.0.1:9")
    plan = make_plan(UpOptions(data_dir=tmp_path))
    assert not plan.embedded
    assert plan.settings.kafka_bootstrap == "127.0.0.1:9"
    assert "Kafka: 127.0.0.1:9, which runs already" in plan.remarks
    assert (
        make_plan(UpOptions(data_dir=tmp_path, kafka="127.0.0.1:8")).settings.kafka_bootstrap == "127.0.0.1:8"
    )


def test_a_kind_that_is_nobodys_is_refused_though_the_source_is_still_to_be_chosen(tmp_path, monkeypatch):
    monkeypatch.setenv("FEED_KIND", "kline")
    with pytest.raises(OperatorError, match="binance delivers no kline; it has candle"):
        make_plan(UpOptions(data_dir=tmp_path))
