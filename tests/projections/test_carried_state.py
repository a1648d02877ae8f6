"""The state that models carry from round to round, in the read models and the API."""

from __future__ import annotations

import json

import pytest
from tests.logs import MINUTE_MS, START_MS, LogBuilder, folded

from coordinator.streams.log import ids


@pytest.fixture
def fold(tmp_path):
    opened = []

    def do(log):
        opened.append(folded(log, tmp_path / str(len(opened))))
        return opened[-1]

    yield do
    for read in opened:
        read.close()


def played() -> LogBuilder:
    log = LogBuilder()
    log.terms()
    for minute in (0, 1, 2):
        log.round(minute * MINUTE_MS, {"a": 0.5, "b": 0.25})
    return log


def states_of(read, model_id):
    return [
        (own.holder, json.loads(bytes(own.state)), None if shared is None else json.loads(bytes(shared)))
        for own, shared in read.predictions.states(model_id)
    ]


def test_the_latest_state_is_shown_until_another_comes(fold):
    log = played()
    log.state(0, {"a": {"w": 1}, "b": {"w": 2}}, shared=10)
    log.state(MINUTE_MS, {"b": {"w": 3}})
    read = fold(log)
    assert states_of(read, "a") == [("BTCUSDT/60s", {"w": 1}, 10)]
    assert states_of(read, "b") == [("BTCUSDT/60s", {"w": 3}, 10)]
    (own, _), *_ = read.predictions.states("b")
    assert (own.at, own.input_id) == (START_MS + 2 * MINUTE_MS, ids.input_id("BTCUSDT", START_MS + MINUTE_MS))


def test_a_forgotten_state_is_gone(fold):
    log = played()
    log.state(0, {"a": 1})
    log.state(MINUTE_MS, {"a": None})
    assert states_of(fold(log), "a") == []


def test_each_holder_has_its_own(fold):
    log = played()
    log.state(0, {"a": 1})
    log.state(0, {"a": 2}, shared="x", holder="")
    assert states_of(fold(log), "a") == [("", 2, "x"), ("BTCUSDT/60s", 1, None)]


def test_a_model_whose_id_begins_like_anothers_does_not_see_its_state(fold):
    log = played()
    log.state(0, {"ab": 1})
    assert states_of(fold(log), "a") == []


def test_a_prediction_shows_every_part_of_the_state_after_its_round(fold):
    log = played()
    log.state(0, {"a": 1})
    log.state(0, {"b": 2}, holder="part two")
    rows = {
        prediction.model_id: prediction.state
        for prediction in fold(log).predictions.round(ids.input_id("BTCUSDT", START_MS), "60s")
    }
    assert {name: bytes(state) for name, state in rows.items()} == {"a": b"1", "b": b"2"}
    later = fold(log).predictions.round(ids.input_id("BTCUSDT", START_MS + MINUTE_MS), "60s")
    assert [prediction.state for prediction in later] == [None, None]
