"""Explanations of figures that the product's own stages made: each step computes the recorded integers again."""

from __future__ import annotations

import re

import msgspec
import pytest
from tests.explained import explained, the, values
from tests.streams.build import DEFAULT, HASH, MINUTE, T0

from coordinator.projections.explaining.typed_ids import UnknownFigureError
from coordinator.streams.audit.explain import share
from coordinator.streams.contract.terms import make_terms
from coordinator.streams.engine import Engine, Functions
from coordinator.streams.log.counting import Decision
from coordinator.streams.ports import Subscription
from coordinator.streams.setting_checks import FAR_FUTURE_MS
from coordinator.streams.settings import Settings
from coordinator.streams.sources.generated import generated_candles

ROUNDS = 150
OF = Subscription("generated", "BTCUSDT", "candle", "1m")
SETTINGS = Settings(feed_source="generated", snapshot_interval_seconds=600, checkpoint_interval_seconds=7200)


class Moody:
    """Follows the last candle. Raises in some minutes and answers nonsense in others."""

    def __init__(self) -> None:
        self.n = 0

    def tick(self, data):
        self.n += 1
        self.last = data["candles"][-1]
        if self.n % 7 == 0:
            raise ValueError("no opinion")

    def predict(self, subject, horizon_seconds, step_seconds):
        if self.n % 5 == 0:
            return {"value": float("nan")}
        return {"value": 0.25 if self.last["close"] > self.last["open"] else -0.5}


@pytest.fixture(scope="module")
def engine():
    engine = Engine(
        lambda _: DEFAULT, Functions({"moody": Moody(), "flat": lambda data, call: {"value": 0.1}})
    )
    engine.configure(make_terms(DEFAULT, HASH, SETTINGS, 0))
    for candle in generated_candles(OF, T0, T0 + (ROUNDS - 1) * MINUTE, seed=3):
        engine.feed(candle.at, [candle])
    return engine


@pytest.fixture(scope="module")
def node(engine, tmp_path_factory):
    node = explained(engine.log, tmp_path_factory.mktemp("explained"), lambda _: DEFAULT)
    yield node
    node.read.close()


def test_each_prediction_is_explained_from_its_records_to_its_units_and_every_step_agrees(node):
    predictions = [*node.read.predictions.newest(0, 1 << 50)]
    assert {row.status for row in predictions} >= {"SCORED", "FAILED", "PENDING"}
    for prediction in predictions:
        explanation = node.explainer.prediction(
            node.read, f"{prediction.input_id}/{prediction.scope_key}/{prediction.model_id}"
        )
        assert explanation.agrees in (True, None), explanation
        if prediction.hidden:
            continue
        if prediction.status in ("SCORED", "FAILED"):
            assert explanation.agrees
        if prediction.status == "SCORED":
            score = the(explanation, "score")
            assert values(score)["value"] == str(prediction.score_units["value"])
            assert score.agrees
            assert the(explanation, "truth").agrees
            assert the(explanation, "input").agrees


def test_an_explanation_names_the_events_and_their_positions(node):
    prediction = next(p for p in node.read.predictions.newest(0, 1 << 50) if p.status == "SCORED")
    explanation = node.explainer.prediction(
        node.read, f"{prediction.input_id}/{prediction.scope_key}/{prediction.model_id}"
    )
    sources = [source for step in explanation.steps for source in step.sources]
    sources += [value.source for step in explanation.steps for value in step.inputs if value.source]
    assert {source.topic for source in sources} == {"feeds", "inputs", "predictions", "scores"}
    for source in sources:
        decision = node.appends.of(source.topic)[source.offset]
        event = next(event for event in decision.events if event.id == source.event_id)
        assert (type(event).__name__, event.at) == (source.kind, source.at_ms)
    truth = the(explanation, "truth")
    assert [value.source.at_ms for value in truth.inputs] == [
        int(prediction.input_id.split("/")[2]), prediction.resolvable_at,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "an id is inp/SUBJECT/POINT_MS/SCOPE/MODEL"),
        ("17", "an id is inp/SUBJECT/POINT_MS/SCOPE/MODEL"),
        ("inp/BTCUSDT/1/60s/flat", "an id is inp/"),
        ("x" * 100_000, "an id is inp/"),
    ],
)
def test_an_unknown_id_is_answered_with_the_format_of_ids(node, name, says):
    with pytest.raises(UnknownFigureError, match=says):
        node.explainer.prediction(node.read, name)


def test_a_model_or_scope_that_was_not_asked_is_reported(node):
    prediction = next(node.read.predictions.newest(0, 1 << 50))
    with pytest.raises(UnknownFigureError, match="has no answer of model 'nobody'"):
        node.explainer.prediction(node.read, f"{prediction.input_id}/{prediction.scope_key}/nobody")
    with pytest.raises(UnknownFigureError, match=f"was asked for the scopes {prediction.scope_key}"):
        node.explainer.prediction(node.read, f"{prediction.input_id}/9s/flat")


