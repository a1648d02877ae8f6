"""Twelve weekly rounds of a tournament through every stage, each a table of rows that is resolved four weeks later.

Each round is scored as a whole, by the correlation of an answer with the truth, and pays stake x clipped correlation.
The oracle computes correlations from plain sums. Of the node it reads only the scores of each round and the last
ranking. `tests/broker/test_questions_whole_node.py` plays the same on a real node.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import msgspec
import pytest
from tests.broker.asked_contract import CLIP, FACTOR
from tests.broker.asked_contract import TOURNAMENT as CONTRACT
from tests.broker.asked_models import linear

from coordinator.streams import events as ev
from coordinator.streams.contract.terms import make_terms
from coordinator.streams.engine.engine import Engine
from coordinator.streams.engine.models import Functions
from coordinator.streams.settings import Settings

T0 = 1_704_067_200_000
DAY = 86_400_000
WEEK = 7 * DAY
ROUNDS = 12
PERIOD = 17 * WEEK
NODE: dict[str, Any] = {
    "feed_source": "questions",
    "feed_kind": "question",
    "feed_granularity": "1s",
    "feed_subjects": ("questions",),
    "snapshot_interval_seconds": 24 * 3600,
    "checkpoint_interval_seconds": PERIOD // 1000,
    "checkpoint_offset_seconds": T0 // 1000 % (PERIOD // 1000),
}


class Tournament(NamedTuple):
    """The posted tournament: a table for each round, the truth of its rows, and the stake of each model."""

    tables: list[list[list[int]]]
    targets: list[list[float]]
    stakes: dict[str, str]


def drawn(rows: int, features: int, models: int) -> Tournament:
    chance = random.Random(rows)
    tables = [[[chance.randrange(5) for _ in range(features)] for _ in range(rows)] for _ in range(ROUNDS)]
    targets = [[round(row[0] + chance.gauss(0, 3), 6) for row in table] for table in tables]
    return Tournament(tables, targets, {f"m{number:02}": str(1 + number) for number in range(models)})


def corr(signal: list[float], target: list[float]) -> float:
    n = len(signal)
    mean_said, mean_target = math.fsum(signal) / n, math.fsum(target) / n
    both = math.fsum((x - mean_said) * (y - mean_target) for x, y in zip(signal, target, strict=True))
    spread = math.fsum((x - mean_said) ** 2 for x in signal) * math.fsum(
        (y - mean_target) ** 2 for y in target
    )
    return both / math.sqrt(spread)


@pytest.mark.parametrize(
    ("rows", "features", "models"),
    [(60, 6, 5), (1000, 50, 20)],
    ids=["small", "as the issue has it"],
)
def test_a_tournament_pays_what_the_oracle_computes(rows, features, models):
    posted = drawn(rows, features, models)
    hold_against_the_oracle(posted, play(posted).log.events)


def play(posted: Tournament) -> Engine:
    """The node after the tournament."""

    def model(number: int) -> Any:
        return lambda data, _call: linear(number, data["rows"])

    models = {name: model(number) for number, name in enumerate(posted.stakes)}
    engine = Engine(lambda _: CONTRACT, Functions(models))
    engine.configure(make_terms(CONTRACT, "c" * 64, Settings(**NODE), 0))
    engine.feed(T0, [])
    engine.command(ev.PostStakes(id="stakes", at=T0, data=ev.StakesPostedData(stakes=posted.stakes)))
    for day in range(PERIOD // DAY + 2):
        at = T0 + day * DAY
        engine.feed(at + 1, [])
        week, rest = divmod(day, 7)
        if rest == 0 and week < ROUNDS:
            question = ev.PostedQuestion(
                question_id="table",
                payload=msgspec.Raw(msgspec.json.encode({"rows": posted.tables[week]})),
                opens_at=at + 1,
                closes_at=at + 2 * DAY,
            )
            data = ev.PostQuestionsData(round_id=f"week-{week}", questions=[question])
            engine.command(ev.PostQuestions(id=f"post/{week}", at=at, data=data))
        if rest == 2 and 4 <= week < ROUNDS + 4:
            truth = msgspec.Raw(msgspec.json.encode({"target": posted.targets[week - 4]}))
            resolve = ev.ResolveQuestionsData(round_id=f"week-{week - 4}", truths={"table": truth})
            engine.command(ev.ResolveQuestions(id=f"resolve/{week}", at=at, data=resolve))
        engine.feed(at + 2, [])
    return engine


def hold_against_the_oracle(posted: Tournament, events_of: Callable[[str], Iterable[Any]]) -> None:
    """Checks scores and payouts of each round, and those of the checkpoint with its order. `events_of` returns a
    topic's events.
    """
    scored = {
        event.data.input_id.split("/")[2]: event.data
        for event in events_of("scores")
        if isinstance(event, ev.RoundScored)
    }
    assert scored.keys() == {f"week-{number}" for number in range(ROUNDS)}
    opened = [event.data for event in events_of("checkpoints") if isinstance(event, ev.CheckpointOpened)]
    ranking = {row.model_id: row for row in opened[0].ranking}
    assert ranking.keys() == posted.stakes.keys()
    for number, (name, stake) in enumerate(posted.stakes.items()):
        each = [corr(linear(number, posted.tables[i]), posted.targets[i]) for i in range(ROUNDS)]
        pays = [float(stake) * FACTOR * max(-CLIP, min(CLIP, score)) for score in each]
        for i in range(ROUNDS):
            of = scored[f"week-{i}"]
            place = of.models.index(name)
            assert of.units["value"][place] == pytest.approx(each[i] * 10**6, abs=1)
            assert of.units["payout"][place] == pytest.approx(pays[i] * 10**6, abs=1)
        entry = ranking[name]
        assert entry.prediction_count == ROUNDS
        assert entry.key_units == pytest.approx(math.fsum(each) / ROUNDS * 10**6, abs=1)
        assert entry.result_summary_units["payout"] == pytest.approx(math.fsum(pays) / ROUNDS * 10**6, abs=1)
    order = sorted(posted.stakes, key=lambda name: -ranking[name].key_units)
    assert [row.model_id for row in opened[0].ranking] == order
