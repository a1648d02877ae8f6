"""Data that a source fails to deliver while it reports that it is connected."""

from __future__ import annotations

from coordinator.streams.feeds.listening import Listening
from coordinator.streams.ports import FeedRecord, SourceHealth, Subscription

BTC = Subscription("binance", "BTCUSDT", "funding", "1s")
ETH = Subscription("binance", "ETHUSDT", "funding", "1s")
HOURS = Subscription("binance", "BTCUSDT", "candle", "1h")
CONNECTED = SourceHealth(state="connected", connections=1)


def record(subscription: Subscription) -> FeedRecord:
    return FeedRecord(
        subscription.source,
        subscription.subject,
        subscription.kind,
        subscription.granularity,
        1,
        1,
        {"mark_price": "1"},
    )


def test_a_subscription_that_is_acknowledged_but_never_delivers_is_named_beside_one_that_does():
    listening = Listening([BTC, ETH], 300, 0)
    for now in range(0, 299, 10):
        listening.heard([record(BTC)])
        assert listening.state(CONNECTED, now) == ("connected", "")
    assert listening.state(CONNECTED, 299) == ("connected", "")
    quiet = ("degraded", "nothing has come of ETHUSDT funding 1s for over 300 s")
    listening.heard([record(BTC)])
    assert listening.state(CONNECTED, 300) == quiet
    assert listening.state(CONNECTED, 590) == quiet  # the same text while it lasts
    listening.heard([record(ETH)])
    assert listening.state(CONNECTED, 591) == ("connected", "")
    assert listening.state(CONNECTED, 10_000) == (
        "degraded",
        "nothing has come of BTCUSDT funding 1s, ETHUSDT funding 1s for over 300 s",
    )


def test_the_limit_is_three_candles_if_these_are_longer():
    listening = Listening([HOURS], 300, 0)
    assert listening.state(CONNECTED, 10_799) == ("connected", "")
    assert listening.state(CONNECTED, 10_800) == (
        "degraded", "nothing has come of BTCUSDT candle 1h for over 10800 s"
    )  # fmt: skip
    assert Listening([Subscription("own", "x", "tick", "blocks")], 5, 0).state(None, 5) == (
        "degraded", "nothing has come of x tick blocks for over 5 s"
    )  # fmt: skip


def test_a_source_of_questions_may_be_silent_as_long_as_nobody_asks():
    posts = Subscription("questions", "questions", "question", "1s")
    year = 365 * 86_400
    assert Listening([posts], 300, 0).state(CONNECTED, year) == ("connected", "")
    assert Listening([posts], 300, 0).state(None, year) is None


def test_a_socket_that_reconnects_without_a_record_is_degraded_and_one_that_is_away_is_reconnecting():
    listening = Listening([BTC], 60, 0)
    away = SourceHealth(state="reconnecting", reason="silent for 40 s", connections=3)
    assert listening.state(away, 3_600) == ("reconnecting", "silent for 40 s")
    assert listening.state(CONNECTED, 3_640) == ("connected", "")
    assert listening.state(away, 3_641) == ("reconnecting", "silent for 40 s")
    quiet = "nothing has come of BTCUSDT funding 1s for over 60 s"
    assert listening.state(CONNECTED, 3_670) == ("degraded", quiet)
    assert listening.state(away, 3_671) == ("degraded", f"{quiet}; silent for 40 s")
    listening.heard([record(BTC)])
    assert listening.state(CONNECTED, 3_672) == ("connected", "")


def test_a_withdrawn_subject_and_a_refused_history_are_reported_and_a_refusal_is_reported_alone():
    listening = Listening([BTC, ETH], 60, 0)
    health = SourceHealth(state="connected", gone={"ETHUSDT": "ETHUSDT is gone"}, unknown={"X": "no X"})
    listening.heard([record(BTC)])
    assert listening.state(health, 10) == ("degraded", "ETHUSDT is gone; no X")
    listening = Listening([BTC, ETH], 60, 0)
    listening.history_trouble = "status 451: not here"
    assert listening.state(CONNECTED, 1) == ("degraded", "status 451: not here")
    refused = SourceHealth(state="refused", reason="status 451: not from here (code 0)")
    assert listening.state(refused, 1_000) == ("refused", "status 451: not from here (code 0)")
    assert Listening([BTC], 60, 0).state(None, 1) is None
