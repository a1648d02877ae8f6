"""The node's own invariants: they hold over a whole log in any order, and each one broken on purpose is found and
named.
"""

from __future__ import annotations

import random

import msgspec
import pytest
from tests.logs import HOUR_MS, MINUTE_MS, START_MS, TX_HASH, UNIT, LogBuilder, fold_into, folded

from coordinator.projections.folding.decisions import Folder
from coordinator.projections.views.all_views import open_projections
from coordinator.streams import events as ev
from coordinator.streams.log.envelope import Append, encode_append

ANSWERS = {"m1": 0.5, "m2": "ABSENT", "m3": "FAILED", "m4": "UNSCORABLE"}


def a_log() -> LogBuilder:
    """Rounds with every outcome, periods in order, two checkpoints."""
    log = LogBuilder()
    log.terms()
    for minute in range(6):
        log.round(minute * MINUTE_MS, ANSWERS)
    for hour in range(3):
        log.snapshot("m1", START_MS + hour * HOUR_MS, START_MS + (hour + 1) * HOUR_MS)
    log.checkpoint(0, {"m1": 625_000_000, "m2": 375_000_000})
    log.checkpoint(6 * HOUR_MS, {"m1": 1_000_000_000}, withheld="look first")
    return log


def findings(log, tmp_path):
    read = folded(log, tmp_path)
    by_name = {finding.name: finding for finding in read.checks.findings()}
    read.close()
    return by_name


def broken(log, tmp_path):
    return {name: finding.detail for name, finding in findings(log, tmp_path).items() if not finding.ok}


def submitted(checkpoint_id, tx_hash=TX_HASH):
    data = ev.CheckpointSubmittedData(checkpoint_id=checkpoint_id, tx_hash=tx_hash, command_id="c")
    return ev.CheckpointSubmitted(id=f"{checkpoint_id}:submitted", at=START_MS, data=data)


def test_a_sound_log_passes_with_its_numbers(tmp_path):
    log = a_log()
    log.round(10 * MINUTE_MS, ANSWERS, scored=False)
    by_name = findings(log, tmp_path)
    assert all(finding.ok for finding in by_name.values()), by_name
    counts = by_name["predictions"].counts
    assert counts == {
        "opened": 28,
        "scored": 6,
        "failed": 12,
        "absent": 6,
        "replaced": 0,
        "pending": 4,
        "broken": 0,
    }


def test_a_running_round_is_pending_as_a_whole(tmp_path):
    log = a_log()
    log.append("predictions", log._opened("inp/BTCUSDT/1", START_MS, ["m1", "m2"], ["60s", "300s"]))
    assert findings(log, tmp_path)["predictions"].counts["pending"] == 4
    assert broken(log, tmp_path / "again") == {}


@pytest.mark.parametrize("seed", range(5))
def test_the_sums_hold_at_every_moment_of_any_interleaving(tmp_path, seed):
    log = a_log()
    rng = random.Random(seed)
    order = [topic for topic, records in log.records.items() if topic != "commands" for _ in records]
    rng.shuffle(order)
    (checks,) = open_projections(tmp_path, "cluster", log.crunch_id, ["checks"])
    folder = Folder([checks])
    places = dict.fromkeys(folder.readers, 0)
    for topic in order:
        if topic in places:
            folder.fold(topic, places[topic], log.records[topic][places[topic]])
            places[topic] += 1
            folder.commit()
            assert all(finding.ok for finding in checks.findings()), topic
    assert checks.findings()[0].counts["pending"] == 0
    checks.store.close()


# --- each broken once on purpose ---------------------------------------------------------------------------


def test_a_prediction_that_was_asked_and_not_recorded_is_found(tmp_path):
    log = a_log()
    lost = log._answers("inp/BTCUSDT/9", "60s", START_MS, {"m1": 0.5})
    log.append("predictions", log._opened("inp/BTCUSDT/9", START_MS, ["m1", "m2"], ["60s"]))
    log.append("predictions", *lost)
    assert "2 were asked, 1 are recorded" in broken(log, tmp_path)["predictions"]