def test_each_share_is_explained_from_its_snapshots_to_the_allocators_remainders(node):
    (row,) = node.read.checkpoints.newest()
    data = row.checkpoint
    assert len(data.ranking) == 2
    for place, entry in enumerate(data.ranking):
        explanation = node.explainer.share(node.read, data.checkpoint_id, entry.model_id)
        assert explanation.agrees, explanation
        assert {step.name: step.agrees for step in explanation.steps} == {
            "checkpoint": None, "rules": None, "key": True, "ranking": True, "allocation": None, "share": True,
        }  # fmt: skip
        key = the(explanation, "key")
        assert values(key)["period"] == str(entry.key_units)
        assert sum(int(value.exact) for value in key.inputs) == int(values(key)["sum"])
        assert {value.source.kind for value in key.inputs} == {"SnapshotTaken"}
        allocation = values(the(explanation, "allocation"))
        share = data.emission["cruncher_rewards"][place]["reward_pct"]
        assert int(allocation["weight"]) * int(allocation["total"]) // int(
            allocation["sum_of_weights"]
        ) == int(allocation["floor"])
        assert int(allocation["floor"]) + int(allocation["one_more"]) == int(allocation["allocated"]) == share
        assert values(the(explanation, "share"))["reward_pct"] == str(share)


def test_each_snapshot_is_explained_from_its_scores_to_its_windows(node):
    taken = [data for _, data in node.read.snapshots.newest(0, 1 << 50)]
    assert len(taken) > 20
    for data in taken:
        explanation = node.explainer.snapshot(node.read, data.model_id, data.period_start)
        assert explanation.agrees, [step for step in explanation.steps if step.agrees is False]
        assert all(step.agrees for step in explanation.steps if step.name != "rules"), explanation
        total = the(explanation, "sum of value")
        assert sum(int(value.exact) for value in total.inputs) == data.sums["value"].sum_units
        assert all(value.source.kind == "RoundScored" for value in total.inputs)


def test_an_altered_figure_is_reported_as_different(node, monkeypatch):
    prediction = next(
        p for p in node.read.predictions.newest(0, 1 << 50) if p.status == "SCORED" and p.model_id == "flat"
    )
    read_appends = node.appends

    def altered(wanted):
        decisions = read_appends(wanted)
        for (topic, offset), decision in decisions.items():
            if topic == "scores":
                bodies = tuple(
                    msgspec.Raw(
                        bytes(body).replace(str(prediction.score_units["value"]).encode(), b"123456789")
                    )
                    for body in decision.bodies
                )
                decisions[topic, offset] = Decision(
                    topic,
                    decision.first_offset,
                    offset,
                    decision.seq,
                    decision.before,
                    decision.upto,
                    decision.need,
                    bodies,
                )
        return decisions

    monkeypatch.setattr(node.explainer, "appends", altered)
    explanation = node.explainer.prediction(
        node.read, f"{prediction.input_id}/{prediction.scope_key}/{prediction.model_id}"
    )
    assert explanation.agrees is False
    score = the(explanation, "score")
    assert values(score)["value"] == "123456789"
    assert not score.agrees
    assert str(prediction.score_units["value"]) in score.note
    assert the(explanation, "truth").agrees


def test_an_unknown_checkpoint_model_or_period_is_reported(node):
    (row,) = node.read.checkpoints.newest()
    with pytest.raises(UnknownFigureError, match="an id is ckp_ and 24 hex digits"):
        node.explainer.share(node.read, "ckp_1", "flat")
    with pytest.raises(UnknownFigureError, match="neither ranks nor names model 'nobody'; it has 2 models: "):
        node.explainer.share(node.read, row.checkpoint.checkpoint_id, "nobody")
    with pytest.raises(UnknownFigureError, match="its newest is of"):
        node.explainer.snapshot(node.read, "flat", T0 - 10**9)
    with pytest.raises(UnknownFigureError, match="it has none at all"):
        node.explainer.snapshot(node.read, "nobody", T0)


def test_a_share_that_differs_from_its_snapshots_is_explained_with_both_figures(node, monkeypatch):
    (row,) = node.read.checkpoints.newest()
    entry = next(entry for entry in row.checkpoint.ranking if entry.model_id == "flat")
    sums = share.PeriodTotals.add

    def more(self, snapshot):
        total = snapshot.sums["value"]
        added = msgspec.structs.replace(total, sum_units=total.sum_units + 10**9)
        sums(self, msgspec.structs.replace(snapshot, sums={"value": added}))

    monkeypatch.setattr(share.PeriodTotals, "add", more)
    key = the(node.explainer.share(node.read, row.checkpoint.checkpoint_id, "flat"), "key")
    assert key.agrees is False
    assert re.fullmatch(
        rf"key_units is {entry.key_units}, the snapshots give \d+(; [a-z_.]+ is [^()]+)*", key.note
    )


@pytest.mark.parametrize("at_ms", [0, FAR_FUTURE_MS])
def test_periods_at_both_ends_of_time_are_unknown(node, at_ms):
    for explain in (
        lambda: node.explainer.snapshot(node.read, "flat", at_ms),
        lambda: node.explainer.scope(node.read, "flat", "BTCUSDT/60s", at_ms),
    ):
        with pytest.raises(UnknownFigureError):
            explain()
