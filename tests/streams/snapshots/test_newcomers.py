"""A model's substitute for the time before it joined, and the share of a span that it answered, compared with brute
force.
"""

from __future__ import annotations

import random
import statistics
from fractions import Fraction
from typing import Any, NamedTuple

import pytest
from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st
from tests.given import Given
from tests.streams.build import HOUR, MINUTE, T0, UNIT, configured, round_scores, scope, scored_until, shelf
from tests.streams.snapshots.test_snapshots_stage import stage
from tests.streams.snapshots.test_special_windows import WINDOWS, brute

from coordinator.streams.contract.boards import Board, board_terms
from coordinator.streams.events import (
    Answered,
    CoverageTerms,
    FieldSum,
    JoinedAt,
    PeriodClosed,
    SnapshotTaken,
    SnapshotTakenData,
)
from coordinator.streams.snapshots.stage import SnapshotStage

ETH = "ETHUSDT"
SCOPES = [
    scope("1m"),
    scope("1m", ETH),
    scope("1h", horizon_seconds=3600),
    scope("3h", ETH, horizon_seconds=10_800),
]
BOARD = Board(name="eth", subjects=[ETH], window="score_recent", every_scope=False)
BOARDS = board_terms([BOARD], SCOPES, ["score_recent"])
HERE = {"a": (0, 99), "b": (0, 30), "c": (0, 99), "n": (41, 99), "late": (70, 71), "o": (52, 80)}
"""Model -> quarters of an hour from T0 between which it is asked."""


class Round(NamedTuple):
    at: int
    subject: str
    scope_key: str
    point: int
    values: dict[str, int]
    """Models that are scored."""
    missing: set[str]
    charge: int | None


def sessions(seed: int) -> list[list[Round]]:
    """The rounds of each quarter of an hour of a day. Models come and go by the points of the rounds."""
    rng = random.Random(seed)
    quarters: list[list[Round]] = []
    for step in range(96):
        at = T0 + step * HOUR // 4
        rounds: list[Round] = []
        for terms in SCOPES:
            point = at - terms.horizon_seconds * 1000
            quarter = (point - T0) * 4 / HOUR
            asked = [model for model, (first, last) in HERE.items() if first <= quarter <= last]
            values = {model: rng.randint(-UNIT, UNIT) for model in asked if rng.random() < 0.7}
            rounds.append(
                Round(at, terms.subject, terms.scope_key, point, values, {*asked} - {*values}, -UNIT)
            )
        quarters.append(rounds)
    return quarters


def told(scene: Given, round_: Round) -> None:
    scores_by_model: dict[str, Any] = dict(round_.values) | dict.fromkeys(sorted(round_.missing), "ABSENT")
    where = {"subject": round_.subject, "scope_key": round_.scope_key, "resolvable_at": round_.at}
    scene.when(
        "scores",
        *round_scores(round_.point, scores_by_model, charges=dict.fromkeys(round_.missing, -UNIT), **where),
    )


def value_of(round_: Round, rule: str, direction: str) -> int | None:
    if not round_.values:
        return None
    if rule == "worst":
        return (min if direction == "desc" else max)(round_.values.values())
    return round(Fraction(statistics.median(map(Fraction, round_.values.values()))))


def values_of(data: SnapshotTakenData, rounds: list[Round], rule: str, direction: str) -> list[Any]:
    """(resolvable_at, subject, scope, units, is a score) of a model up to a period's end, computed from the rounds
    alone.
    """
    its = [round_ for round_ in rounds if data.model_id in round_.values or data.model_id in round_.missing]
    first_period = min(round_.at for round_ in its) // HOUR * HOUR
    joined = min(round_.point for round_ in its if round_.at < first_period + HOUR)
    assert data.joined == JoinedAt(joined, first_period)
    values = []
    for round_ in rounds:
        if round_.at >= data.period_end:
            continue
        name = data.model_id
        if name in round_.values:
            values.append((round_.at, round_.subject, round_.scope_key, round_.values[name], True))
        elif name in round_.missing:
            values.append((round_.at, round_.subject, round_.scope_key, -UNIT, False))
        elif round_.at < first_period or round_.point < joined:
            units = value_of(round_, rule, direction)
            if units is not None:
                values.append((round_.at, round_.subject, round_.scope_key, units, False))
    points = {"1m": MINUTE, "1h": HOUR, "3h": 3 * HOUR}
    return sorted(values, key=lambda value: (value[0], f"{value[1]}/{value[0] - points[value[2]]}", value[2]))


