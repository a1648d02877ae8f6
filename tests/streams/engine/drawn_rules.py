"""Contracts, models and markets drawn at random, for properties that must hold for every challenge.

The rules change once. Both contracts ask the same. They draw their windows, boards, pools, charges, coverage, metrics,
ensembles and what newcomers are given; models join, leave and come back, and records are missing in the feed.
"""

from __future__ import annotations

import random
from typing import Any, NamedTuple

from pydantic import BaseModel
from tests.streams.build import MINUTE, PUBKEY, T0
from tests.streams.engine.test_plan import Moody

from coordinator.streams.contract import (
    AbsenceConstant,
    AbsencePercentile,
    Aggregation,
    AggregationWindow,
    Board,
    CrunchContract,
    Ensemble,
    Ewma,
    Metrics,
    Payout,
    Pool,
    PredictionScope,
    RankingDirection,
    RoundScores,
    ScheduledPrediction,
    Taker,
    TopN,
)
from coordinator.streams.contract.coverage import Coverage
from coordinator.streams.contract.payout_rules import top
from coordinator.streams.contract.terms import make_terms
from coordinator.streams.engine import Engine, Functions, MemoryLog, candles
from coordinator.streams.events import ApplyContract, ApplyContractData, Terms
from coordinator.streams.feeds.order import merge_by_time
from coordinator.streams.ports import FeedRecord, ModelNotice
from coordinator.streams.settings import Settings

OLD, NEW = "a" * 64, "b" * 64
SUBJECTS = ("BTCUSDT", "ETHUSDT")
PERIOD_ROUNDS, ROUNDS = 30, 130
BOUNDARY = T0 + 3 * PERIOD_ROUNDS * MINUTE
APPLIED_AT = BOUNDARY - 19 * MINUTE
SETTINGS = Settings(
    feed_source="generated",
    feed_subjects=SUBJECTS,
    snapshot_interval_seconds=300,
    checkpoint_interval_seconds=PERIOD_ROUNDS * 60,
    checkpoint_offset_seconds=T0 // 1000 % (PERIOD_ROUNDS * 60),
)


class Measured(BaseModel):
    """A score with what ensembles and metrics need."""

    value: float
    error: float = 0.0
    signal: float = 0.0
    outcome: float = 0.0


class Drawn(NamedTuple):
    """Two contracts, the second of which holds from BOUNDARY on, and a seed for the rest."""

    seed: int
    old: CrunchContract
    new: CrunchContract
    is_scored_alike: bool

    def contracts(self, contract_hash: str) -> CrunchContract:
        """The contract of a hash."""
        return {OLD: self.old, NEW: self.new}[contract_hash]

    def terms(self, contract_hash: str) -> Terms:
        """The terms of a hash. Scored alike, windows go on over the boundary."""
        scoring_hash = OLD if self.is_scored_alike else contract_hash
        return make_terms(
            self.contracts(contract_hash), contract_hash, SETTINGS, 0, scoring_hash=scoring_hash
        )


def rise(truth: Any) -> float:
    """The return; of subjects that are asked together, the sum."""
    return truth.return_ if hasattr(truth, "return_") else sum(part.return_ for part in truth.values())


def by_sign(prediction: Any, truth: Any) -> dict[str, float]:
    """The answer, signed by the market; a small one cannot be scored."""
    if abs(prediction.value) < 0.02:
        raise ValueError("too small an answer")
    outcome = rise(truth)
    value = prediction.value * (1 if outcome > 0 else -1)
    return {"value": value, "error": value - 1, "signal": prediction.value, "outcome": outcome}


def below_the_best(answers: Any, truth: Any, context: Any) -> RoundScores:
    """Each answer's distance to the best one, and a count that the rounds carry on."""
    best = max((output.value for output in answers.outputs if output is not None), default=0.0)
    rows = [
        None if output is None else {"value": output.value - best, "outcome": rise(truth)}
        for output in answers.outputs
    ]
    return RoundScores(rows, shared={"rounds": (context.shared or {"rounds": 0})["rounds"] + 1})


def best_of(scores: list[Any]) -> dict[str, float]:
    """A summary of a period's scores."""
    return {
        "value": sum(score.value for score in scores) / len(scores),
        "best": max(score.value for score in scores),
    }


