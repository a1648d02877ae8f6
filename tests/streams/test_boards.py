"""Boards: rankings of some scopes beside the whole ranking, with a weight for each scope, through every stage to the
checkpoint.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from pydantic import ValidationError
from tests.given import Given, given
from tests.streams.build import (
    HASH,
    HOUR,
    MINUTE,
    PUBKEY,
    T0,
    UNIT,
    period_closed,
    round_scores,
    scored_until,
    shelf,
)

from coordinator.streams import events as ev
from coordinator.streams.checkpoints.stage import CheckpointStage
from coordinator.streams.contract import (
    Aggregation,
    Board,
    CrunchContract,
    Payout,
    Pool,
    PredictionScope,
    ScheduledPrediction,
    top,
)
from coordinator.streams.contract.boards import board_terms
from coordinator.streams.contract.terms import make_terms
from coordinator.streams.events import BoardTerms, Scope, ScopeSum
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.scores.boards import board_count, board_units
from coordinator.streams.settings import Settings
from coordinator.streams.snapshots.stage import SnapshotStage

SCOPES = [
    Scope(scope_key=key, subject=subject, horizon_seconds=seconds, step_seconds=60, interval_seconds=60)
    for key, seconds in (("1h", 3600), ("24h", 86_400))
    for subject in ("BTC", "ETH")
]
WINDOWS = ["recent"]


def told(**fields: Any) -> BoardTerms:
    (terms,) = board_terms([Board(name="b", **fields)], SCOPES, WINDOWS)
    return terms


FILTERS = {
    "all": ({}, [("BTC", "1h", "1"), ("ETH", "1h", "1"), ("BTC", "24h", "1"), ("ETH", "24h", "1")]),
    "a horizon": ({"horizon_seconds": 3600}, [("BTC", "1h", "1"), ("ETH", "1h", "1")]),
    "a subject": ({"subjects": ["ETH"]}, [("ETH", "1h", "1"), ("ETH", "24h", "1")]),
    "keys": ({"scope_keys": ["24h"]}, [("BTC", "24h", "1"), ("ETH", "24h", "1")]),
    "weights by subject": ({"horizon_seconds": 3600, "weights": {"ETH": 0.7}}, [("BTC", "1h", "10"), ("ETH", "1h", "7")]),
    "weights by subject and key": (
        {"weights": {"ETH": 0.5, "24h": 3}},
        [("BTC", "1h", "2"), ("ETH", "1h", "1"), ("BTC", "24h", "6"), ("ETH", "24h", "3")],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("fields", "parts"), FILTERS.values(), ids=FILTERS)
def test_a_board_names_its_scopes_and_their_weights(fields, parts):
    assert [(part.subject, part.scope_key, part.weight) for part in told(**fields).parts] == parts


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"horizon_seconds": 60}, "no scope belongs to it"),
        ({"subjects": ["BTC", "SOL"]}, "none of its scopes has SOL"),
        ({"weights": {"SOL": 1}}, "none of its scopes has SOL"),
        ({"weights": {"BTC": 0}}, "a weight is not above 0"),
        ({"window": "recnt"}, "its window 'recnt' is none of"),
    ],
)
def test_an_impossible_board_is_named(fields, words):
    with pytest.raises(OperatorError, match=f"board 'b': {words}"):
        told(**fields)


def test_a_name_with_two_meanings_is_refused():
    for names in (["score_recent"], ["period"], ["value"], ["x", "x"]):
        with pytest.raises(ValidationError, match="a name means two things"):
            Aggregation(boards=[Board(name=name) for name in names])


def test_by_default_a_number_is_the_weighted_mean_of_means_and_not_of_scores():
    board = told(horizon_seconds=3600, weights={"ETH": 3})
    sums = {"BTC/1h": ScopeSum(1000, 100, 100), "ETH/1h": ScopeSum(2, 1, 1), "ETH/24h": ScopeSum(99, 1, 1)}
    assert (board_units(board, sums), board_count(board, sums)) == (4, 101)  # (10 + 3 * 2) / 4


def test_a_number_may_be_the_weighted_mean_of_scores():
    board = told(horizon_seconds=3600, weights={"ETH": 3}, weigh="scores")
    sums = {"BTC/1h": ScopeSum(1000, 100, 100), "ETH/1h": ScopeSum(70, 10, 9)}
    assert board_units(board, sums) == round((1000 + 3 * 70) / (100 + 3 * 10))


NONE = {
    "a scope without a score": ({"BTC/1h": ScopeSum(1000, 100, 100)}, None, 10),
    "a scope of charges alone": ({"BTC/1h": ScopeSum(1000, 100, 100), "ETH/1h": ScopeSum(0, 5, 0)}, 5, 5),
    "charges everywhere": ({"BTC/1h": ScopeSum(0, 9, 0), "ETH/1h": ScopeSum(0, 5, 0)}, None, None),
    "charges beside scores count": ({"BTC/1h": ScopeSum(1000, 100, 99), "ETH/1h": ScopeSum(0, 5, 1)}, 5, 5),
    "a scope without a value any more": (
        {"BTC/1h": ScopeSum(1000, 100, 100), "ETH/1h": ScopeSum(0, 0, 0)},
        None,
        10,
    ),
    "nothing": ({}, None, None),
}


@pytest.mark.parametrize(("sums", "all_scopes", "own_scopes"), NONE.values(), ids=NONE)
def test_a_model_without_scores_in_a_scope_has_no_number_or_that_of_its_own_scopes(
    sums, all_scopes, own_scopes
):
    assert board_units(told(horizon_seconds=3600), sums) == all_scopes
    assert board_units(told(horizon_seconds=3600, every_scope=False), sums) == own_scopes


# --- through the stages ----------------------------------------------------------------------------------

CONTRACT = CrunchContract(
    crunch_pubkey=PUBKEY,
    scheduled_predictions=[
        ScheduledPrediction(scope_key=key, scope=PredictionScope(horizon_seconds=seconds))
        for key, seconds in (("1h", 3600), ("24h", 86_400))
    ],
    aggregation=Aggregation(
        boards=[
            Board(name="short", scope_keys=["1h"], weights={"ETH": 3}),
            Board(name="long", scope_keys=["24h"]),
            Board(name="short now", scope_keys=["1h"], window="score_recent"),
        ],
        checkpoint_key="short",
    ),
    payout=Payout(
        pools=[Pool(name=name, key=name, rule=top(1), least_count=2) for name in ("short", "long")],
        retained="prizes_only",
    ),
)
SETTINGS = Settings(feed_subjects=("BTC", "ETH"), checkpoint_interval_seconds=6 * 3600)
TERMS = ev.CrunchConfigured(id="terms", at=0, data=make_terms(CONTRACT, HASH, SETTINGS, 0))


def scores(
    minute: int, subject: str, scope_key: str, scores_by_model: dict[str, Any], **more: Any
) -> list[Any]:
    at = T0 + minute * MINUTE
    units = {
        model: score if isinstance(score, str) else score * UNIT for model, score in scores_by_model.items()
    }
    return round_scores(at, units, subject=subject, scope_key=scope_key, resolvable_at=at, **more)


def played(contract: CrunchContract = CONTRACT) -> tuple[Given, Given]:
    """The events of the snapshot and checkpoint stages over two hours."""
    snapshots = given(SnapshotStage(shelf(contract))).when("scores", TERMS)
    checkpoints = given(CheckpointStage("btc-up", shelf(contract))).when("snapshots", TERMS)
    for hour in (0, 60):
        snapshots.when("scores", *scores(hour, "BTC", "1h", {"a": 1, "b": 3, "c": 9}))
        snapshots.when(
            "scores", *scores(hour + 1, "ETH", "1h", {"a": 5, "b": "ABSENT", "c": "ABSENT"}, charges={"b": 0})
        )
        if hour:
            snapshots.when("scores", *scores(hour + 2, "ETH", "1h", {"a": 5, "b": 1}))
            snapshots.when("scores", *scores(hour + 3, "BTC", "24h", {"a": 1, "b": 2}))
            snapshots.when("scores", *scores(hour + 3, "ETH", "24h", {"a": 1, "b": 2}))
        snapshots.when("scores", scored_until(T0 + (hour + 60) * MINUTE))
        checkpoints.when("snapshots", *snapshots.made)
    return snapshots, checkpoints


def test_a_snapshot_has_sums_by_scope_and_the_boards_over_a_window():
    snapshots, _ = played()
    data = {event.data.model_id: event.data for event in snapshots.all(ev.SnapshotTaken)}
    assert data["a"].scopes["ETH/1h"] == ScopeSum(10 * UNIT, 2, 2)
    assert data["b"].scopes["ETH/1h"] == ScopeSum(UNIT, 2, 1)  # a charge of 0 and a score
    # b over both hours: BTC 3, ETH (0 + 0 + 1) / 3. c has no ETH.
    assert data["b"].boards_units == {"short now": round((3 + 1 / 3) / 2 * UNIT)}
    assert data["c"].boards_units == {"short now": None}


def test_the_checkpoint_ranks_and_pays_by_boards():
    _, checkpoints = played()
    checkpoints.when("snapshots", period_closed(T0 + 2 * HOUR, T0 + 6 * HOUR))
    data = checkpoints.only(ev.CheckpointOpened).data
    assert [(row.model_id, row.key_units) for row in data.ranking] == [("a", 4 * UNIT), ("b", UNIT)]
    assert data.unranked_reasons == {"c": "has no number on the board short"}
    assert [row.counts["long"] for row in data.ranking] == [2, 2]
    assert data.ranking[1].result_summary_units["long"] == 2 * UNIT
    assert [(pool.name, [i for i, *_ in pool.paid]) for pool in data.payout.pools] == [
        ("short", [0]),
        ("long", [1]),
    ]


def test_the_least_count_counts_the_boards_own_scores():
    pools = [Pool(name="long", key="long", rule=top(1), least_count=3)]
    contract = CONTRACT.model_copy(update={"payout": Payout(pools=pools, retained="prizes_only")})
    _, checkpoints = played(contract)
    checkpoints.when("snapshots", period_closed(T0 + 2 * HOUR, T0 + 6 * HOUR))
    data = checkpoints.only(ev.CheckpointWithheld).data.checkpoint
    assert data.payout.pools[0].unpaid == {"fewer than 3 scores": [0, 1]}


def test_a_restarted_stage_continues_with_the_same_boards():
    whole, _ = played()
    first = list(given(SnapshotStage(shelf(CONTRACT))).when("scores", TERMS).made)
    again = given(SnapshotStage(shelf(CONTRACT))).own(*first)
    earlier = given(SnapshotStage(shelf(CONTRACT))).when("scores", TERMS)
    for events in (
        scores(0, "BTC", "1h", {"a": 1, "b": 3, "c": 9}),
        scores(1, "ETH", "1h", {"a": 5, "b": "ABSENT", "c": "ABSENT"}, charges={"b": 0}),
        [scored_until(T0 + HOUR)],
    ):
        earlier.when("scores", *events)
    again.own(*earlier.made)
    for events in (
        scores(60, "BTC", "1h", {"a": 1, "b": 3, "c": 9}),
        scores(61, "ETH", "1h", {"a": 5, "b": "ABSENT", "c": "ABSENT"}, charges={"b": 0}),
        scores(62, "ETH", "1h", {"a": 5, "b": 1}),
        scores(63, "BTC", "24h", {"a": 1, "b": 2}),
        scores(63, "ETH", "24h", {"a": 1, "b": 2}),
        [scored_until(T0 + 2 * HOUR)],
    ):
        again.when("scores", *events)
    assert again.made == whole.made


def test_without_boards_no_sums_by_scope_are_stored():
    plain = msgspec.structs.replace(TERMS, data=msgspec.structs.replace(TERMS.data, boards=[]))
    snapshots = given(SnapshotStage(shelf(CONTRACT))).when("scores", plain)
    snapshots.when("scores", *scores(0, "BTC", "1h", {"a": 1}), scored_until(T0 + HOUR))
    data = snapshots.only(ev.SnapshotTaken).data
    assert (data.scopes, data.boards_units) == ({}, {})
