"""Sources from other packages: found by their metadata, loaded, and listed with what they offer."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from types import SimpleNamespace

import pytest
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse
from tests.streams.sources.servers import rest_server
from tests.waiting import LIMIT_SECONDS, limit

from coordinator.streams.log.errors import OperatorError
from coordinator.streams.ports import Subscription
from coordinator.streams.settings import read_settings
from coordinator.streams.sources.catalog import known_sources, source_by_name, source_names

ROOT = Path(__file__).resolve().parents[3]

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
    """What an installer creates: a module and the metadata of its distribution."""
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
    records = [record async for record in source.history(subscription, 500, 3_000)]
    assert [record.values["price"] for record in records] == ["1007", "2007", "3007"]


def test_a_package_that_cannot_be_loaded_is_listed_with_its_reason_and_hides_no_other(site: Path) -> None:
    install(site, "counting-feed2", "counting = counting_feed2:CountingSource", PLUGGED)
    install(site, "broken-feed", "broken = broken_feed:Source", "raise RuntimeError('no licence')")
    install(site, "odd-feed", "odd = odd_feed:Source\nbinance = odd_feed:Source", "Source = 7")
    offers = known_sources()
    assert list(offers) == sorted(offers) == source_names()
    assert "no licence" in offers["broken"].error
    assert offers["broken"].origin == "broken-feed"
    assert "is neither a class nor a function" in offers["odd"].error
    assert "uninstall all but one" in offers["binance"].error
    assert offers["counting"].error == ""
    with pytest.raises(OperatorError, match="cannot be loaded: no licence"):
        source_by_name("broken")


def test_the_built_in_sources_list_what_they_offer() -> None:
    offers = known_sources()
    assert {name: sorted(offer.offers) for name, offer in offers.items()} == {
        "binance": ["candle", "depth", "funding", "tick"],
        "candles": ["candle"],
        "file": ["candle", "depth", "funding", "tick"],
        "generated": ["candle"],
        "pyth": ["candle", "tick"],
        "questions": ["question"],
    }
    assert all(offer.about and offer.origin == "built-in" and not offer.error for offer in offers.values())
    assert offers["binance"].offers["candle"] == ("1s", "1m", "5m", "15m", "1h", "4h", "8h", "1d")


async def test_the_source_in_the_documentation_works_as_printed(site: Path) -> None:
    section = (ROOT / "CONTRIBUTING.md").read_text().partition("## A feed source")[2].partition("\n## ")[0]
    code = section.partition("```python\n")[2].partition("```")[0]
    assert len([line for line in code.partition("class ")[2].splitlines() if line.strip()]) <= 30
    install(site, "my-feeds", "ticker = my_feeds:TickerSource", code)
    answers = ["oops", "1700000000123 37000.10", "1700000000999 37000.20"]
    app = FastAPI()

    @app.get("/")
    def price(subject: str) -> PlainTextResponse:
        assert subject == "BTC"
        return PlainTextResponse(answers.pop(0) if len(answers) > 1 else answers[0])

    garbage: list[str] = []
    async with rest_server(app) as url:
        source = source_by_name("ticker", {"url": url}, lambda _reason, text: garbage.append(text))
        stream = source.stream([Subscription("ticker", "BTC", "tick", "1s")])
        assert isinstance(stream, AsyncGenerator)
        async with limit(), aclosing(stream):
            record = await anext(stream)
    assert (record.at, record.values) == (1_700_000_000_123, {"price": "37000.10"})
    assert garbage == ["oops"]
    assert known_sources()["ticker"].about.startswith("one price from a URL")


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        (
            {"FEED_SOURCE": "binance", "FEED_OPT_REST_URL": "ftp://a"},
            "FEED_OPT_REST_URL must be an http or https URL",
        ),
        ({"FEED_SOURCE": "pyth", "PYTH_HERMES_URL": "nowhere"}, "PYTH_HERMES_URL must be a URL"),
        ({"FEED_SOURCE": "binance", "FEED_OPT_SPEED": "9"}, "feed source 'binance' has no option speed"),
        ({"FEED_SOURCE": "file"}, "needs the option path: set FEED_OPT_PATH=FILE.jsonl"),
    ],
)
def test_the_feed_worker_creates_its_source_with_the_options_of_its_environment(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], message: str
) -> None:
    from coordinator.streams.agents import workers as run

    for name, text in environ.items():
        monkeypatch.setenv(name, text)
    with pytest.raises(OperatorError) as error:
        run._source(read_settings(os.environ), SimpleNamespace(from_source=print))  # type: ignore[arg-type]
    assert message in str(error.value)


def test_a_new_process_finds_the_package_too(site: Path) -> None:
    install(site, "counting-feed3", "counting3 = counting_feed3:CountingSource", PLUGGED)
    code = (
        f"import sys; sys.path.insert(0, {str(site)!r})\n"
        "from coordinator.streams.sources.catalog import known_sources\n"
        "print(known_sources()['counting3'].origin)"
    )
    ran = subprocess.run(
        [sys.executable, "-Ic", code], capture_output=True, text=True, check=True, timeout=LIMIT_SECONDS
    )
    assert ran.stdout.strip() == "counting-feed3"