def rules(chance: random.Random, asked: dict[str, Any], *, score_round: bool) -> CrunchContract:
    """Random rules that ask what `asked` says."""
    windows = [
        AggregationWindow(name="hours", hours=chance.randint(1, 3), least=chance.choice([0, 5])),
        AggregationWindow(name="few", last=chance.randint(1, 40), hours=chance.choice([None, 1])),
        AggregationWindow(
            name="newest", rule="latest", hours=chance.choice([None, 1]), least=chance.choice([0, 7])
        ),
        AggregationWindow(
            name="mean", rule=Ewma(alpha=chance.choice([0.003, 0.2])), hours=chance.choice([None, 1])
        ),
        AggregationWindow(name="sum", hours=chance.randint(1, 2), rule="sum"),
        AggregationWindow(name="both", combines={"hours": 0.6, "mean": 1.7}),
    ]
    windows = [each for each in windows if each.name in ("hours", "mean", "both") or chance.random() < 0.7]
    boards = [
        Board(name="short", horizon_seconds=60, weights={"60s": 0.7}),
        Board(name="recent", window="hours", weigh="scores", every_scope=False),
    ]
    boards = boards if chance.random() < 0.6 else []
    summary, metrics = (
        chance.choice([None, best_of]),
        chance.choice([None, Metrics(names=["ic", "max_drawdown"])]),
    )
    keys = [*(each.name for each in [*windows, *boards]), "value", *(["best"] if summary else [])]
    pools = [
        Pool(name="all", weight=2, rule=top(3)),
        Pool(name="key", key=chance.choice(keys), rule=top(2, alpha=0.7), least_count=chance.choice([0, 10])),
    ]
    payout = Payout(
        pools=pools,
        retained=chance.choice(["share_out", "prizes_only", Taker(model_id="calm")]),
        best_model_only=chance.random() < 0.5,
        warm_up_hours=chance.choice([0, 0.6]),
    )
    fields = asked | {
        "payout": chance.choice([None, payout]),
        "absence_policy": chance.choice(
            ["ignore", "zero", "worst", AbsenceConstant(value=-0.5), AbsencePercentile(percent=33.3)]
        ),
        "coverage": chance.choice([None, Coverage(share=0.5, hours=1), Coverage(share=0.6, rounds=60)]),
        "ensembles": chance.choice([[], [Ensemble(name="best", filter=TopN(n=2), hours=1)]]),
        **({"score_round": below_the_best} if score_round else {"score_prediction": by_sign}),
        **({"aggregate_snapshot": summary} if summary else {}),
    }
    return CrunchContract(
        **fields,
        aggregation=Aggregation(
            windows=windows,
            boards=boards,
            metrics=metrics,
            ranking_key=chance.choice(["hours", "mean", "value"]),
            checkpoint_key=chance.choice(["period", *keys]),
            ranking_direction=chance.choice(list(RankingDirection)),
        ),
        min_participation=chance.choice([0.0, 0.5, 0.88]),
        newcomer_excuse_max=chance.choice([0.0, 0.5]),
        newcomer_past=chance.choice(["nothing", "worst", "median"]),
    )


def drawn(seed: int) -> Drawn:
    """What a seed gives."""
    chance = random.Random(f"rules/{seed}")
    subject = chance.choice([None, SUBJECTS, "BTCUSDT"])
    schedules = [
        ScheduledPrediction(
            scope_key=f"{seconds}s",
            scope=PredictionScope(subject=subject, horizon_seconds=seconds),
            interval_seconds=chance.choice([60, 120]),
        )
        for seconds in chance.choice([[60], [60, 420]])
    ]
    asked = {
        "crunch_pubkey": PUBKEY,
        "scheduled_predictions": schedules,
        "score_type": Measured,
        "score_decimals": chance.choice([9, 3]),
        **chance.choice([{"gap_policy": "accept"}, {"gap_wait_seconds": 120}]),
    }
    score_round = chance.random() < 0.3
    old, new = (rules(chance, asked, score_round=score_round) for _ in range(2))
    return Drawn(seed, old, new, chance.random() < 0.7)


class Comes(Functions):
    """Models that join, leave and come back at random; two of them are one player's."""

    def __init__(self, seed: int) -> None:
        models = {"one": Moody(0), "twin": Moody(4), "late": Moody(7), "gone": Moody(2)}
        super().__init__({**models, "calm": lambda data, call: {"value": 0.3}}, {"one": "p", "twin": "p"})
        chance, self._looked = random.Random(f"models/{seed}"), 0
        self._changes = {
            chance.randint(2, 200): ("seen", "late"),
            chance.randint(2, 200): ("left", "gone"),
            chance.randint(200, 400): ("seen", "gone"),
            1: ("seen", "one", "twin", "calm", "gone"),
        }

    def notices(self) -> list[ModelNotice]:
        self._looked += 1
        change, *names = self._changes.get(self._looked, ("",))
        return [ModelNotice(change, self._info(name)) for name in names]  # type: ignore[arg-type]


def market(seed: int) -> list[tuple[int, list[FeedRecord]]]:
    """Both subjects' minutes, some of which may be missing."""
    chance, histories = random.Random(f"market/{seed}"), []
    for subject in SUBJECTS:
        records = candles(
            [100 + chance.randrange(-9, 10) / 4 for _ in range(ROUNDS)], start_ms=T0, subject=subject
        )
        first = chance.choice([ROUNDS, chance.randrange(5, ROUNDS - 10)])
        gap = range(first, first + chance.choice([1, 7]))
        histories.append([record for place, record in enumerate(records) if place not in gap])
    return [(at, list(records)) for at, records in merge_by_time(histories)]


def played(rules_drawn: Drawn, *, applies: bool) -> MemoryLog:
    """The log of a node; with `applies` it adopts the new contract."""
    engine = Engine(rules_drawn.contracts, Comes(rules_drawn.seed), terms_of=lambda _: rules_drawn.terms(NEW))
    engine.configure(rules_drawn.terms(OLD))
    for at, records in market(rules_drawn.seed):
        if applies and at >= APPLIED_AT:
            applies = False
            data = ApplyContractData(contract_hash=NEW, path="new:CONTRACT", archive=b"")
            engine.command(ApplyContract(id="apply", at=at, data=data))
        engine.feed(at, records)
    return engine.log
