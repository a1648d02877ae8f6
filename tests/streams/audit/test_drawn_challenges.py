"""Challenges that are drawn at random, with models and posts that do harm: the audit finds what the stages recorded.

Each seed draws a contract, models and, for questions, posts, hand-ins, corrections and voids. Every checkpoint that is
offered sums up, and is checked by both checks of the audit. Nobody is charged for what is nobody's fault.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec
import numpy as np
import pytest
from pydantic import BaseModel
from tests.checked import chain_of, steps_of
from tests.streams.build import HASH, MINUTE, PUBKEY
from tests.streams.questions import post, question, raw

from coordinator.streams import events as ev
from coordinator.streams.contract import (
    AbsenceConstant,
    Aggregation,
    AggregationWindow,
    Board,
    Coverage,
    CrunchContract,
    Ensemble,
    Ewma,
    NoScore,
    Payout,
    Pool,
    PredictionScope,
    Questions,
    RoundScores,
    ScheduledPrediction,
    ScoreResult,
    by_percentile,
    by_softmax,
    in_proportion,
    top,
)
from coordinator.streams.contract.terms import make_terms
from coordinator.streams.engine import candles
from coordinator.streams.engine.engine import Engine
from coordinator.streams.engine.models import Functions
from coordinator.streams.feeds.order import merge_by_time
from coordinator.streams.ports import ModelInfo, ModelNotice
from coordinator.streams.settings import Settings

EXCUSED, RAISES = 7, 8
Draw = random.Random


class Answer(BaseModel):
    value: float
    path: list[float] = []
    mark: int = 0


class Scores(ScoreResult):
    edge: float = 0.0


class Outcome(BaseModel):
    outcome: float
    wei: int = 0


def gain(answer: Any, truth: Any) -> Any:
    if isinstance(answer, dict):  # the history of answers to a question
        answer = Answer(**answer["answers"][-1]["output"])
    if answer.mark == EXCUSED:
        return NoScore("not yet")
    if answer.mark == RAISES:
        raise ValueError("a case that the author forgot")
    change = (
        -((answer.value - truth.outcome) ** 2)
        if hasattr(truth, "outcome")
        else answer.value * change_of(truth)
    )
    return {"value": change, "edge": answer.value}


def change_of(truth: Any) -> float:
    truths = truth.values() if isinstance(truth, dict) else [truth]
    return sum(one_truth.return_ for one_truth in truths) * 100


def against_the_mean(answers: Any, truth: Any, context: Any) -> RoundScores:
    """Raises for paths of different lengths, and for marks that are no floats."""
    value, mark, _ = answers.column("value"), answers.column("mark"), answers.column("path")
    with np.errstate(all="ignore"):
        change = -((value - truth.outcome) ** 2) if hasattr(truth, "outcome") else value * change_of(truth)
        mean = np.nanmean(change) if answers.answered().any() else 0.0
        gains = np.where(np.isnan(change), -0.5, change - mean)
    return RoundScores(
        {"value": gains, "edge": np.nan_to_num(value, posinf=0.0)},
        no_score={
            model_id: "not yet" for model_id, m in zip(answers.models, mark, strict=True) if m == EXCUSED
        },
        shared={"rounds": (context.shared or {"rounds": 0})["rounds"] + 1},
    )


HARMS: Mapping[str, Callable[[float], Any]] = {
    "steady": lambda _: {"value": 0.5},
    "flat": lambda _: {"value": 0.0},
    "random": lambda x: {"value": round(2 * x - 1, 3)},
    "raises": lambda x: {"value": x} if x > 0.3 else 1 / 0,
    "infinite": lambda x: {"value": x if x > 0.3 else float("inf")},
    "huge": lambda x: {"value": x} if x > 0.3 else {"value": 1e300, "mark": 10**400},
    "other path": lambda x: {"value": x, "path": [1.0, 2.0] if x > 0.5 else []},
    "excused": lambda x: {"value": x, "mark": EXCUSED if x < 0.4 else 0},
    "unscorable": lambda x: {"value": x, "mark": RAISES if x < 0.4 else 0},
    "silent": lambda _: None,
}


def models_of(draw: Draw) -> dict[str, Any]:
    def model(answer: Callable[[float], Any], own: Draw) -> Any:
        return lambda _data, _call: answer(own.random())

    count = draw.randint(2, 6)
    return {f"m{i}": model(HARMS[draw.choice([*HARMS])], Draw(draw.random())) for i in range(count)}


def fields_of(draw: Draw, *, whole: bool) -> dict[str, Any]:
    """What both kinds of challenges draw."""
    fields: dict[str, Any] = {"output_type": Answer, "score_type": Scores, "crunch_pubkey": PUBKEY}
    fields |= {"score_round": against_the_mean} if whole else {"score_prediction": gain}
    policies = ["ignore", "zero", "worst", "worst_percentile", AbsenceConstant(value=-1)]
    fields["absence_policy"] = draw.choice([*policies, "scored"] if whole else policies)
    if draw.random() < 0.5:
        rule = draw.choice([top(3), in_proportion(above=-1), by_softmax(beta=2), by_percentile()])
        pools = [Pool(name="all", rule=rule), Pool(name="edge", key="edge", rule=top(1), weight=0.25)]
        retained = draw.choice(["share_out", "prizes_only"])
        fields["payout"] = Payout(pools=pools, best_model_only=draw.random() < 0.5, retained=retained)
    if draw.random() < 0.4:
        fields["newcomer_past"] = draw.choice(["worst", "median"])
    if draw.random() < 0.4:
        fields["coverage"] = Coverage(share=0.3, rounds=5)
    if draw.random() < 0.4:
        fields["ensembles"] = [Ensemble(name="equal")]
    return fields


def aggregation_of(draw: Draw, **more: Any) -> Aggregation:
    windows = [AggregationWindow(name="hour", hours=1), AggregationWindow(name="five", last=5)]
    windows.append(AggregationWindow(name="fast", rule=Ewma(alpha=0.3), hours=2))
    key = draw.choice(["period", "hour", "five", "value"])
    return Aggregation(windows=windows, ranking_key="hour", checkpoint_key=key, **more)


class ComeAndGo(Functions):
    """Models that join late, leave, come back, are deployed again, and are handed on to another player."""

    def __init__(self, models: Mapping[str, Any], players: Mapping[str, str]) -> None:
        super().__init__(models, players)
        self.draw = Draw(len(models))
        self.here: dict[str, ModelInfo] = {}
        self.changes = 0

    def notices(self) -> list[ModelNotice]:
        return [notice for model_id in self._models for notice in self.changed(model_id)]

    def changed(self, model_id: str) -> Iterator[ModelNotice]:
        chance, info = self.draw.random(), self.here.get(model_id)
        self.changes += 1
        if info is None and chance < 0.1:
            self.here[model_id] = msgspec.structs.replace(
                self._info(model_id), deployment_id=f"d{self.changes}"
            )
            yield ModelNotice("seen", self.here[model_id])
        elif info is not None and chance < 0.01:
            del self.here[model_id]
            yield ModelNotice("left", info)
        elif info is not None and chance < 0.03:
            new = {"deployment_id": f"d{self.changes}", "model_name": f"=cmd {chance}"}
            new |= {"cruncher_id": f"new-{self.changes}"} if chance < 0.02 else {}
            self.here[model_id] = msgspec.structs.replace(info, **new)
            yield ModelNotice("seen", self.here[model_id])


def begun(
    contract: CrunchContract, draw: Draw, subjects: tuple[str, ...], kind: type[Functions] = Functions
) -> Engine:
    models = models_of(draw)
    players = {model_id: f"p{i // 2}" for i, model_id in enumerate(models)}
    engine = Engine(lambda _: contract, kind(models, players))
    node = Settings(
        feed_source="generated", feed_subjects=subjects,
        snapshot_interval_seconds=600, checkpoint_interval_seconds=3600,
    )  # fmt: skip
    engine.configure(make_terms(contract, HASH, node, 0))
    return engine


def check(engine: Engine, contract: CrunchContract) -> int:
    """How many checkpoints were offered. Each is checked."""
    for event in engine.log.events("scores"):
        if isinstance(event, ev.RoundScored):
            excused = [entry for entry in event.data.entries() if entry.fault == "nobody"]
            assert all(entry.charge_units is None for entry in excused)
    offered = [
        event.data for event in engine.log.events("checkpoints") if isinstance(event, ev.CheckpointOpened)
    ]
    for checkpoint in offered:
        left = checkpoint.payout.retained_frac64 if checkpoint.payout else 0
        if checkpoint.payout is None or checkpoint.payout.retained_is != "left":
            left = 0
        assert sum(share["reward_pct"] for share in checkpoint.emission["cruncher_rewards"]) == 10**9 - left
        chain = chain_of(engine.log, checkpoint)
        steps_of(engine.log, chain, checkpoint, lambda _: contract, engine.crunch_id)
    return len(offered)


# --- a market ----------------------------------------------------------------------------------------------


def market(seed: int, kind: type[Functions] = Functions) -> int:
    draw = Draw(seed)
    subjects = ("AAA", "BBB", "CCC")[: draw.randint(1, 3)]
    schedules = []
    for number in range(draw.randint(1, 3)):
        subject = draw.choice([None, subjects[0], subjects if len(subjects) > 1 else None])
        scope = PredictionScope(subject=subject, horizon_seconds=draw.choice([60, 300, 600]))
        interval = draw.choice([60, 120, 300])
        schedules.append(ScheduledPrediction(scope_key=f"s{number}", scope=scope, interval_seconds=interval))
    boards = [
        Board(name="board", weights={"s0": 2.5}, every_scope=False, window=draw.choice(["period", "hour"]))
    ]
    contract = CrunchContract(
        scheduled_predictions=schedules,
        aggregation=aggregation_of(draw, boards=boards),
        gap_policy=draw.choice(["wait", "accept"]),
        **fields_of(draw, whole=draw.random() < 0.5),
    )
    engine = begun(contract, draw, subjects, kind)
    streams = []
    for subject in subjects:
        prices = [round(100 + draw.gauss(0, 0.3), 4) for _ in range(140)]
        records = candles(prices, subject=subject)
        hole = draw.randint(5, 130)
        del records[hole : hole + draw.choice([0, 0, 3])]
        streams.append(records)
    for at, records in merge_by_time(streams):
        engine.feed(at, records)
    return check(engine, contract)


# --- posted questions --------------------------------------------------------------------------------------


class Operator:
    """Posts questions, truths, corrections, voids and stakes; hands in answers of two participants and a model."""

    def __init__(self, engine: Engine, draw: Draw) -> None:
        self.engine, self.draw = engine, draw
        self.closes: dict[str, int] = {}
        self.commands = 0

    def send(self, kind: Any, data: Any, at: int) -> None:
        self.commands += 1
        self.engine.command(kind(id=f"cmd/{self.commands}", at=at, data=data))

    def act(self, at: int) -> None:
        draw = self.draw
        if draw.random() < 0.25:
            name = f"q{len(self.closes)}"
            self.closes[name] = closes_at = at + draw.randint(2, 40) * MINUTE + draw.choice([0, 1, 30_000])
            opens_at = at + draw.choice([0, 1, 30_000, MINUTE])
            self.engine.command(post(question(name, opens_at=opens_at, closes_at=closes_at), at=at))
        for name, closes_at in self.closes.items():
            if draw.random() < 0.1:
                self.hand_in(name, at)
            if draw.random() < (0.06 if at > closes_at else 0.02):
                truth = raw({"outcome": draw.choice([0, 1]), "wei": draw.choice([0, 10**30])})
                self.send(
                    ev.ResolveQuestions, ev.ResolveQuestionsData(round_id="r1", truths={name: truth}), at
                )
            elif draw.random() < 0.006:
                self.send(ev.VoidQuestions, ev.VoidQuestionsData("r1", "annulled", [name]), at)
            elif draw.random() < 0.01:
                self.send(ev.CloseQuestions, ev.CloseQuestionsData("r1", [name]), at)
        if draw.random() < 0.05:
            self.send(ev.PostStakes, ev.StakesPostedData(stakes={"m0": str(draw.randint(0, 5))}), at)

    def hand_in(self, name: str, at: int) -> None:
        draw = self.draw
        output = {"value": round(draw.random(), 2), "path": draw.choice([[], [1.0]])}
        output["mark"] = draw.choice([0, 0, 0, EXCUSED, RAISES, 10**400])
        model_id, cruncher_id = draw.choice([("s1", "c1"), ("s2", "c2"), ("m0", "p0")])
        digest = hashlib.sha256(str(self.commands).encode()).hexdigest()
        answers = [ev.SubmittedAnswer(question_id=name, scope_key="", output=raw(output))]
        self.send(ev.SubmitAnswers, ev.SubmitAnswersData("r1", model_id, cruncher_id, answers, digest), at)


def asked(seed: int) -> int:
    draw = Draw(seed)
    counts = draw.choice(["last", "mean", "history"])
    fields = fields_of(draw, whole=counts != "history" and draw.random() < 0.5)
    if counts == "history":
        fields.pop("ensembles", None)
    questions = Questions(
        counts=counts, ask_again_seconds=draw.choice([0, 120, 600]), ask_missing_seconds=draw.choice([0, 60])
    )
    contract = CrunchContract(
        ground_truth_type=Outcome, questions=questions, aggregation=aggregation_of(draw), **fields
    )
    engine = begun(contract, draw, ("AAA",))
    operator = Operator(engine, draw)
    for record in candles([100.0] * 200, subject="AAA"):
        engine.feed(record.at, [record])
        operator.act(record.at)
    return check(engine, contract)


@pytest.mark.parametrize("seed", range(4))
def test_of_a_market(seed):
    market(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4, 100))
def test_of_more_markets(seed):
    market(seed)


@pytest.mark.parametrize("seed", range(6))
def test_of_models_that_come_and_go_and_change_their_player(seed):
    market(seed, ComeAndGo)


@pytest.mark.parametrize("seed", [0, 1, 7, 9, 40])
def test_of_posted_questions(seed):
    asked(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(50, 150))
def test_of_more_posted_questions(seed):
    asked(seed)
