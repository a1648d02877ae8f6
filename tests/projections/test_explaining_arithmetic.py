"""The numbers that a step shows lead to its result by plain arithmetic, so a reader can check an explanation by hand."""

from __future__ import annotations

import re
from fractions import Fraction

import pytest
from tests.explained import explained, values
from tests.first_of import first_of
from tests.projections import test_explaining_drawn as of_drawn
from tests.projections import test_explaining_ensembles as of_ensembles
from tests.projections.test_explaining import OF, SETTINGS, Moody
from tests.streams.build import DEFAULT, HASH, MINUTE, T0
from tests.streams.engine import test_questions_played as of_questions
from tests.streams.engine.test_plan import CONTRACT, NEW, OLD, played

from coordinator.streams.contract import CrunchContract, Payout, Pool, Taker
from coordinator.streams.contract.payout_rules import top
from coordinator.streams.contract.terms import make_terms
from coordinator.streams.engine import Engine, Functions
from coordinator.streams.sources.generated import generated_candles

NOBODY = Payout(pools=[Pool(name="x", weight=1, rule=top(3), above=10**6)], retained="share_out")
"""Distributes what nobody gets, so every checkpoint is withheld."""


TAKEN = Payout(
    pools=[Pool(name="first", weight=2, rule=top(1)), Pool(name="x", weight=1, rule=top(3), above=10**6)],
    retained=Taker(model_id="moody"),
)


def of_candles(contract, **models):
    engine = Engine(lambda _: contract, Functions(models))
    engine.configure(make_terms(contract, HASH, SETTINGS, 0))
    for candle in generated_candles(OF, T0, T0 + 149 * MINUTE, seed=3):
        engine.feed(candle.at, [candle])
    return engine.log, lambda _: contract


def always(value):
    return lambda data, call: {"value": value}


def of_ensembles_too():
    contract = CrunchContract(
        ensembles=of_ensembles.ENSEMBLES,
        score_type=of_ensembles.Measured,
        score_prediction=of_ensembles.measured,
    )
    return of_ensembles.played(contract).log, lambda _: contract


def of_rules(seed):
    new = of_drawn.rules(seed)
    return played(new), {OLD: CONTRACT, NEW: new}.__getitem__


LOGS = {
    "the default contract": lambda: of_candles(DEFAULT, moody=Moody(), flat=always(0.1)),
    "ties": lambda: of_candles(DEFAULT, a=always(0.1), b=always(0.1), z=always(0)),
    "one model": lambda: of_candles(DEFAULT, one=always(0.1)),
    "nobody scored": lambda: of_candles(DEFAULT, bad=always(float("nan"))),
    "nobody paid": lambda: of_candles(
        DEFAULT.model_copy(update={"payout": NOBODY}), moody=Moody(), flat=always(0.1)
    ),
    "ensembles": of_ensembles_too,
    "questions": lambda: (
        of_questions.run(of_questions.drawn(30, seed=61)).log,
        lambda _: of_questions.CONTRACT,
    ),
    "pools": lambda: of_rules(3),
    "a share retained": lambda: of_rules(105),
    "a share taken": lambda: of_candles(
        DEFAULT.model_copy(update={"payout": TAKEN}), moody=Moody(), flat=always(0.1)
    ),
    "few values": lambda: of_rules(108),
    "other rules": lambda: of_rules(104),
}


PLAYED_BY_MAKE_TEST = (
    "the default contract",
    "ensembles",
    "questions",
    "pools",
    "a share taken",
    "few values",
)


@pytest.fixture(params=first_of(6, sorted(LOGS, key=PLAYED_BY_MAKE_TEST.count, reverse=True)))
def node(request, tmp_path):
    log, contracts = LOGS[request.param]()
    node = explained(log, tmp_path, contracts)
    yield node
    node.read.close()


