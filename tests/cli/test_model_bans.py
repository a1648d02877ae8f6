"""Whom a ban may name: everybody who was ever seen, those that have left too; and what is said of a name that is none."""

from __future__ import annotations

import pytest
from tests.logs import LogBuilder

from coordinator.cli.model_bans import nearest
from coordinator.infra.log.models_state import ModelsLog
from coordinator.streams.log.counting import Counter
from coordinator.streams.settings import Settings

NAMES = {"17": "trend-following", "18": "mean-reversion", "101": "coin", "102": "coin-2"}


async def test_a_model_that_left_is_known_for_ever_by_its_last_name():
    topic = LogBuilder()
    for name in ("trend", "trend-2"):
        topic.model("17", model_name=name)
    topic.model_left("17")
    log, counter = ModelsLog(Settings()), Counter("models")
    for offset, record in enumerate(topic.records["models"]):
        if (decision := counter.read(offset, record)) is not None:
            log.take(decision)
    assert [model.model_id for model in log.models.roster()] == []
    assert log.names == {"17": "trend-2"}


@pytest.mark.parametrize(
    ("wanted", "suggestion"),
    [
        ("trend-folowing", "; nearest: 17 (trend-following)"),
        ("Mean-Reversion", "; nearest: 18 (mean-reversion)"),
        ("1011", "; nearest: 101 (coin)"),
        ("zzzz", "; known: 101 (coin), 102 (coin-2), 17 (trend-following), 18 (mean-reversion)"),
    ],
)
def test_an_unknown_model_is_told_with_those_that_are_most_like_it(wanted, suggestion):
    assert nearest(wanted, NAMES) == suggestion


def test_of_many_models_only_some_are_told():
    assert nearest("zzzz", {f"{number:03d}": "x" for number in range(1_005)}).endswith(
        "004 (x) and 1,000 more"
    )
    assert nearest("17", {}) == "; none was yet"


def test_a_name_cannot_speak_to_the_terminal():
    assert "\x1b" not in nearest("x", {"x1": "\x1b[2Jx"})