@pytest.mark.parametrize(("rule", "direction"), [("worst", "desc"), ("worst", "asc"), ("median", "desc")])
def test_a_newcomers_windows_contain_its_substitute_for_the_past_and_are_the_same_after_a_restart(
    rule, direction
):
    terms = {
        "windows": WINDOWS,
        "scopes": SCOPES,
        "subjects": ["BTCUSDT", ETH],
        "absence_policy": "constant",
        "absence_units": -UNIT,
        "newcomer_past": rule,
        "ranking_direction": direction,
        "boards": BOARDS,
    }
    scene = stage(**terms)
    resumed = Given(SnapshotStage(shelf())).own(configured(**terms))
    rounds: list[Round] = []
    taken: list[SnapshotTakenData] = []
    for step, quarter in enumerate(sessions(7)):
        for round_ in quarter:
            told(scene, round_)
            rounds.append(round_)
        if step % 4 == 3 and step % 3:  # sometimes two hours are closed at once
            scene.when("scores", scored_until(T0 + (step + 1) * HOUR // 4))
            taken += [event.data for event in scene.all(SnapshotTaken)]
            for draft in scene.drafts:
                resumed.own(*draft.events)
    filled = 0
    for data in taken:
        values = values_of(data, rounds, rule, direction)
        windows: dict[str, Any] = {}
        for window in WINDOWS:
            windows[window.name] = brute(window, values, data.period_end, windows)
        assert data.windows_units == windows, (data.model_id, data.period_end - T0)
        recent = [
            value
            for value in values
            if value[1] == ETH and value[0] // HOUR * HOUR >= data.period_end - 4 * HOUR
        ]
        assert data.boards_units == {"eth": eth_board(recent)}
        filled += data.filled_count
    assert filled > 10
    assert {data.model_id for data in taken} == HERE.keys()
    own, again = scene.stage.state.own, resumed.stage.state.own
    assert own.newcomers == again.newcomers
    assert (own.trails, own.past, own.scope_trails) == (again.trails, again.past, again.scope_trails)


def eth_board(values: list[Any]) -> int | None:
    """The mean of its scopes' means, over the scopes with values."""
    if not any(score for *_, score in values):
        return None
    scopes = [[value[3] for value in values if value[2] == key] for key in ("1m", "3h")]
    means = [Fraction(sum(units), len(units)) for units in scopes if units]
    return round(sum(means) / len(means))


def test_a_model_from_before_the_rule_for_newcomers_is_no_newcomer():
    scene = stage()
    scene.when("scores", configured(contract_hash="new", effective_from=T0 + 2 * HOUR, newcomer_past="worst"))
    scene.stage._contracts = shelf(new=shelf()("c" * 64))
    for hour in range(4):
        scores_by_model = {"old": 4, "new": 9} if hour == 3 else {"old": 4}
        by = "c" * 64 if hour < 2 else "new"
        scene.when("scores", *round_scores(T0 + hour * HOUR, scores_by_model, contract_hash=by))
    scene.when("scores", scored_until(T0 + 4 * HOUR))
    last = {event.data.model_id: event.data for event in scene.all(SnapshotTaken)}
    assert last["old"].joined == JoinedAt(0, 0)
    assert last["new"].joined == JoinedAt(T0 + 3 * HOUR, T0 + 3 * HOUR)
    assert last["new"].windows_units["score_recent"] == round(
        Fraction(4 + 9, 2)
    )  # of the one hour with a substitute
    assert scene.all(SnapshotTaken)[0].data.joined is None


def test_by_default_newcomers_get_no_substitute_and_no_data_for_it_is_stored():
    scene = stage()
    for hour, scores_by_model in enumerate([{"a": 4}, {"a": 4, "b": 8}]):
        scene.when("scores", *round_scores(T0 + hour * HOUR, scores_by_model))
    scene.when("scores", scored_until(T0 + 2 * HOUR))
    data = scene.all(SnapshotTaken)[-1].data
    assert (data.model_id, data.windows_units["score_recent"], data.joined) == ("b", 8, None)
    assert (data.filled_count, data.coverage) == (0, None)
    assert {event.data.newcomer_past for event in scene.all(PeriodClosed)} == {None}
    own = scene.stage.state.own
    assert not own.newcomers.joined
    assert not own.newcomers.trail
    assert not own.coverage.rounds


# --- who comes and goes changes nobody's record ------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@for_all(
    seed=st.integers(0, 999),
    stay=st.tuples(st.integers(0, 11), st.integers(0, 11)),
    rule=st.sampled_from(["nothing", "worst", "median"]),
)
def test_a_model_that_joins_or_leaves_changes_no_other_models_recorded_sums(seed, stay, rule):
    """The `absence_policy` could change them; here it is `ignore`. Only the substitute of newcomers for rounds in which
    it took part may differ, and only for models that joined later.
    """
    rng = random.Random(seed)
    first, last = sorted(stay)
    values = [{name: rng.randint(-UNIT, UNIT) for name in "ab"} for _ in range(12)]
    without, with_guest = (stage(newcomer_past=rule), stage(newcomer_past=rule))
    snapshots_of_others = []
    for scene in (without, with_guest):
        for hour, scores_by_model in enumerate(values):
            guest = {"guest": seed} if scene is with_guest and first <= hour <= last else {}
            joined = {"new": seed + hour} if hour >= 6 else {}
            scene.when("scores", *round_scores(T0 + hour * HOUR, scores_by_model | guest | joined))
        scene.when("scores", scored_until(T0 + 12 * HOUR))
        snapshots_of_others.append(
            [event.data for event in scene.all(SnapshotTaken) if event.data.model_id != "guest"]
        )
    for alone, beside in zip(*snapshots_of_others, strict=True):
        assert (alone.sums, alone.scored_count, alone.rounds_count) == (
            beside.sums,
            beside.scored_count,
            beside.rounds_count,
        )
        if alone.model_id != "new" or rule == "nothing" or first >= 6:
            assert alone == beside


# --- coverage ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "span", [CoverageTerms(0.5, 5, 0), CoverageTerms(0.5, 0, 40), CoverageTerms(0.5, 0, 9999)]
)
def test_coverage_counts_the_rounds_of_the_span_and_is_the_same_after_a_restart(span):
    rng = random.Random(3)
    terms = {"coverage": span, "windows": [WINDOWS[0]]}
    scene = stage(**terms)
    resumed = Given(SnapshotStage(shelf())).own(configured(**terms))
    hours: list[list[dict[str, Any]]] = []
    seen = 0
    for hour in range(30):
        busy = rng.choice([0, 3, 12])
        hours.append([])
        for i in range(busy):
            fate = {
                name: rng.choice([1, 1, "ABSENT", "ABSENT(node)"])
                for name in "ab"
                if name == "a" or hour < 17
            }
            hours[-1].append(fate)
            scene.when("scores", *round_scores(T0 + hour * HOUR + i * MINUTE, fate))
        scene.when("scores", scored_until(T0 + (hour + 1) * HOUR))
        for draft in scene.drafts:
            resumed.own(*draft.events)
        answerable = [[round_ for round_ in of if {*round_.values()} != {"ABSENT(node)"}] for of in hours]
        inside: list[dict[str, Any]] = []
        for i, of in enumerate(reversed(answerable)):
            if (i < span.hours) if span.hours else (len(inside) < span.rounds):
                inside += of
        for event in scene.all(SnapshotTaken):
            name = event.data.model_id
            scored = sum(round_.get(name) == 1 for round_ in inside)
            asked = sum(round_.get(name) != "ABSENT(node)" for round_ in inside)
            assert event.data.coverage == Answered(scored, asked), (hour, name)
            seen += 1
    assert seen > 30
    assert scene.stage.state.own.coverage == resumed.stage.state.own.coverage


def test_a_period_records_the_substitute_for_models_that_join_later():
    scene = stage(newcomer_past="median")
    for i, scores_by_model in enumerate(
        [{"a": 5, "b": 2}, {"a": "ABSENT", "b": "ABSENT"}, {"a": 1, "b": 8, "c": 7}]
    ):
        scene.when("scores", *round_scores(T0 + i * MINUTE, scores_by_model))
    scene.when("scores", scored_until(T0 + HOUR))
    past = scene.only(PeriodClosed).data.newcomer_past
    assert past.total == FieldSum(round(Fraction(7, 2)) + 7, 2)  # nobody scored in the second round
    assert (past.scopes, past.series) == ({}, [])
    taken = {event.data.model_id: event.data for event in scene.all(SnapshotTaken)}
    assert taken["c"].filled_count == 1
    assert taken["c"].sums["value"] == FieldSum(7 + 4, 2)
