"""When a new contract scores in other units, sums contain scores of one scoring only.

A round is scored by the contract under which it was asked. Its score is known a horizon later, when another contract
may be in force. Sums, windows and participation restart where the scoring changes, and continue where it does not.
"""

from __future__ import annotations

from typing import Any

from tests.given import Given, given
from tests.streams.build import DEFAULT, HASH, HOUR, MINUTE, T0, configured, round_scores, scored_until, shelf

from coordinator.infra.contracts.meaning import scoring_hash
from coordinator.streams import events as ev
from coordinator.streams.contract import Aggregation, CrunchContract
from coordinator.streams.contract.defaults import aggregate_snapshot
from coordinator.streams.snapshots.stage import SnapshotStage

CHANGE = T0 + 6 * HOUR


def stage(**new: Any) -> Given:
    """The aggregate stage, with other terms from CHANGE on."""
    scene = given(SnapshotStage(shelf(DEFAULT, new=DEFAULT)))
    return scene.when("scores", configured(), configured(contract_hash="new", effective_from=CHANGE, **new))


def rounds_over_the_change(scene: Given, units: int = 10**7) -> list[ev.SnapshotTaken]:
    """Scores 5 and 7 under the old contract, the 7 known a minute after the change; then `units` under the new one."""
    scene.when("scores", *round_scores(CHANGE - HOUR, {"m": 5}))
    scene.when("scores", scored_until(CHANGE))
    scene.when("scores", *round_scores(CHANGE - MINUTE, {"m": 7}, resolvable_at=CHANGE + MINUTE))
    scene.when(
        "scores",
        *round_scores(CHANGE + MINUTE, {"m": units}, contract_hash="new", resolvable_at=CHANGE + 2 * MINUTE),
    )
    return scene.when("scores", scored_until(CHANGE + HOUR)).all(ev.SnapshotTaken)


def test_no_sum_reaches_over_a_change_of_scoring():
    scene = stage(scoring_hash="other")
    (snapshot,) = rounds_over_the_change(scene)
    assert snapshot.data.sums == {"value": ev.FieldSum(10**7, 1)}
    assert set(snapshot.data.windows_units.values()) == {10**7}
    assert (snapshot.data.scored_count, snapshot.data.rounds_count) == (1, 1)
    closed = scene.only(ev.PeriodClosed).data
    assert (closed.rounds_count, closed.other_scoring_count, closed.asked_before) == (1, 1, [])


def test_sums_continue_over_other_changes():
    scene = stage(deadline_ms=1, ranking_direction="asc")
    (snapshot,) = rounds_over_the_change(scene, 9)
    assert snapshot.data.sums == {"value": ev.FieldSum(16, 2)}
    assert snapshot.data.windows_units["score_recent"] == 7  # of 5, 7 and 9
    closed = scene.only(ev.PeriodClosed).data
    assert (closed.rounds_count, closed.other_scoring_count) == (2, 0)


def test_sums_restart_also_when_an_earlier_scoring_comes_back():
    scene = stage(scoring_hash="other")
    scene.when("scores", configured(contract_hash=HASH, effective_from=CHANGE + HOUR, deadline_ms=2))
    rounds_over_the_change(scene)
    later = CHANGE + HOUR + MINUTE
    scene.when("scores", *round_scores(later, {"m": 3}))
    (snapshot,) = scene.when("scores", scored_until(CHANGE + 2 * HOUR)).all(ev.SnapshotTaken)
    assert set(snapshot.data.windows_units.values()) == {3}


def test_a_release_that_only_changes_the_hash_of_the_same_scoring_changes_no_sum():
    scene = given(SnapshotStage(shelf(DEFAULT)))
    scene.when(
        "scores", configured(), configured(effective_from=CHANGE, scoring_hash="hashed in another way")
    )
    scene.when("scores", *round_scores(CHANGE - HOUR, {"m": 5}), scored_until(CHANGE))
    scene.when("scores", *round_scores(CHANGE + MINUTE, {"m": 7}, resolvable_at=CHANGE + 2 * MINUTE))
    (snapshot,) = scene.when("scores", scored_until(CHANGE + HOUR)).all(ev.SnapshotTaken)
    assert snapshot.data.sums == {"value": ev.FieldSum(7, 1)}
    assert snapshot.data.windows_units["score_recent"] == 6  # of 5 and 7
    assert scene.only(ev.PeriodClosed).data.other_scoring_count == 0


def test_a_period_with_only_rounds_of_the_old_scoring_counts_them_as_such():
    scene = stage(scoring_hash="other")
    scene.when("scores", *round_scores(CHANGE - HOUR, {"m": 5}), scored_until(CHANGE))
    scene.when("scores", *round_scores(CHANGE - MINUTE, {"m": 7}, resolvable_at=CHANGE + 90 * MINUTE))
    scene.when("scores", scored_until(CHANGE + 3 * HOUR))
    assert scene.all(ev.SnapshotTaken) == []
    assert sum(event.data.other_scoring_count for event in scene.all(ev.PeriodClosed)) == 1


def another_score(prediction: Any, ground_truth: Any) -> dict[str, Any]:
    return {"value": prediction.value * ground_truth.return_}


def another_summary(score_results: Any) -> dict[str, Any]:
    return aggregate_snapshot(score_results)


def test_the_meaning_of_a_score_depends_on_code_type_and_field_alone():
    before = scoring_hash(DEFAULT)
    same = {
        "deadline_seconds": 3,
        "min_participation": 0.5,
        "crunch_pubkey": None,
        "aggregate_snapshot": another_summary,
        "score_decimals": 9,
    }
    assert scoring_hash(CrunchContract(**same)) == before
    assert scoring_hash(CrunchContract(score_prediction=another_score)) != before
    assert scoring_hash(CrunchContract(resolve_ground_truth=lambda _records: None)) != before
    assert scoring_hash(CrunchContract(aggregation=Aggregation(value_field="ic"))) != before
