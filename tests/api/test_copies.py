"""`GET /reports/models/copies`: which models answer alike, over the log, through the API."""

from __future__ import annotations

import random

import pytest
from tests.logs import HOUR_MS, MINUTE_MS, START_MS, LogBuilder

from coordinator.projections.views.agreement import numbers_in

ROUNDS = 60


@pytest.fixture
def log():
    """Sixty rounds: `taker` copies `source`, `late` does so a round later. The horizon of the newest round is open."""
    log = LogBuilder()
    log.terms()
    names = ("source", "taker", "late", "honest")
    for name in names:
        log.model(name)
    chance = random.Random(3)
    before = 0.1
    for minute in range(ROUNDS):
        value = round(chance.uniform(-1, 1), 6)
        answers = {"source": value, "taker": value, "late": before, "honest": round(chance.uniform(-1, 1), 6)}
        log.round(minute * MINUTE_MS, answers)
        before = value
    log.inputs_until(2 * HOUR_MS)
    log.round(3 * HOUR_MS, dict.fromkeys(names, 0.5), scored=False)
    return log


async def test_copies_are_shown_with_their_evidence(api):
    answer = await api.get("/reports/models/copies")
    pairs = [(pair["earlier"], pair["later"], pair["kind"], pair["lag"]) for pair in answer["pairs"]]
    assert pairs == [
        ("source", "taker", "equal", 0),
        ("source", "late", "lagged", 1),
        ("taker", "late", "lagged", 1),
    ]
    assert answer["pairs"][0]["common"] == ROUNDS, "the open round's answers are still hidden"
    assert (answer["models"], answer["pairs_found"]) == (4, 3)


async def test_only_the_newest_rounds_of_the_span_are_compared(api):
    assert (await api.get("/reports/models/copies", rounds=20))["pairs"] == []
    end = START_MS + 40 * MINUTE_MS
    answer = await api.get("/reports/models/copies", end=end, rounds=1_000)
    assert answer["pairs"][0]["common"] == answer["rounds"]
    assert 35 < answer["rounds"] <= 41


async def test_the_evidence_of_each_pair_is_explained_and_every_number_agrees(api):
    report = await api.get("/reports/models/copies")
    for pair in report["pairs"]:
        told = await api.get(f"/reports/explain/copies/{pair['later']}", other=pair["earlier"])
        assert (told["kind"], told["agrees"]) == ("copies", True)
        steps = {
            step["name"]: {value["name"]: value["exact"] for value in step["result"]}
            for step in told["steps"]
        }
        assert steps["rounds"]["rounds_compared"] == str(report["rounds"])
        assert steps["equal numbers"]["common"] == str(pair["common"])
        names = ("earlier", "later", "kind", "lag")
        assert [steps["kind"][name] for name in names] == [str(pair[name]) for name in names]
        assert float(steps["kind"]["correlation"]) == pytest.approx(pair["correlation"], abs=1e-9)
        assert float(steps["kind"]["scale"]) == pytest.approx(pair["scale"], abs=1e-9)
        (listed,) = [step["inputs"] for step in told["steps"] if step["name"] == "rounds"]
        assert len(listed) == ROUNDS, "the open round's answers are still hidden"
        assert {value["source"]["kind"] for value in listed} == {"ScopeAnswered"}
    honest = await api.get("/reports/explain/copies/honest", other="source")
    assert honest["agrees"] is True
    assert honest["steps"][-1]["result"][0]["exact"] == "no pair"


async def test_an_explanation_of_copies_has_the_parameters_of_the_report(api):
    short = await api.get("/reports/explain/copies/source", other="taker", rounds=20)
    assert short["steps"][-1]["result"][0]["exact"] == "no pair"  # too few in common
    past = await api.get("/reports/explain/copies/source", other="taker", as_of=START_MS + 40 * MINUTE_MS)
    (compared,) = [step["inputs"] for step in past["steps"] if step["name"] == "rounds"]
    assert 35 < len(compared) <= 41
    for wrong, code in (
        ({"other": "source"}, 404),
        ({"other": "nobody"}, 404),
        ({}, 422),
        ({"other": "taker", "rounds": 1_000_000}, 422),
    ):
        await api.get("/reports/explain/copies/source", code, **wrong)


@pytest.mark.parametrize(
    "query", [{"rounds": 0}, {"rounds": 1_000_000}, {"correlation_min": 1.5}, {"common": 3}]
)
async def test_a_request_without_bounds_is_refused(api, query):
    await api.get("/reports/models/copies", 422, **query)


@pytest.mark.parametrize(
    ("answer", "numbers"),
    [
        ({"value": 0.5}, [0.5]),
        ({"b": [1, {"c": 2}], "a": True}, [1.0, 1.0, 2.0]),
        ({"action": "buy"}, []),
        (None, []),
        (10**400, [float("inf")]),
    ],
)
def test_an_answer_is_split_into_its_numbers(answer, numbers):
    assert list(numbers_in(answer)) == numbers