def test_each_step_can_be_computed_by_hand_from_what_it_shows(node):
    explainer, read = node.explainer, node.read
    scored = {data.snapshot_id: data.scored_count for _, data in read.snapshots.newest(0, 1 << 50)}
    for row in read.predictions.newest(0, 1 << 50):
        prediction_id = f"{row.input_id}/{row.scope_key}/{row.model_id}"
        scored[prediction_id] = row.status == "SCORED"
        explanation = explainer.prediction(read, prediction_id)
        assert explanation.agrees is not False, explanation
    for _, data in read.snapshots.newest(0, 1 << 50):
        by_hand(explainer.snapshot(read, data.model_id, data.period_start), scored)
    for row in read.leaderboard.board().rows:
        for key in ("", *row.windows_units):
            by_hand(explainer.place(read, row.model.model_id, key), scored)
    for row in read.checkpoints.newest():
        for model_id in [*(entry.model_id for entry in row.checkpoint.ranking), *row.checkpoint.unranked]:
            by_hand(explainer.share(read, row.checkpoint.checkpoint_id, model_id), scored)


def by_hand(explanation, scored):
    if explanation.kind == "share":
        share(explanation)
    assert explanation.agrees is not False, explanation
    for step in explanation.steps:
        assert not step.left_out, step
        shown, numbers = (
            values(step),
            [int(value.exact) for value in step.inputs if value.exact.lstrip("-").isdigit()],
        )
        if "by the key" in step.rule.lower() or step.name == "rank":
            ranks(explanation, step)
        elif "floor" in shown:
            allocation(step)
        elif step.rule.startswith("The sum over the model's snapshots") or "sum" in shown:
            summed(step, numbers, scored)


def summed(step, numbers, scored):
    result = {value.name: value.exact for value in step.result}
    number = next(
        (exact for name, exact in result.items() if name in (step.name.split()[-1], "mean", "period")), None
    )
    if "newest" in step.rule:
        return  # it depends on single scores, of which the periods show only the sums
    if "sum" in result and not step.name.startswith("window"):
        assert int(result["sum"]) == sum(numbers), step
    if number is None:
        return
    n = int(result["n"])
    if n == 0:
        assert number in ("null", "0"), step
    elif "divided once" in step.rule or "one division" in step.rule:
        assert number == ("null" if too_few(step, n, scored) else str(round(Fraction(sum(numbers), n)))), step
    else:
        assert number == ("null" if too_few(step, n, scored) else str(sum(numbers))), step


def too_few(step, n, scored):
    """`scored`: snapshot or prediction -> its number of scores. Each listed answer of an ensemble has one."""
    if not step.name.startswith("window"):
        return False
    least = re.search(r"fewer than (\d+) values", step.rule)
    scores = sum(scored.get(value.name, not value.name.startswith("snap/")) for value in step.inputs)
    return not scores or (least is not None and n < int(least[1]))


def share(explanation):
    """The last allocations lead to the share."""
    shown = {step.name: values(step) for step in explanation.steps}
    pools = [numbers for name, numbers in shown.items() if name.startswith("in pool")]
    if "shared out" in shown:
        assert int(shown["shared out"]["weight"]) == sum(int(pool.get("allocated", "0")) for pool in pools)
        due = int(shown["shared out"]["allocated"])
    elif pools:
        due = sum(int(pool.get("allocated", "0")) for pool in pools) + int(
            shown["share"].get("takes_retained", "0")
        )
    elif "allocation" in shown:
        due = int(shown["allocation"]["allocated"])
    else:
        return
    assert int(shown["share"]["reward_pct"]) == due, explanation


def ranks(explanation, step):
    sign = -1 if "more is better" in step.rule else 1
    keys = {value.name: sign * int(value.exact) for value in step.inputs if value.exact != "null"}
    own = explanation.id.partition("?")[0].split("/", 1)[1]
    rank = values(step)["rank"]
    if rank != "null":
        assert int(rank) == 1 + sum(key < keys[own] for key in keys.values()), step


def allocation(step):
    shown = values(step)
    quota = Fraction(shown["weight"]) * int(shown["total"]) / Fraction(shown["sum_of_weights"])
    assert int(shown["floor"]) == quota.numerator // quota.denominator, step
    assert Fraction(shown["remainder"]) == quota - int(shown["floor"]), step
    assert int(shown["allocated"]) == int(shown["floor"]) + int(shown["one_more"]), step