@pytest.mark.parametrize("scores_first", [True, False])
def test_a_prediction_that_lost_its_score_is_found(tmp_path, scores_first):
    log = a_log()
    point = START_MS + 20 * MINUTE_MS
    input_id = log.round(20 * MINUTE_MS, ANSWERS, scored=False)
    less = {"m1": 0.5, "m2": "ABSENT", "m3": "FAILED"}
    log.append("scores", *log._scores(input_id, "BTCUSDT", "60s", point, 60, less, {}, {}))
    projections = open_projections(tmp_path, "cluster", log.crunch_id, ["checks"])
    order = [t for t in ("scores", "predictions") for _ in log.records[t]]
    fold_into(Folder(projections), log, order if scores_first else order[::-1])
    (checks,) = projections
    finding = checks.findings()[0]
    assert not finding.ok
    assert input_id in finding.detail
    rows = list(checks.store.scan(b"B"))
    checks.store.close()
    assert len(rows) == 1


def test_a_status_that_differs_from_the_events_is_found(tmp_path):
    log = a_log()
    point = START_MS + 20 * MINUTE_MS
    input_id = log.round(20 * MINUTE_MS, {"m1": 0.5, "m2": 0.5}, scored=False)
    (scored,) = log._scores(input_id, "BTCUSDT", "60s", point, 60, {"m1": 0.5, "m2": 0.5}, {}, {})
    lost = msgspec.structs.replace(scored.data, units={"value": [None, UNIT // 2]})
    log.append("scores", msgspec.structs.replace(scored, data=lost))  # one of the two scores is missing
    assert "closed as scored 2" in broken(log, tmp_path)["predictions"]


def test_rewards_with_a_wrong_sum_are_found(tmp_path):
    log = a_log()
    log.checkpoint(12 * HOUR_MS, {"m1": 999_999_999})
    assert "sum to 999999999" in broken(log, tmp_path)["rewards"]


def test_an_emission_that_differs_from_the_hashed_one_is_found(tmp_path):
    log = a_log()
    data = msgspec.structs.replace(
        log.checkpoint_data(12 * HOUR_MS, {"m1": 1_000_000_000}), emission_sha256="0" * 64
    )
    log.append("checkpoints", ev.CheckpointOpened(id="x", at=START_MS, data=data))
    assert "not the one that was hashed" in broken(log, tmp_path)["rewards"]


def test_a_gap_between_periods_is_found(tmp_path):
    log = a_log()
    log.snapshot("m1", START_MS + 4 * HOUR_MS, START_MS + 5 * HOUR_MS)
    assert f"follows one that ended at {START_MS + 3 * HOUR_MS}" in broken(log, tmp_path)["periods"]


def test_two_checkpoints_over_one_time_are_found(tmp_path):
    log = a_log()
    log.checkpoint(9 * HOUR_MS, {"m1": 1_000_000_000})
    assert "the one before ended" in broken(log, tmp_path)["periods"]


def test_a_checkpoint_offered_twice_is_found_and_a_release_is_accepted(tmp_path):
    log = a_log()
    log.checkpoint(6 * HOUR_MS, {"m1": 1_000_000_000})  # it had been withheld
    assert broken(log, tmp_path / "released") == {}
    log.checkpoint(6 * HOUR_MS, {"m1": 1_000_000_000})
    assert "a second time" in broken(log, tmp_path)["settlements"]


def paid(checkpoint_id):
    where = {"checkpoint_id": checkpoint_id, "command_id": "c"}
    return [
        submitted(checkpoint_id),
        ev.CheckpointClaimable(
            id=f"{checkpoint_id}:claimable", at=START_MS, data=ev.CheckpointAdvancedData(**where)
        ),
        ev.CheckpointPaid(id=f"{checkpoint_id}:paid", at=START_MS, data=ev.CheckpointAdvancedData(**where)),
    ]


def the_same(log):
    log.checkpoint(0, {"m1": 1_000_000_000})


def the_same_withheld(log):
    log.checkpoint(0, {"m1": 1_000_000_000}, withheld="somebody asked")


def of_another_id(log):
    data = msgspec.structs.replace(log.checkpoint_data(0, {"m2": 1_000_000_000}), checkpoint_id="ckp_other")
    log.append("checkpoints", ev.CheckpointOpened(id="ckp_other/opened", at=START_MS, data=data))


def of_a_part_of_the_period(log):
    data = log.checkpoint_data(0, {"m2": 1_000_000_000})
    data = msgspec.structs.replace(data, checkpoint_id="ckp_part", period_start=data.period_end - HOUR_MS)
    log.append("checkpoints", ev.CheckpointOpened(id="ckp_part/opened", at=START_MS, data=data))


@pytest.mark.parametrize("between", [0, 40], ids=["next", "far apart"])
@pytest.mark.parametrize("again", [the_same, the_same_withheld, of_another_id, of_a_part_of_the_period])
@pytest.mark.parametrize("is_paid", [False, True], ids=["pending", "paid"])
def test_a_second_checkpoint_of_one_period_is_found_wherever_it_is_in_the_log(
    tmp_path, between, again, is_paid
):
    log = LogBuilder()
    log.terms()
    first = log.checkpoint(0, {"m1": 1_000_000_000})
    if is_paid:
        log.append("checkpoints", *paid(first))
    for number in range(1, between + 1):
        log.checkpoint(number * 6 * HOUR_MS, {"m1": 1_000_000_000})
    (checks,) = open_projections(tmp_path, "cluster", log.crunch_id, ["checks"])
    folder = Folder([checks])
    fold_into(folder, log)
    assert all(finding.ok for finding in checks.findings())
    again(log)
    fold_into(folder, log)
    assert not all(finding.ok for finding in checks.findings())
    checks.store.close()


def test_a_transaction_that_pays_two_checkpoints_is_found(tmp_path):
    log = a_log()
    log.append("checkpoints", submitted("ckp_1"))
    assert broken(log, tmp_path / "once") == {}
    log.append("checkpoints", submitted("ckp_2"))
    assert "was used for ckp_1 before" in broken(log, tmp_path)["settlements"]


def test_a_broken_invariant_is_still_reported_after_a_restart(tmp_path):
    log = a_log()
    log.checkpoint(12 * HOUR_MS, {"m1": 999_999_999})
    folded(log, tmp_path).close()
    again = folded(log, tmp_path)
    assert [finding.name for finding in again.checks.findings() if not finding.ok] == ["rewards"]
    again.close()


def test_an_owner_that_skips_a_number_is_reported_until_the_next_claim(tmp_path):
    log = a_log()
    (checks,) = open_projections(tmp_path, "cluster", log.crunch_id, ["checks"])
    folder = Folder([checks])
    fold_into(folder, log)
    reader = folder.readers["scores"]
    assert reader.hole == ""
    skipped = Append(e=1, epoch=1, seq=log._seqs["scores"] + 2, part=(1, 1), events=msgspec.Raw(b"[]"))
    log.records["scores"].append(encode_append(skipped))
    fold_into(folder, log)
    assert f"holds decision {skipped.seq}, but {skipped.seq - 1} is missing" in reader.hole
    log.records["scores"].append(encode_append(Append(e=1, epoch=2, seq=0, claim="next")))
    fold_into(folder, log)
    assert reader.hole == ""
    checks.store.close()


def paid_by_rules(retained_parts: int, retained_frac64: int) -> LogBuilder:
    """Two models share what one pool does not retain, and the contract pays by prizes only."""
    log = a_log()
    part = (10**18 - retained_parts) // 2
    pool = ev.PoolPaid(name="all", weight=1, paid=[(0, 1, part), (1, 1, part)], retained_parts=retained_parts)
    payout = ev.PayoutData(pools=[pool], retained_frac64=retained_frac64, retained_is="left")
    log.checkpoint(12 * HOUR_MS, {"m1": 450_000_000, "m2": 450_000_000}, payout=payout)
    return log


def test_a_share_retained_by_the_rules_is_no_broken_sum_and_a_false_statement_of_it_is(tmp_path):
    assert "rewards" not in broken(paid_by_rules(10**17, 100_000_000), tmp_path / "honest")
    details = broken(paid_by_rules(2 * 10**17, 100_000_000), tmp_path / "false")
    assert "the pools do not leave what the payout says is retained" in details["rewards"]
