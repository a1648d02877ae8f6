"""Sources that other packages bring: found by their metadata, loaded, and listed with what they offer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from coordinator.streams.errors import OperatorError
from coordinator.streams.ports import Subscription
from coordinator.streams.sources.registry import known_sources, source_by_name, source_names

PLUGGED = '''
from coordinator.streams.ports import FeedRecord


class CountingSource:
    """Counts seconds."""

    name = "counting"
    about = "a number for each second"
    offers = {"tick": ("1s",)}

    def __init__(self, options, on_garbage):
        self.first = int(options.get("first", "0"))

    async def history(self, subscription, start_ms, end_ms):
        for at in range(-(-start_ms // 1000) * 1000, end_ms + 1, 1000):
            yield FeedRecord(self.name, subscription.subject, "tick", "1s", at, at, {"price": str(self.first + at)})

    async def stream(self, subscriptions):
        return
        yield
'''


def install(folder: Path, package: str, points: str, module: str) -> None:
    """What an installer leaves behind: a module and the metadata of its distribution."""
    (folder / f"{package.replace('-', '_')}.py").write_text(module)
    info = folder / f"{package.replace('-', '_')}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[coordinator.feeds]\n{points}\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


async def test_a_source_of_an_installed_package_is_found_listed_and_run(site: Path) -> None:
    install(site, "counting-feed", "counting = counting_feed:CountingSource", PLUGGED)
    offer = known_sources()["counting"]
    assert (offer.about, offer.offers, offer.origin, offer.error) == (
        "a number for each second", {"tick": ("1s",)}, "counting-feed", ""
    )  # fmt: skip
    source = source_by_name("counting", {"first": "7"})
    subscription = Subscription("counting", "X", "tick", "1s")
    records = [one async for one in source.history(subscription, 500, 3_000)]
    assert [one.values["price"] for one in records] == ["1007", "2007", "3007"]


def test_a_package_that_cannot_be_loaded_is_listed_with_its_reason_and_hides_no_other(site: Path) -> None:
    install(site, "counting-feed2", "counting = counting_feed2:CountingSource", PLUGGED)
    install(site, "broken-feed", "broken = broken_feed:Source", "raise RuntimeError('no licence')")
    install(site, "odd-feed", "odd = odd_feed:Source\nbinance = odd_feed:Source", "Source = 7")
    known = known_sources()
    assert list(known) == sorted(known) == source_names()
    assert "no licence" in known["broken"].error
    assert known["broken"].origin == "broken-feed"
    assert "is no class and no function" in known["odd"].error
    assert "uninstall all but one" in known["binance"].error
    assert known["counting"].error == ""
    with pytest.raises(OperatorError, match="cannot be loaded: no licence"):
        source_by_name("broken")


def test_the_built_in_sources_say_what_they_offer() -> None:
    known = known_sources()
    assert {name: sorted(offer.offers) for name, offer in known.items()} == {
        "binance": ["candle", "depth", "funding", "tick"],
        "candles": ["candle"],
        "file": ["candle", "depth", "funding", "tick"],
        "generated": ["candle"],
        "pyth": ["candle", "tick"],
    }
    assert all(offer.about and offer.origin == "built-in" and not offer.error for offer in known.values())
    assert known["binance"].offers["candle"] == ("1s", "1m", "5m", "15m", "1h", "4h", "8h", "1d")


def test_a_new_process_sees_the_package_too(site: Path) -> None:
    install(site, "counting-feed3", "counting3 = counting_feed3:CountingSource", PLUGGED)
    code = (
        f"import sys; sys.path.insert(0, {str(site)!r})\n"
        "from coordinator.streams.sources.registry import known_sources\n"
        "print(known_sources()['counting3'].origin)"
    )
    ran = subprocess.run(
        [sys.executable, "-Ic", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert ran.stdout.strip() == "counting-feed3"
