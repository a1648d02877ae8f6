"""The checkpoint stage builds checkpoints: which models are paid for a period, by which key, and what is withheld."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from tests.given import Given, given
from tests.streams.build import (
    DAY,
    DEFAULT,
    HOUR,
    PUBKEY,
    T0,
    UNIT,
    configured,
    period_closed,
    shelf,
    snapshot,
)

from coordinator.streams.checkpoints.stage import CheckpointStage
from coordinator.streams.contract import FRAC64_ONE, Calendar, CrunchContract
from coordinator.streams.contract.emission import emission_sha256
from coordinator.streams.events import (
    CheckpointOpened,
    CheckpointWithheld,
    CommandRefused,
    CrunchConfigured,
    FieldSum,
    ReleaseCheckpoint,
    ReleaseCheckpointData,
    SnapshotTaken,
    WithholdCheckpoint,
    WithholdCheckpointData,
)
from coordinator.streams.log import ids
from coordinator.streams.log import stage as stage_module
from coordinator.streams.log.envelope import Need

PERIOD = 6 * HOUR


def stage(contract: CrunchContract = DEFAULT, **changes: Any) -> Given:
    scene = given(CheckpointStage("btc-up", shelf(contract)))
    return scene.when("snapshots", configured(**changes)).then(CrunchConfigured)


def taken(scene: Given, *events: SnapshotTaken) -> Given:
    return scene.when("snapshots", *events).then()


def close(scene: Given, until: int = T0 + PERIOD) -> Given:
    return scene.when("snapshots", period_closed(until - HOUR, until))


def withhold(
    reason: str = "look first", period_at: int | None = None, command_id: str = "w"
) -> WithholdCheckpoint:
    return WithholdCheckpoint(
        id=command_id, at=T0, data=WithholdCheckpointData(reason=reason, period_at=period_at)
    )


def ranking(scene: Given) -> list[tuple[str, int, int]]:
    (event,) = scene.made
    data = event.data if isinstance(event, CheckpointOpened) else event.data.checkpoint
    return [(row.model_id, row.rank, row.key_units) for row in data.ranking]


def test_a_period_in_which_nobody_could_be_ranked_ends_with_an_event():
    scene = stage()
    scene.when("snapshots", period_closed(T0, T0 + HOUR)).then()
    assert scene.drafts == []
    close(scene).then()
    (draft,) = scene.drafts
    assert draft.upto == {"snapshots": (2, 0)}


def test_a_periods_emission_is_by_the_mean_over_the_whole_period():
    scene = stage()
    taken(scene, snapshot("a", T0, 100, n=90), snapshot("b", T0, 50, n=30))
    taken(scene, snapshot("a", T0 + HOUR, -100, n=10), snapshot("b", T0 + HOUR, 90, n=90))
    close(scene).then(CheckpointOpened)
    data = scene.only(CheckpointOpened).data
    assert ranking(scene) == [("a", 1, 80), ("b", 1, 80)]  # (9000 - 1000) / 100 and (1500 + 8100) / 120
    assert data.checkpoint_id == ids.checkpoint_id("btc-up", T0, T0 + PERIOD)
    assert (data.period_start, data.period_end, data.snapshot_count) == (T0, T0 + PERIOD, 4)
    assert data.emission["crunch"] == PUBKEY
    assert [reward["reward_pct"] for reward in data.emission["cruncher_rewards"]] == [FRAC64_ONE // 2] * 2
    assert data.emission_sha256 == emission_sha256(data.emission)
    assert not data.rehearsal
    assert [row.prediction_count for row in data.ranking] == [100, 120]


def test_the_best_of_the_board_gets_the_most():
    """W1 of the peer: with its default settings, 35 % went to the model whose row came first."""
    scene = taken(stage(), *[snapshot(f"m{i:02}", T0, i * 1000) for i in range(12)])
    close(scene)
    data = scene.only(CheckpointOpened).data
    assert [row.model_id for row in data.ranking] == [f"m{i:02}" for i in range(11, -1, -1)]
    paid = {
        data.ranking[reward["cruncher_index"]].model_id: reward["reward_pct"]
        for reward in data.emission["cruncher_rewards"]
    }
    assert paid["m11"] == 350_000_000
    assert len(paid) == 10
    assert sum(paid.values()) == FRAC64_ONE


def test_lower_is_better_where_the_contract_says_so():
    scene = taken(stage(ranking_direction="asc"), snapshot("a", T0, 5), snapshot("b", T0, -5))
    close(scene)
    assert ranking(scene) == [("b", 1, -5), ("a", 2, 5)]


def windows(value: int | None) -> dict[str, int | None]:
    return {"score_recent": value, "score_steady": None, "score_anchor": None}


def test_a_window_is_taken_at_the_end_of_the_period():
    last = T0 + PERIOD - HOUR
    scene = stage(checkpoint_key="score_recent")
    taken(
        scene,
        snapshot("a", T0, 1, windows_units=windows(900)),
        snapshot("gone", T0, 1, windows_units=windows(999)),
    )
    taken(
        scene,
        snapshot("a", last, 1, windows_units=windows(3)),
        snapshot("b", last, 1, windows_units=windows(7)),
    )
    taken(scene, snapshot("empty", last, 1, windows_units=windows(None)))
    close(scene)
    assert ranking(scene) == [("b", 1, 7), ("a", 2, 3)]
    assert scene.only(CheckpointOpened).data.unranked == ["empty", "gone"]


def test_a_summary_key_is_a_mean_weighted_by_scored_predictions():
    scene = stage(checkpoint_key="ic")
    taken(
        scene,
        snapshot("a", T0, 0, n=10, summary_units={"ic": 100}),
        snapshot("b", T0, 0, n=10, summary_units={}),
    )
    taken(
        scene,
        snapshot("a", T0 + HOUR, 0, n=30, summary_units={"ic": 20}),
        snapshot("b", T0 + HOUR, 0, n=1, summary_units={"ic": 60}),
    )
    close(scene)
    assert ranking(scene) == [("b", 1, 60), ("a", 2, 40)]


def test_a_model_without_a_score_is_never_paid():
    """A model that was never scored in the period is unranked, charged or not, whatever its window still contains."""
    scene = stage(absence_policy="zero")
    idle = snapshot(
        "idle", T0, 0, n=0, sums={"value": FieldSum(0, 60)}, absent_model_count=60, charged_count=60
    )
    taken(scene, snapshot("loser", T0, -UNIT), idle, snapshot("old", T0, 0, n=0, windows_units=windows(UNIT)))
    close(scene)
    data = scene.only(CheckpointOpened).data
    assert [row.model_id for row in data.ranking] == ["loser"]
    assert data.unranked == ["idle", "old"]
    assert [reward["reward_pct"] for reward in data.emission["cruncher_rewards"]] == [FRAC64_ONE]


PARTICIPATION = {
    # minimum participation, scored, failed, failed by the node, absent: ranked
    "nothing asked": (0.0, 1, 50, 0, 50, True),
    "enough": (0.5, 50, 25, 0, 25, True),
    "one too few": (0.5, 49, 25, 0, 26, False),
    "all": (1.0, 100, 0, 0, 0, True),
    "all but one": (1.0, 99, 0, 0, 1, False),
    "a share that binary cannot hold": (0.07, 7, 0, 0, 93, True),
    "another": (0.29, 29, 71, 0, 0, True),
    "the node's failures do not count": (0.9, 50, 50, 50, 0, True),
    "the model's own do": (0.9, 50, 50, 44, 0, False),
}


@pytest.mark.parametrize(
    ("share", "scored", "failed", "node", "absent", "ranked"), PARTICIPATION.values(), ids=PARTICIPATION
)
def test_participation(share, scored, failed, node, absent, ranked):
    taken_of_a = snapshot("a", T0, 1, n=scored, failed_count=failed, failed_node_count=node, absent_model_count=absent, absent_node_count=1000)  # fmt: skip
    scene = taken(stage(min_participation=share), taken_of_a, snapshot("b", T0, 0))
    close(scene)
    assert [name for name, _, _ in ranking(scene)] == (["a", "b"] if ranked else ["b"])


def test_a_model_that_left_keeps_its_earnings():
    scene = taken(stage(), snapshot("gone", T0, 9))
    taken(scene, *[snapshot("here", T0 + hour * HOUR, 5) for hour in range(6)])
    close(scene)
    assert ranking(scene) == [("gone", 1, 9), ("here", 2, 5)]


# --- when ------------------------------------------------------------------------------------------------


def test_a_checkpoint_is_built_once_after_its_period():
    scene = taken(stage(), snapshot("a", T0, 1))
    close(scene, T0 + HOUR).then()
    close(scene, T0 + PERIOD - HOUR).then()
    close(scene, T0 + PERIOD).then(CheckpointOpened)
    close(scene, T0 + PERIOD).then()


def test_a_period_without_a_ranked_model_has_no_checkpoint():
    scene = taken(stage(), snapshot("idle", T0, 0, n=0))
    close(scene).then()
    taken(scene, snapshot("a", T0 + PERIOD, 1))
    close(scene, T0 + 2 * PERIOD).then(CheckpointOpened)
    assert scene.only(CheckpointOpened).data.period_start == T0 + PERIOD


def test_many_periods_in_one_decision_are_built_in_order():
    events = []
    for i in range(10):
        events += [
            snapshot("a", T0 + i * PERIOD, i),
            period_closed(T0 + i * PERIOD, T0 + (i + 1) * PERIOD, 1),
        ]
    scene = stage().when("snapshots", *events)
    assert [event.data.period_start for event in scene.all(CheckpointOpened)] == [
        T0 + i * PERIOD for i in range(10)
    ]
    assert [event.data.snapshot_count for event in scene.all(CheckpointOpened)] == [1] * 10
    assert len({event.data.checkpoint_id for event in scene.all(CheckpointOpened)}) == 10


def test_a_run_of_empty_periods_does_not_prevent_the_checkpoint_before_it():
    scene = taken(stage(), snapshot("a", T0, 1))
    scene.when("snapshots", period_closed(T0 + HOUR, T0 + 3 * DAY)).then(CheckpointOpened)
    assert scene.only(CheckpointOpened).data.period_end == T0 + PERIOD


def test_periods_follow_the_terms():
    scene = stage()
    scene.when("snapshots", configured(effective_from=T0 + PERIOD, checkpoint_interval_ms=DAY))
    ends = []
    for hour in range(0, 60, 3):
        scene.when(
            "snapshots",
            snapshot("a", T0 + hour * HOUR, 1),
            period_closed(T0 + hour * HOUR, T0 + (hour + 3) * HOUR),
        )
        ends += [
            ((o.data.period_start - T0) // HOUR, (o.data.period_end - T0) // HOUR)
            for o in scene.all(CheckpointOpened)
        ]
    assert ends == [(0, 6), (6, 24), (24, 48)]


# --- withheld --------------------------------------------------------------------------------------------


def raising(*arguments):
    raise RuntimeError("no budget")


def doubled(entries, pubkey, *providers):
    share = FRAC64_ONE // len(entries)
    return {"crunch": pubkey, "cruncher_rewards": [{"cruncher_index": 0, "reward_pct": share}] * len(entries)}


WITHHELD = {
    "without a key": (CrunchContract(), "crunch_pubkey is not a base58 public key"),
    "a key that is none": (CrunchContract(crunch_pubkey="me"), "crunch_pubkey is not a base58 public key"),
    "the emission raises": (
        CrunchContract(crunch_pubkey=PUBKEY, build_emission=raising),
        "build_emission: RuntimeError: no budget",
    ),
    "the emission is none": (
        CrunchContract(crunch_pubkey=PUBKEY, build_emission=lambda *a: None),
        "build_emission: ValidationError",
    ),
    "the emission does not add up": (
        CrunchContract(
            crunch_pubkey=PUBKEY,
            build_emission=lambda *a: {
                "crunch": PUBKEY,
                "cruncher_rewards": [{"cruncher_index": 0, "reward_pct": 7}],
            },
        ),
        "cruncher rewards sum to 7",
    ),
    "a place is paid twice": (
        CrunchContract(crunch_pubkey=PUBKEY, build_emission=doubled),
        "cruncher_index is no distinct position",
    ),
}


@pytest.mark.parametrize(("contract", "reason"), WITHHELD.values(), ids=WITHHELD)
def test_an_emission_that_may_not_be_offered_is_withheld_with_its_reason(contract, reason):
    scene = taken(stage(contract), snapshot("a", T0, 2), snapshot("b", T0, 1))
    close(scene).then(CheckpointWithheld)
    event = scene.only(CheckpointWithheld)
    assert reason in event.data.reason
    assert [row.model_id for row in event.data.checkpoint.ranking] == ["a", "b"]


def test_the_emission_function_receives_its_arguments():
    seen: list[Any] = []

    def noting(entries, pubkey, compute, data):
        seen.append((entries, pubkey, compute, data))
        return DEFAULT.build_emission(entries, pubkey, compute, data)

    contract = CrunchContract(
        crunch_pubkey=PUBKEY, compute_provider=PUBKEY, data_provider="1" * 32, build_emission=noting
    )
    scene = taken(stage(contract), snapshot("a", T0, UNIT // 2), snapshot("b", T0, UNIT // 4))
    close(scene).then(CheckpointOpened)
    entries, pubkey, compute, data = seen[-1]
    assert (pubkey, compute, data) == (PUBKEY, PUBKEY, "1" * 32)
    assert [(entry["model_id"], entry["rank"], entry["key"], entry["value"]) for entry in entries] == [
        ("a", 1, 0.5, 0.5), ("b", 2, 0.25, 0.25),
    ]  # fmt: skip
    assert entries[0]["prediction_count"] == 60


def test_the_operator_withholds_the_next_checkpoint_and_no_other():
    scene = taken(stage(), snapshot("a", T0, 1))
    scene.when("commands", withhold()).then()
    close(scene).then(CheckpointWithheld)
    assert scene.only(CheckpointWithheld).data.reason == "withheld by command: look first"
    taken(scene, snapshot("a", T0 + PERIOD, 1))
    close(scene, T0 + 2 * PERIOD).then(CheckpointOpened)


def test_the_operator_withholds_the_checkpoint_of_a_given_time():
    scene = stage()
    scene.when("commands", withhold(period_at=T0 + PERIOD)).then()
    for start, kind in (
        (T0, CheckpointOpened),
        (T0 + PERIOD, CheckpointWithheld),
        (T0 + 2 * PERIOD, CheckpointOpened),
    ):
        taken(scene, snapshot("a", start, 1))
        close(scene, start + PERIOD).then(kind)


def test_both_of_two_reasons_are_named():
    scene = taken(stage(CrunchContract()), snapshot("a", T0, 1))
    scene.when("commands", withhold("first"))
    scene.when("commands", withhold("second", period_at=T0, command_id="w2"))
    close(scene)
    reason = scene.only(CheckpointWithheld).data.reason
    assert all(part in reason for part in ("crunch_pubkey", "first", "second"))


def test_a_withhold_command_that_comes_too_late_is_refused_by_name():
    """The checkpoint of that time has been offered. Without a refusal the operator would think the command had worked."""
    scene = taken(stage(), snapshot("a", T0, 1))
    close(scene).then(CheckpointOpened)
    scene.when("commands", withhold(period_at=T0 + HOUR))
    (refused,) = scene.made
    assert (type(refused).__name__, refused.data.http_status, refused.data.state) == (
        "CommandRefused",
        409,
        "PENDING",
    )
    assert refused.data.command_kind == "WithholdCheckpoint"
    assert refused.data.checkpoint_id == ids.checkpoint_id("btc-up", T0, T0 + PERIOD)


def test_a_withhold_command_sent_again_after_it_worked_succeeds():
    scene = taken(stage(), snapshot("a", T0, 1))
    scene.when("commands", withhold(period_at=T0)).then()
    close(scene).then(CheckpointWithheld)
    scene.when("commands", withhold(period_at=T0)).then()


def test_a_past_time_without_a_checkpoint_cannot_be_withheld():
    scene = taken(stage(), snapshot("a", T0 + PERIOD, 1))
    close(scene, T0 + 2 * PERIOD).then(CheckpointOpened)
    scene.when("commands", withhold(period_at=T0))
    assert scene.made[0].data.http_status == 404


# --- rehearsal, need, empties ----------------------------------------------------------------------------


def test_a_period_is_a_rehearsal_if_a_score_that_its_ranking_used_is():
    for key, first, last, expected in (
        ("period", {"rehearsal": True}, {}, True),
        ("period", {}, {}, False),
        ("period", {}, {"rehearsal_windows": ["score_recent"]}, False),
        ("score_recent", {}, {"rehearsal_windows": ["score_recent"]}, True),
        ("score_recent", {"rehearsal_windows": ["score_recent"]}, {}, False),
        ("score_recent", {}, {"rehearsal_windows": ["score_anchor"]}, False),
    ):
        scene = taken(stage(checkpoint_key=key), snapshot("a", T0, 1, **first))
        taken(scene, snapshot("a", T0 + PERIOD - HOUR, 1, **last))
        close(scene)
        assert scene.only(CheckpointOpened).data.rehearsal is expected, (key, first, last)


def test_need_is_the_start_of_the_running_period_and_the_oldest_waiting_command():
    scene = given(CheckpointStage("btc-up", shelf())).at("snapshots", 10).when("snapshots", configured())
    taken(scene, snapshot("a", T0, 1))  # at 11
    taken(scene, snapshot("a", T0 + PERIOD, 1))  # at 12
    scene.at("commands", 5).when("commands", withhold(period_at=T0 + 3 * PERIOD))
    assert scene.drafts[-1].need == {"commands": Need(5)}
    scene.when("commands", withhold(period_at=T0 + 4 * PERIOD, command_id="w2"))
    assert scene.drafts[-1].need == {"commands": Need(5)}
    close(scene)  # at 13
    assert scene.drafts[-1].need == {"snapshots": Need(12, 1, 12)}


def test_a_stage_with_nothing_to_decide_records_its_position_now_and_then(monkeypatch):
    monkeypatch.setattr(stage_module, "EMPTY_DECISION_EVERY", 4)
    scene, empty = stage(), []
    for i in range(12):
        scene.when("snapshots", snapshot("a", T0 + i * 1000, 1))
        empty += [(draft.upto["snapshots"], draft.need["snapshots"].offset) for draft in scene.drafts]
    assert empty == [((4, 0), 1), ((8, 0), 1), ((12, 0), 1)]


def by_calendar(**fields: object) -> Given:
    """Terms of six-hour periods from T0, and a day of a calendar, closed at their end."""
    contract = CrunchContract(crunch_pubkey=PUBKEY)
    day = Calendar(weekday=None, **fields).terms()
    scene = given(CheckpointStage("btc-up", shelf(contract))).when("snapshots", configured(calendar=day))
    scene.when("snapshots", snapshot("a", T0, 2))
    return scene.when("snapshots", period_closed(T0, T0 + DAY))


def moment(time_ms: int) -> datetime:
    return datetime.fromtimestamp(time_ms / 1000, tz=UTC)


def test_a_period_of_the_calendar_is_offered():
    data = by_calendar().only(CheckpointOpened).data
    assert (data.period_start, data.period_end) == (T0, T0 + DAY)


def test_the_last_period_is_shorter_and_no_checkpoint_follows_it():
    data = by_calendar(ends_at=moment(T0 + 2 * HOUR)).only(CheckpointOpened).data
    assert (data.period_start, data.period_end) == (T0, T0 + 2 * HOUR)
    assert by_calendar(ends_at=moment(T0)).made == []


def test_the_warm_up_is_ranked_and_not_paid_and_no_release_pays_it():
    scene = by_calendar(unpaid_until=moment(T0 + HOUR))
    data = scene.only(CheckpointWithheld).data
    assert data.reason.startswith("the period begins in the warm-up")
    assert [row.model_id for row in data.checkpoint.ranking] == ["a"]
    release_data = ReleaseCheckpointData(checkpoint_id=data.checkpoint.checkpoint_id, reason="please")
    refused = scene.when("commands", ReleaseCheckpoint(id="r", at=T0, data=release_data)).only(CommandRefused)
    assert refused.data.reason.startswith("the period begins in the warm-up")
    by_calendar(unpaid_until=moment(T0)).only(CheckpointOpened)
