"""Posted events over months of replayed time through every stage, compared with an oracle that is written here from
scratch.

Cut-offs and resolutions range from a minute to sixty days; a tenth is void, a twentieth corrected, and some models are
down. The oracle knows what was posted and how models behave. Of the node it reads only the last checkpoint and board.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any, NamedTuple

import msgspec
import pytest
from tests.broker.asked_contract import COVERED_DAYS, COVERED_SHARE, GATED, MISSED, WEIGHTS
from tests.broker.asked_contract import EVENTS as CONTRACT
from tests.first_of import first_of

from coordinator.streams import events as ev
from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.terms import make_terms
from coordinator.streams.engine.engine import CRUNCH_ID, Engine
from coordinator.streams.engine.memory_log import MemoryLog
from coordinator.streams.engine.models import Functions
from coordinator.streams.engine.owner import Owner
from coordinator.streams.inputs.stage import InputStage
from coordinator.streams.log import recorded_state as log_recorded
from coordinator.streams.log.ids import question_input_id
from coordinator.streams.log.transitions import transitions
from coordinator.streams.scores.stage import ScoreStage
from coordinator.streams.settings import Settings
from coordinator.streams.snapshots.stage import SnapshotStage

T0 = 1_704_067_200_000
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
UNIT = 10**9
MODELS = ("even", "bold", "late", "gone")
ASKED_AGAIN = 2 * MINUTE
PERIOD_DAYS = 140
NODE: dict[str, Any] = {
    "feed_source": "questions",
    "feed_kind": "question",
    "feed_granularity": "1s",
    "feed_subjects": ("questions",),
    "snapshot_interval_seconds": 24 * 3600,
    "checkpoint_interval_seconds": PERIOD_DAYS * 24 * 3600,
    "checkpoint_offset_seconds": T0 // 1000 % (PERIOD_DAYS * 24 * 3600),
}


class Posted(NamedTuple):
    name: str
    opens_at: int
    closes_at: int
    comes_at: int
    outcome: float
    corrected: tuple[int, float] | None
    is_void: bool
    lean: float


def drawn(count: int, seed: int) -> list[Posted]:
    chance = random.Random(seed)
    out: list[Posted] = []
    for number in range(count):
        opens = T0 + chance.randrange(60) * DAY + chance.randrange(24) * HOUR + number * 1000
        closes = opens + chance.choice([MINUTE, 10 * MINUTE, HOUR, DAY, 7 * DAY, 60 * DAY])
        comes = closes + chance.choice([MINUTE, HOUR, DAY, 9 * DAY])
        outcome, kind = float(chance.randrange(2)), chance.random()
        corrected = (comes + chance.choice([MINUTE, HOUR, 5 * DAY]), 1.0 - outcome) if kind < 0.05 else None
        out.append(
            Posted(
                f"q{number}", opens, closes, comes, outcome, corrected, 0.05 <= kind < 0.15, chance.random()
            )
        )
    return out


def answer_of(model_id: str, lean: float) -> float:
    return {"even": 0.5, "bold": 1.0 if lean > 0.5 else 0.0, "late": lean, "gone": 1 - lean}[model_id]


def is_down(model_id: str, posted: Posted, asking: int) -> bool:
    """`late` misses the first asking of a third of the questions. `gone` answers none of every fourth."""
    number = int(posted.name[1:])
    return (model_id == "late" and number % 3 == 0 and asking == 0) or (
        model_id == "gone" and number % 4 == 0
    )


def answered(model_id: str, posted: Posted) -> bool:
    if model_id == "late" and int(posted.name[1:]) % 3 == 0:
        return posted.opens_at + ASKED_AGAIN < posted.closes_at  # it is back when it is asked again
    return not is_down(model_id, posted, 0)


def units(model_id: str, posted: Posted, outcome: float) -> int:
    exact = Decimal(repr(1 - (answer_of(model_id, posted.lean) - outcome) ** 2)) * UNIT
    return int(exact.to_integral_value(ROUND_HALF_EVEN))


def mean(values: list[int]) -> int:
    return int((Decimal(sum(values)) / len(values)).to_integral_value(ROUND_HALF_EVEN))


def oracle(events: list[Posted]) -> dict[str, dict[str, int]]:
    """model -> its expected result."""
    of: dict[str, dict[str, int]] = {}
    in_order = sorted(
        (question for question in events if not question.is_void),
        key=lambda question: (question.comes_at, question.name),
    )
    for model_id in MODELS:
        final, scores = [], 0
        for posted in in_order:
            if not answered(model_id, posted):
                final.append(MISSED * UNIT)
                continue
            scores += 1
            truth = posted.corrected[1] if posted.corrected else posted.outcome
            final.append(units(model_id, posted, truth))
        # A truth that is corrected in time counts at the place of the first one, in windows of the last n too.
        of[model_id] = {"mean": mean(final), "scores": scores}
        of[model_id] |= {"last_20": mean(final[-20:]), "last_5": mean(final[-5:])}
        parts = [Decimal(repr(weight)) * of[model_id][name] for name, weight in WEIGHTS.items()]
        of[model_id]["weighted"] = int(sum(parts, Decimal(0)).to_integral_value(ROUND_HALF_EVEN))
    return of


def covered(events: list[Posted]) -> list[str]:
    """Models that answered enough of the questions that resolved in the days before the end of the period."""
    since = T0 + (PERIOD_DAYS - COVERED_DAYS) * DAY
    asked = [question for question in events if not question.is_void and question.comes_at >= since]
    return [
        model_id
        for model_id in MODELS
        if sum(answered(model_id, question) for question in asked) >= COVERED_SHARE * len(asked)
    ]


def run(
    events: list[Posted],
    contract: CrunchContract = CONTRACT,
    contract_hash: str = "c" * 64,
    crunch_id: str = CRUNCH_ID,
) -> Engine:
    by_name = {question.name: question for question in events}
    askings: dict[tuple[str, str], int] = {}

    def model(model_id: str) -> Any:
        def predict(data: Any, _call: Any) -> Any:
            name = data["question_id"]
            asking = askings.get((model_id, name), 0)
            askings[model_id, name] = asking + 1
            if is_down(model_id, by_name[name], asking):
                raise RuntimeError("down")
            return {"value": answer_of(model_id, by_name[name].lean)}

        return predict

    engine = Engine(
        lambda _: contract, Functions({name: model(name) for name in MODELS}), crunch_id=crunch_id
    )
    engine.configure(make_terms(contract, contract_hash, Settings(**NODE), 0))
    engine.feed(T0, [])
    steps: list[tuple[int, ev.Event | None]] = [(T0 + day * DAY, None) for day in range(1, PERIOD_DAYS + 2)]
    for drawn in events:
        steps += [(at, None) for at in (drawn.opens_at, drawn.opens_at + ASKED_AGAIN, drawn.closes_at)]
        question = ev.PostedQuestion(
            question_id=drawn.name,
            payload=msgspec.Raw(b"{}"),
            opens_at=drawn.opens_at,
            closes_at=drawn.closes_at,
        )
        steps.append(
            (
                T0,
                ev.PostQuestions(
                    id=f"post/{drawn.name}",
                    at=T0,
                    data=ev.PostQuestionsData(round_id="r", questions=[question]),
                ),
            )
        )
        if drawn.is_void:
            data = ev.VoidQuestionsData(round_id="r", reason="annulled", question_ids=[drawn.name])
            steps.append(
                (drawn.comes_at, ev.VoidQuestions(id=f"void/{drawn.name}", at=drawn.comes_at, data=data))
            )
            continue
        for at, outcome in [(drawn.comes_at, drawn.outcome), *([drawn.corrected] if drawn.corrected else [])]:
            truths = {drawn.name: msgspec.Raw(msgspec.json.encode({"outcome": outcome}))}
            resolve = ev.ResolveQuestionsData(round_id="r", truths=truths)
            steps.append((at, ev.ResolveQuestions(id=f"resolve/{drawn.name}/{at}", at=at, data=resolve)))
    for at, command in sorted(steps, key=lambda step: step[0]):
        if at > T0:
            engine.feed(at, [])
        if command is not None:
            engine.command(command)
            engine.feed(at + 1, [])
    return engine


@pytest.mark.parametrize(
    "count",
    [
        pytest.param(60, id="sixty events"),
        pytest.param(500, id="five hundred", marks=pytest.mark.slow),
    ],
)
def test_events_are_paid_as_the_oracle_computes(count):
    events = drawn(count, seed=count)
    engine = run(events, GATED)
    hold_against_the_oracle(events, engine.log.events)


def hold_against_the_oracle(events: list[Posted], events_of: Callable[[str], Iterable[Any]]) -> None:
    """Checks that the node's decisions (each topic's events by `events_of`) are those of the oracle, and nothing due is
    pending.
    """
    checkpoints = [
        event.data if isinstance(event, ev.CheckpointOpened) else event.data.checkpoint
        for event in events_of("checkpoints")
        if isinstance(event, (ev.CheckpointOpened, ev.CheckpointWithheld))
    ]
    expected = oracle(events)
    ranking = {row.model_id: row for row in checkpoints[0].ranking}
    gated = set(MODELS) - set(covered(events))
    assert {name: (row.key_units, row.prediction_count) for name, row in ranking.items()} == {
        name: (of["mean"], of["scores"]) for name, of in expected.items() if name not in gated
    }
    assert gated
    assert gated == set(checkpoints[0].unranked)
    last = {
        event.data.model_id: event.data
        for event in events_of("snapshots")
        if isinstance(event, ev.SnapshotTaken)
    }
    for window in ("last_20", "last_5", "weighted"):
        assert {name: last[name].windows_units[window] for name in MODELS} == {
            name: of[window] for name, of in expected.items()
        }
    # Nothing due is pending: each answer has one outcome, and each question one score.
    rosters: dict[str, Any] = {}
    state: dict[str, str] = {}
    for topic in ("predictions", "scores"):
        for event in events_of(topic):
            for move in transitions(event, rosters):
                assert move.before == state.get(move.prediction_id, "(none)")
                state[move.prediction_id] = move.after
    assert "PENDING" not in state.values()
    scored = [event.data.input_id for event in events_of("scores") if isinstance(event, ev.RoundScored)]
    assert sorted(scored) == sorted(question_input_id("r", drawn.name) for drawn in events)


STAGES: dict[str, Any] = {
    "inputs": lambda: InputStage(lambda _: CONTRACT),
    "scores": lambda: ScoreStage(lambda _: CONTRACT),
    "snapshots": lambda: SnapshotStage(lambda _: CONTRACT),
}


@pytest.fixture(scope="module")
def forty() -> Engine:
    return run(drawn(40, seed=11))


@pytest.mark.parametrize("topic", STAGES)
@pytest.mark.parametrize("recorded", first_of(1, [True, False]), ids=["from recorded states", "from the log"])
def test_a_stage_decides_the_same_after_any_kill(forty, topic, recorded, monkeypatch):
    """Its topic ends after any decision, and its sources are unchanged: the next owner makes the rest."""
    monkeypatch.setattr(log_recorded, "EVERY_BYTES_MIN", 2_000)
    monkeypatch.setattr(log_recorded, "EVERY_STATES", 1)
    expected = forty.log.counted(topic)
    chance = random.Random(topic)
    ends = sorted(chance.sample(range(2, len(forty.log[topic])), 12))
    taken_up = 0
    for end in ends:
        log = MemoryLog({name: list(records) for name, records in forty.log.topics.items()})
        log[topic][:] = log[topic][:end]
        for _ in range(2):  # the second owner begins with the state that the first one recorded
            owner = Owner(log, STAGES[topic](), records_states=recorded)
            owner.start()
            owner.run()
            taken_up += owner.taken_up
        assert log.counted(topic) == expected, end
    assert bool(taken_up) == recorded
