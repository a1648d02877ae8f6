"""Explanations of stakes: which table was in force when a question closed, what a stake won or burned, and the state
after it.

Four rounds of the reference contract of Numerai overlap. The operator posts other tables of stakes in between. From a
model's first round on, its stake is its state.
"""

from __future__ import annotations

import random

import msgspec
import pytest
from tests.checkout import root_on_path
from tests.explained import explained, the, values
from tests.oracles.posted import T0, WEEK, Challenge
from tests.streams.build import DAY, HOUR, PUBKEY

from coordinator.projections.folding.as_of import PastReadModels, cuts_at, folded_until
from coordinator.projections.folding.past_cutter import PastCutter
from coordinator.projections.folding.past_held import PastCutError
from coordinator.streams import events as ev
from coordinator.streams.contract import Aggregation, AggregationWindow

with root_on_path():
    from docs.contracts import numerai

ROUNDS, ROWS = 4, 12
CONTRACT = numerai.contract(PUBKEY, numerai.RULES)
TABLES = [{"a": "900", "b": "40.5"}, {"a": "1", "b": "2", "c": "70000.25"}, {"a": "5", "c": "6"}]
"""Three tables of stakes: the first is for the first round, the second for the second, and the third for the others."""


def play(contract):
    """Four rounds, each resolved four weeks after it was asked, over ten weeks."""
    chance = random.Random(5)
    ids = [f"n{i}" for i in range(ROWS)]
    targets = [[chance.choice((0, 0.25, 0.5, 0.75, 1)) for _ in ids] for _ in range(ROUNDS)]
    answers = {
        (name, f"w{week}"): [round(min(max(t + chance.uniform(-w, w), 0), 1), 6) for t in targets[week]]
        for name, w in (("a", 0.2), ("b", 0.9), ("c", 3.0))
        for week in range(ROUNDS)
    }

    def model(name):
        return lambda _data, asked: dict(zip(ids, answers[name, asked], strict=True))

    node = Challenge(contract, {name: model(name) for name in "abc"}, weeks=10)
    for week in range(ROUNDS + 5):
        at = T0 + week * WEEK + HOUR
        if week < ROUNDS:
            if week < len(TABLES):
                node.tell(ev.PostStakes, at - DAY // 2, ev.StakesPostedData(stakes=TABLES[week]))
            node.post(at, f"w{week}", {"columns": {"id": ids}}, at + 2 * DAY)
            if week == 0:  # after the close: it applies to the next round
                node.engine.feed(at + 2 * DAY + 1, [])
        if 4 <= week < ROUNDS + 4:
            table = {"columns": {"id": ids, "target": targets[week - 4]}}
            node.resolve(at + 3 * DAY, **{f"w{week - 4}": table})
    node.engine.feed(T0 + 10 * WEEK + HOUR, [])
    return node


@pytest.fixture(scope="module")
def played():
    return play(CONTRACT)


@pytest.fixture(scope="module")
def node(played, tmp_path_factory):
    told = explained(played.engine.log, tmp_path_factory.mktemp("stakes"), lambda _: CONTRACT)
    yield told
    told.read.close()


def asked(node, week, model_id, read=None):
    return node.explainer.prediction(read or node.read, f"inp/questions/r/w{week}/question/{model_id}")


def test_every_step_of_every_stake_agrees_and_the_stakes_add_up(node, played):
    stakes = {}
    for week in range(ROUNDS):
        table = TABLES[min(week, 2)]
        for model_id in "abc":
            told = asked(node, week, model_id)
            assert {step.name: step.agrees for step in told.steps if step.agrees is False} == {}
            assert values(the(told, "stake"))["stake"] == table.get(model_id, "none")
            assert values(the(told, "stake"))["models_with_a_stake"] == str(len(table))
            payout, state = values(the(told, "stake payout")), values(the(told, "state"))
            held = stakes.setdefault(model_id, float(table[model_id])) if model_id in table else None
            held = stakes.get(model_id, held)
            assert float(payout["stake_at_risk"]) == (held or 0.0)
            assert float(payout["clip"]) == numerai.RULES["clip"]
            product = float(payout["factor"]) * float(payout["score"])
            assert float(payout["product"]) == product
            assert float(payout["clipped"]) == min(max(product, -0.05), 0.05)
            assert float(payout["payout"]) == float(payout["stake_at_risk"]) * float(payout["clipped"])
            if held is not None:
                if week and model_id != "c":
                    assert msgspec.json.decode(state["before"])["stake"] == held
                stakes[model_id] = held + float(payout["payout"])
                assert msgspec.json.decode(state["after"])["stake"] == stakes[model_id]
    assert {name: state["stake"] for name, state in played.states().items()} == stakes


def test_events_and_positions_are_those_of_the_log(node):
    told = asked(node, 3, "a")
    stake, state = the(told, "stake"), the(told, "state")
    assert [(source.topic, source.kind) for source in stake.sources] == [
        ("feeds", "StakesPosted"),
        ("inputs", "InputClosed"),
    ]
    assert {source.kind for source in state.sources} == {"StateCarried"}
    (before,) = [value for value in state.inputs if value.name == "before"]
    assert before.source.event_id == "inp/questions/r/w2/question:state"
    for source in [*stake.sources, *state.sources, before.source]:
        decision = node.appends.of(source.topic)[source.offset]
        event = next(event for event in decision.events if event.id == source.event_id)
        assert (type(event).__name__, event.at) == (source.kind, source.at_ms)
    assert node.appends.of("feeds")[stake.sources[0].offset].events[0].data.stakes == TABLES[2]


def test_as_of_the_past_a_stake_has_its_value_before_the_gain(node):
    past = PastReadModels(node.read, cuts_at(node.read, T0 + 3 * WEEK, folded_until(node.read)))
    names = [step.name for step in asked(node, 1, "a", past).steps]
    assert "answers that count" in names
    assert "stake payout" not in names
    later = PastReadModels(node.read, cuts_at(node.read, T0 + 6 * WEEK, folded_until(node.read)))
    assert asked(node, 1, "a", later) == asked(node, 1, "a")


SHORT = CONTRACT.model_copy(
    update={
        "aggregation": Aggregation(windows=[AggregationWindow(name="week", hours=7 * 24)], ranking_key="week")
    }
)
"""A window of a year, which would contain all ten weeks."""


def test_where_the_past_is_cut_a_stake_is_explained_or_refused_and_never_called_different(tmp_path):
    told = explained(play(SHORT).engine.log, tmp_path, lambda _: SHORT)
    try:
        cutter = PastCutter(told.read, past_days=28)
        while cutter.step():
            pass
        assert cutter.deleted["predictions"]
        for week in (0, 1):
            with pytest.raises(PastCutError, match="PAST_DAYS"):
                asked(told, week, "a")
        for week in (2, 3):
            answer = asked(told, week, "a")
            assert {step.name: step.agrees for step in answer.steps if step.agrees is False} == {}
            assert the(answer, "stake").agrees is True
    finally:
        told.read.close()
