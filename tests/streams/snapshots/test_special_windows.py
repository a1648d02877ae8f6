"""Windows that are not plain means: of a scope, weighted, of the last n, EWMAs, combined. Compared with brute force."""

from __future__ import annotations

import random
from fractions import Fraction
from typing import Any

import pytest
from tests.given import Given
from tests.streams.build import HOUR, MINUTE, T0, UNIT, configured, round_scores, scope, scored_until, shelf
from tests.streams.snapshots.test_snapshots_stage import stage

from coordinator.streams.contract import Aggregation, AggregationWindow, Board, CrunchContract, Ewma
from coordinator.streams.contract.terms import make_terms
from coordinator.streams.events import SnapshotTaken, SnapshotTakenData, Window
from coordinator.streams.settings import Settings
from coordinator.streams.snapshots.stage import SnapshotStage
from coordinator.streams.snapshots.windows import Number, numbers_of_windows

ETH = "ETHUSDT"
SCOPES = [
    scope("1m"),
    scope("1m", ETH),
    scope("1h", horizon_seconds=3600),
    scope("1h", ETH, horizon_seconds=3600),
]
WINDOWS = [
    Window(name="score_recent", hours=4),
    Window(name="sum", hours=6, rule="sum"),
    Window(name="least", hours=6, least=30),
    Window(name="last_seven", hours=12, last=7),
    Window(name="last_and_least", hours=12, last=50, least=20),
    Window(name="sum_of_three", hours=12, last=3, rule="sum"),
    Window(name="latest", hours=12, rule="latest"),
    Window(name="ewma", hours=3, rule="ewma", alpha=0.25),
    Window(name="slow", hours=24, rule="ewma", alpha=0.01, least=20),
    Window(name="both", hours=0, combines={"sum": 0.6, "last_seven": 0.25}),
]


