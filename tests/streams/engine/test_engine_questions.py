"""A whole node in one process with a market and posted questions, driven by commands; a post and the feed resolve
questions.
"""

from __future__ import annotations

from typing import Any

from tests.streams.build import HASH, MINUTE, SUBJECT, T0, shelf
from tests.streams.questions import post, question, resolve

from coordinator.streams import events as ev
from coordinator.streams.contract import CrunchContract, Questions, ScheduledPrediction
from coordinator.streams.contract.terms import make_terms
from coordinator.streams.engine.engine import Engine
from coordinator.streams.engine.models import Functions
from coordinator.streams.ports import Subscription
from coordinator.streams.settings import Settings

SETTINGS = Settings(feed_source="generated", feed_subjects=(SUBJECT,))
CANDLES = Subscription("generated", SUBJECT, "candle", "1m")


def played(contract: CrunchContract) -> Engine:
    """Half an hour of candles. One question is resolved by the feed, one by a posted truth that is corrected."""
    engine = Engine(shelf(contract), Functions({"up": lambda _data, _call: {"value": 0.5}}))
    engine.configure(make_terms(contract, HASH, SETTINGS, 0))
    for minute in range(31):
        at = T0 + minute * MINUTE
        price = f"{100 + minute}"
        values = dict.fromkeys(("open", "high", "low", "close"), price) | {"volume": "1"}
        engine.feed(at, [CANDLES.record(at - MINUTE, at, values)])
        if minute == 1:
            times = {"opens_at": at + 30_000, "closes_at": at + 5 * MINUTE}
            by_feed = {"resolves_by": SUBJECT, "resolves_at": at + 10 * MINUTE}
            engine.command(post(question("posted", **times), question("fed", **times, **by_feed), at=at))
        truth = {"entry_price": 1, "resolved_price": 2, "return": 1.0, "direction_up": True}
        if minute == 12:
            engine.command(resolve({"posted": truth}, at=at))
        if minute == 14:
            engine.command(resolve({"posted": truth | {"return": -1.0, "direction_up": False}}, at=at))
    return engine


def events(engine: Engine, topic: str, kind: type[Any]) -> list[Any]:
    return [event for event in engine.log.events(topic) if isinstance(event, kind)]


def test_questions_are_asked_and_resolved_beside_a_market() -> None:
    contract = CrunchContract(
        questions=Questions(ask_missing_seconds=0),
        scheduled_predictions=[ScheduledPrediction(scope_key="1m")],
    )
    engine = played(contract)
    asked = [event for event in events(engine, "inputs", ev.InputReceived) if event.data.question]
    assert {(event.data.input_id, event.at) for event in asked} == {
        (f"inp/questions/r1/{name}", T0 + MINUTE + 30_000) for name in ("posted", "fed")
    }, "between two candles, when they open"
    resolved = [
        (
            event.data.input_id.rpartition("/")[2],
            event.data.revision,
            event.data.resolvable_at,
            event.data.truth["return"],
        )
        for event in events(engine, "inputs", ev.InputResolved)
        if event.data.input_id.startswith("inp/questions/")
    ]
    assert [line[:3] for line in resolved] == [
        ("fed", 0, T0 + 11 * MINUTE),
        ("posted", 0, T0 + 12 * MINUTE),
        ("posted", 1, T0 + 14 * MINUTE),
    ]
    assert resolved[0][3] == (111 - 101) / 101
    scored = [
        event.data
        for event in events(engine, "scores", ev.RoundScored)
        if "/questions/" in event.data.input_id
    ]
    assert [data.input_id.rpartition("/")[2] for data in scored] == ["fed", "posted"]
    (again,) = events(engine, "scores", ev.RoundRescored)
    assert (again.data.input_id, again.data.revision) == ("inp/questions/r1/posted", 1)
    assert len(events(engine, "scores", ev.RoundScored)) > 20, "and the market's rounds"


def test_without_the_table_of_a_question_no_model_is_asked() -> None:
    contract = CrunchContract(questions=Questions(ask_missing_seconds=0))
    engine = Engine(shelf(contract), Functions({"up": lambda _data, _call: {"value": 0.5}}))
    engine.configure(make_terms(contract, HASH, SETTINGS, 0))
    values = dict.fromkeys(("open", "high", "low", "close"), "100") | {"volume": "1"}
    blob = ev.Blob(sha256="ab" * 32, bytes=1, media_type="x/y")
    for minute in range(3):
        at = T0 + minute * MINUTE
        engine.feed(at, [CANDLES.record(at - MINUTE, at, values)])
        if minute == 1:
            times = {"opens_at": at + 30_000, "closes_at": at + 5 * MINUTE}
            engine.command(post(question("table", blob=blob, **times), question("plain", **times), at=at))
    entries = {
        opened.data.input_id.rpartition("/")[2]: entry
        for opened, answered in zip(
            events(engine, "predictions", ev.RoundOpened),
            events(engine, "predictions", ev.ScopeAnswered),
            strict=True,
        )
        for entry in answered.data.entries(opened.data.roster)
    }
    assert entries["plain"].status == "PENDING"
    assert (entries["table"].status, entries["table"].fault) == ("ABSENT", "node")
    assert "BLOB_LOST" in entries["table"].reason


def test_a_node_with_questions_alone_asks_nothing_about_its_market() -> None:
    engine = played(CrunchContract(questions=Questions(ask_missing_seconds=0)))
    assert {event.data.subject for event in events(engine, "inputs", ev.InputReceived)} == {"questions"}
    assert events(engine, "inputs", ev.InputsUntil)[-1].data.until == T0 + 30 * MINUTE, "no period waits"
