"""A model that joins or leaves anywhere changes nobody's recorded score.

Rosters are drawn at random for each round. A guest takes part in some rounds; the same challenge is played with it and
without it. Each other model's recorded entries, charges and windows must be the same integers.

This holds for contracts that score each prediction alone, and for absence policies that do not look at the others'
scores. The last test shows that a contract which scores a round as a whole may differ, as its own function says.
"""

from __future__ import annotations

import random

import pytest

from coordinator.streams.contract import (
    AbsenceConstant,
    Aggregation,
    AggregationWindow,
    CrunchContract,
    PredictionScope,
    ScheduledPrediction,
)
from coordinator.streams.contract.aggregation import Ewma
from coordinator.streams.contract.terms import make_terms
from coordinator.streams.engine import Engine, Functions, candles
from coordinator.streams.events import RoundScored, SnapshotTaken
from coordinator.streams.feeds.order import merge_by_time
from coordinator.streams.ports import ModelInfo, ModelNotice
from coordinator.streams.settings import Settings

ROUNDS = 70
OTHERS = ("always", "often", "seldom", "raises")
GUEST = "guest"
SUBJECTS = ("BTCUSDT", "ETHUSDT")
SETTINGS = Settings(
    feed_source="generated",
    feed_subjects=SUBJECTS,
    snapshot_interval_seconds=600,
    checkpoint_interval_seconds=1800,
)
SCHEDULES = [
    ScheduledPrediction(scope_key=f"{minutes}m", scope=PredictionScope(horizon_seconds=60 * minutes))
    for minutes in (1, 3)
]
AGGREGATION = Aggregation(
    windows=[
        AggregationWindow(name="hour", hours=1),
        AggregationWindow(name="sum", hours=1, rule="sum"),
        AggregationWindow(name="few", last=7, least=2),
        AggregationWindow(name="fast", rule=Ewma(alpha=0.2)),
        AggregationWindow(name="both", combines={"hour": 0.5, "few": 0.5}),
    ],
    ranking_key="hour",
)
POLICIES = {"ignore": "ignore", "zero": "zero", "constant": AbsenceConstant(value=-0.75)}


class Drawn(Functions):
    """Models whose rosters are drawn for each round; the guest is seen and leaves at rounds of its own.

    What is drawn for a model depends on the seed, its name and the round alone, so that the draws for the others are
    the same with and without the guest.
    """

    def __init__(self, seed: int, models) -> None:
        super().__init__(models)
        self._seed = seed
        self._calls = 0
        self._guest_is_seen = False

    def _draw(self, *what: object) -> float:
        return random.Random(f"{self._seed}/{what}").random()

    def notices(self):
        """The others once; the guest joins or leaves with each fifth call or so."""
        self._calls += 1
        seen = [ModelNotice("seen", self._info(model_id)) for model_id in OTHERS] if self._calls == 1 else []
        if GUEST in self._models and self._draw("moves", self._calls) < 0.2:
            self._guest_is_seen = not self._guest_is_seen
            seen.append(ModelNotice("seen" if self._guest_is_seen else "left", self._info(GUEST)))
        return seen

    def _info(self, model_id: str) -> ModelInfo:
        return ModelInfo(model_id, model_id, f"{model_id}-1", f"{model_id}-player", f"{model_id}-player")

    def roster(self, data, entries_seen):
        share = {"always": 1.0, "seldom": 0.3}
        return [
            entry
            for entry in entries_seen
            if self._draw(entry.model_id, data.subject, data.point) < share.get(entry.model_id, 0.7)
        ]


def answers_of(seed: int, name: str):
    """A function that answers by the seed, its name and the time alone, and raises now and then."""

    def answer(data, call):
        chance = random.Random(f"{seed}/{name}/{data['asof_ts']}/{call}")
        if chance.random() < (0.5 if name == "raises" else 0.15):
            raise ValueError("no opinion")
        return {"value": chance.uniform(-1, 1)}

    return answer


def recorded(contract: CrunchContract, seed: int, *, with_guest: bool):
    """(the others' entries, their snapshots' numbers, the guest's number of entries and charges)."""
    chance = random.Random(seed)
    records = [
        candles([100 + chance.randrange(-9, 10) / 4 for _ in range(ROUNDS)], subject=subject)
        for subject in SUBJECTS
    ]
    names = (*OTHERS, GUEST) if with_guest else OTHERS
    engine = Engine(lambda _: contract, Drawn(seed, {name: answers_of(seed, name) for name in names}))
    engine.configure(make_terms(contract, "0" * 64, SETTINGS, 0))
    for at, of_instant in merge_by_time(records):
        engine.feed(at, of_instant)
    ending = engine.end_now()
    entries = {
        (event.data.input_id, event.data.scope_key, entry.model_id): entry
        for event in engine.log.events("scores")
        if isinstance(event, RoundScored)
        for entry in event.data.entries()
    }
    taken = [event.data for event in engine.log.events("snapshots") if isinstance(event, SnapshotTaken)]
    numbers = {
        (data.model_id, data.period_start): (
            data.windows_units, data.windows_counts, data.boards_units, data.sums, data.scopes, data.summary_units,
            data.scored_count, data.charged_count, data.failed_count,
        )
        for data in [*taken, *ending.snapshots]
    }  # fmt: skip
    guests = [entry for (_, _, model_id), entry in entries.items() if model_id == GUEST]
    return (
        {key: entry for key, entry in entries.items() if key[2] != GUEST},
        {key: number for key, number in numbers.items() if key[0] != GUEST},
        guests,
    )


def contract_of(policy, **changes) -> CrunchContract:
    return CrunchContract(
        scheduled_predictions=SCHEDULES, absence_policy=policy, aggregation=AGGREGATION, **changes
    )


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_a_guest_changes_no_recorded_score_charge_or_window_of_the_others(policy, seed):
    assert_untouched(policy, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 12))
@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_many_guests_change_no_recorded_score_charge_or_window_of_the_others(policy, seed):
    assert_untouched(policy, seed)


def assert_untouched(policy, seed):
    contract = contract_of(policy)
    entries, numbers, no_guests = recorded(contract, seed, with_guest=False)
    entries_beside, numbers_beside, guests = recorded(contract, seed, with_guest=True)
    assert entries_beside == entries
    assert numbers_beside == numbers
    # The comparison is not empty: the guest took part, and others were scored, failed and charged.
    assert no_guests == []
    assert {entry.status for entry in guests} == {"SCORED", "FAILED"}
    assert {entry.status for entry in entries.values()} == {"SCORED", "FAILED"}
    assert any(entry.charge_units is not None for entry in entries.values()) == (policy != "ignore")
    for window in AGGREGATION.windows:
        assert any(windows[window.name] is not None for windows, *_ in numbers.values())


def below_the_best(answers, truth, context):
    """Each answer's distance below the best answer of its round."""
    best = max((output.value for output in answers.outputs if output is not None), default=0.0)
    return [None if output is None else {"value": output.value - best} for output in answers.outputs]


def test_where_the_contract_makes_scores_relative_a_guest_changes_them():
    """The comparison of the tests above finds a difference where there is one."""
    contract = contract_of("ignore", score_round=below_the_best)
    entries, _, _ = recorded(contract, 0, with_guest=False)
    entries_beside, _, _ = recorded(contract, 0, with_guest=True)
    assert entries_beside.keys() == entries.keys()
    assert entries_beside != entries