def brute(
    window: Window, values: list[tuple[int, str, str, int, bool]], end: int, windows: dict[str, Any]
) -> Any:
    """Computed from (resolvable_at, subject, scope_key, units, is a score) of one model, oldest first."""
    if window.combines:
        parts = [(Fraction(repr(weight)), windows[name]) for name, weight in window.combines.items()]
        if any(units is None for _, units in parts):
            return None
        return round(sum(weight * units for weight, units in parts) / sum(weight for weight, _ in parts))
    chosen = values
    if window.rule == "ewma":
        return brute_ewma(window, chosen, end)
    chosen = [value for value in chosen if value[0] // HOUR * HOUR >= end - window.hours * HOUR]
    chosen = chosen[-window.last :] if window.last else chosen
    if not any(value[4] for value in chosen) or len(chosen) < window.least:
        return None
    units = [value[3] for value in chosen]
    if window.rule == "latest":
        return units[-1]
    return sum(units) if window.rule == "sum" else round(Fraction(sum(units), len(units)))


def brute_ewma(window: Window, chosen: list[tuple[int, str, str, int, bool]], end: int) -> int | None:
    ewma, scored, n, newest = None, 0, 0, 0
    for at, _, _, units, is_score in chosen:
        start = at // HOUR * HOUR
        if ewma is None or newest < start + HOUR - window.hours * HOUR:
            ewma, scored, n = units, 0, 0
        else:
            ewma = round(ewma + Fraction(repr(window.alpha)) * (units - ewma))
        scored, n, newest = scored + is_score, n + 1, start
    return ewma if scored and n >= window.least and newest >= end - window.hours * HOUR else None


@pytest.mark.parametrize("seed", range(4))
def test_each_window_agrees_with_brute_force_and_is_the_same_after_a_restart(seed):
    rng = random.Random(seed)
    terms = {"windows": WINDOWS, "scopes": SCOPES, "subjects": ["BTCUSDT", ETH], "absence_policy": "zero"}
    scene = stage(**terms)
    own: list[Any] = []
    values: dict[str, list[tuple[int, str, str, int, bool]]] = {model: [] for model in "abc"}
    closed, checked = 0, 0
    for step in range(4 * 24):
        at = T0 + step * HOUR // 4
        for scope_terms in SCOPES:
            busy = 0.05 if 30 < step < 60 else 0.4
            fates = {model: rng.random() for model in "abc"}
            scores_by_model = {
                model: rng.randint(-UNIT, UNIT) if fate < busy else "ABSENT"
                for model, fate in fates.items()
                if fate < busy + 0.1
            }
            charges = {model: -UNIT for model, units in scores_by_model.items() if units == "ABSENT"}
            point = at - scope_terms.horizon_seconds * 1000
            where = {
                "subject": scope_terms.subject,
                "scope_key": scope_terms.scope_key,
                "resolvable_at": at,
                "charges": charges,
            }
            scene.when("scores", *round_scores(point, scores_by_model, **where))
            for model, units in scores_by_model.items():
                score = units != "ABSENT"
                values[model].append(
                    (at, scope_terms.subject, scope_terms.scope_key, units if score else -UNIT, score)
                )
        until = (at + 1) // HOUR * HOUR
        if until > closed and rng.random() < 0.3:
            before = len(scene.drafts)
            scene.when("scores", scored_until(until))
            closed = until
            for data in (event.data for event in scene.all(SnapshotTaken)):
                checked += check(data, values, until)
            own += [draft.events for draft in scene.drafts[before:]]
            scene.then(*[type(event) for draft in scene.drafts[before:] for event in draft.events])
    assert checked > 300
    resumed = Given(SnapshotStage(shelf())).own(configured(**terms))
    for events in own:
        resumed.own(*events)
    assert resumed.stage.state.own.past == scene.stage.state.own.past
    assert scene.stage.state.own.past


def check(data: SnapshotTakenData, values: dict[str, Any], until: int) -> int:
    mine = [value for value in values[data.model_id] if value[0] < data.period_end]
    # Sorted as in a period's rounds: resolvable time, input (subject and point), scope.
    horizon_ms = {"1m": MINUTE, "1h": HOUR}
    mine.sort(key=lambda value: (value[0], f"{value[1]}/{value[0] - horizon_ms[value[2]]}", value[2]))
    windows: dict[str, Any] = {}
    for window in WINDOWS:
        windows[window.name] = brute(window, mine, data.period_end, windows)
    assert data.windows_units == windows, (data.model_id, data.period_end - T0)
    assert set(data.windows_counts) == {window.name for window in WINDOWS} - {"score_recent"}
    return sum(units is not None for units in windows.values())


def test_a_contract_of_plain_windows_stores_no_special_ones():
    scene = stage()
    scene.when("scores", *round_scores(T0, {"a": 5}))
    scene.when("scores", scored_until(T0 + HOUR))
    (data,) = (event.data for event in scene.all(SnapshotTaken))
    assert (data.series, data.windows_counts) == ([], {})
    assert scene.stage.state.own.past == {}


def test_a_window_that_combines_others_counts_each_score_once():
    """All windows end now, so the scores of the shorter window are also in the longer one."""
    windows = [
        Window(name="day", hours=24),
        Window(name="hour", hours=1),
        Window(name="overall", hours=0, combines={"day": 0.7, "hour": 0.3}),
    ]
    numbers = {"day": Number(100, 20), "hour": Number(200, 5)}
    assert numbers_of_windows(windows, lambda window: numbers[window.name])["overall"] == Number(130, 20)


def test_a_board_is_made_of_sums():
    windows = [AggregationWindow(name="day", hours=24), AggregationWindow(name="last", last=5)]
    with pytest.raises(ValueError, match="no means over hours"):
        Aggregation(windows=windows, boards=[Board(name="b", window="last")], ranking_key="day")


def test_an_author_declares_windows_in_the_contract():
    windows = [
        AggregationWindow(name="day", hours=24),
        AggregationWindow(name="sum", hours=72, rule="sum"),
        AggregationWindow(name="global", last=600, least=200),
        AggregationWindow(name="fast", rule=Ewma(alpha=0.003)),
        AggregationWindow(name="now", rule="latest", hours=48),
        AggregationWindow(name="overall", combines={"global": 0.6, "fast": 0.4}),
    ]
    contract = CrunchContract(aggregation=Aggregation(windows=windows, ranking_key="overall"))
    assert make_terms(contract, "", Settings(), 0).windows == [
        Window(name="day", hours=24),
        Window(name="sum", hours=72, rule="sum"),
        Window(name="global", hours=8760, last=600, least=200),
        Window(name="fast", hours=8760, rule="ewma", alpha=0.003),
        Window(name="now", hours=48, rule="latest"),
        Window(name="overall", hours=0, combines={"global": 0.6, "fast": 0.4}),
    ]
    assert [window.plain for window in make_terms(contract, "", Settings(), 0).windows] == [
        True,
        *[False] * 5,
    ]


REFUSED = {
    "no hours": ({"name": "w"}, "hours is missing"),
    "a weight of 0": ({"name": "w", "combines": {"day": 0}}, "above 0"),
    "a weight that is not finite": ({"name": "w", "combines": {"day": float("inf")}}, "above 0"),
    "combines and more": ({"name": "w", "hours": 1, "combines": {"day": 1}}, "can say nothing more"),
    "combines what is behind it": ({"name": "w", "combines": {"later": 1}}, "no windows before it"),
    "combines itself": ({"name": "w", "combines": {"w": 1}}, "no windows before it"),
}


@pytest.mark.parametrize(("fields", "says"), REFUSED.values(), ids=REFUSED)
def test_an_impossible_window_is_refused(fields, says):
    with pytest.raises(ValueError, match=says):
        Aggregation(
            windows=[
                AggregationWindow(name="day", hours=24),
                AggregationWindow(**fields),
                AggregationWindow(name="later", hours=1),
            ],
            ranking_key="day",
        )
