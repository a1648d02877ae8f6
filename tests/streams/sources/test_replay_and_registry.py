"""The order of a replay, and sources by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.streams.feeds.order import merge_by_time
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.ports import FeedRecord
from coordinator.streams.sources import catalog as registry
from coordinator.streams.sources.binance.source import BinanceSource
from coordinator.streams.sources.catalog import source_by_name, source_names


def record(subject: str, at: int) -> FeedRecord:
    return FeedRecord("candles", subject, "candle", "1m", at - 60, at, {"close": "1"})


@given(
    histories=st.dictionaries(st.sampled_from("ABCDE"), st.lists(st.integers(0, 30), unique=True)),
    seed=st.integers(),
)
def test_a_replay_orders_all_subjects_by_time_whatever_order_they_are_named_in(
    histories: dict[str, list[int]], seed: int
) -> None:
    recorded = [[record(subject, at) for at in sorted(times)] for subject, times in histories.items()]
    groups = list(merge_by_time(recorded))
    Random(seed).shuffle(recorded)

    assert list(merge_by_time(recorded)) == groups
    assert [at for at, _ in groups] == sorted({at for times in histories.values() for at in times})
    for at, group in groups:
        assert [record.subject for record in group] == sorted(
            s for s, times in histories.items() if at in times
        )
        assert all(record.at == at for record in group)


def test_a_replay_reads_no_further_than_it_must() -> None:
    read: list[int] = []

    def history(subject: str) -> Iterator[FeedRecord]:
        for at in range(1, 1000):
            read.append(at)
            yield record(subject, at)

    groups = merge_by_time([history("A"), history("B")])
    assert [next(groups)[0] for _ in range(3)] == [1, 2, 3]
    assert max(read) <= 5


def test_a_history_that_goes_back_in_time_is_our_own_bug() -> None:
    with pytest.raises(ValueError, match="candles A goes back in time, 2 to 1"):
        list(merge_by_time([[record("A", 2), record("A", 1)]]))


def test_the_built_in_sources_are_known_by_name(tmp_path: Path) -> None:
    assert source_names() == ["binance", "candles", "file", "generated", "pyth", "questions"]
    options: dict[str, Mapping[str, str]] = {
        "candles": {"path": str(tmp_path)},
        "file": {"path": "ticks.jsonl"},
        "generated": {"seed": "7"},
        "questions": {"path": "posts.jsonl"},
    }
    assert [source_by_name(name, options.get(name)).name for name in source_names()] == source_names()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "kraken",
            {},
            "feed source 'kraken' is unknown; choose from binance, candles, file, generated, pyth",
        ),
        ("candles", {}, "feed source 'candles' needs the option path"),
        ("candles", {"file": "x"}, "feed source 'candles' has no option file; it has path"),
        ("generated", {"seed": "abc"}, "seed is 'abc'; give a whole number"),
        ("binance", {"api_key": "x"}, "has no option api_key; it has rest_url, websocket_url"),
        (
            "binance",
            {"rest_url": "example"},
            "FEED_OPT_REST_URL must be an http or https URL: it does not begin with http:// or https://",
        ),
        (
            "binance",
            {"websocket_url": "http://a"},
            "FEED_OPT_WEBSOCKET_URL must be a ws or wss URL: it does not begin with ws:// or wss://",
        ),
    ],
)
def test_a_wrong_name_or_option_is_refused_with_what_to_change(
    name: str, options: dict[str, str], message: str
) -> None:
    with pytest.raises(OperatorError) as error:
        source_by_name(name, options)
    assert message in str(error.value)


class PluggedSource(BinanceSource):
    name = "plugged"

    def __init__(self, options: Mapping[str, str], _on_garbage: object) -> None:
        super().__init__()
        self.options = options


def test_a_package_brings_a_source_by_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [EntryPoint("plugged", f"{__name__}:PluggedSource", registry.ENTRY_POINT_GROUP)]
    points += [
        EntryPoint(name, "no_such_package:Source", registry.ENTRY_POINT_GROUP) for name in ("lost", "binance")
    ]

    def entry_points(group: str, name: str | None = None) -> list[EntryPoint]:
        return [point for point in points if point.group == group and name in (None, point.name)]

    monkeypatch.setattr(registry, "entry_points", entry_points)
    monkeypatch.setattr(
        EntryPoint, "load", lambda point: PluggedSource if point.name == "plugged" else _lost()
    )

    assert "plugged" in source_names()
    plugged = source_by_name("plugged", {"a": "b"})
    assert isinstance(plugged, PluggedSource)
    assert plugged.options == {"a": "b"}
    with pytest.raises(
        OperatorError, match=r"feed source 'lost' \(no_such_package:Source\) cannot be loaded"
    ):
        source_by_name("lost")
    with pytest.raises(OperatorError, match="feed source 'binance' comes from coordinator, no_such_package"):
        source_by_name("binance")


def _lost() -> None:
    raise ModuleNotFoundError("No module named 'no_such_package'")
