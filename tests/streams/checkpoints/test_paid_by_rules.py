"""A checkpoint that is paid by rules states the retained amount, and is offered only if the contract says who receives
it.
"""

from __future__ import annotations

import msgspec
import pytest
from tests.given import Given, given
from tests.streams.build import HASH, HOUR, PUBKEY, T0, configured, period_closed, shelf, snapshot

from coordinator.streams import events as ev
from coordinator.streams.checkpoints.stage import CheckpointStage
from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.payout import Payout, Pool, Taker
from coordinator.streams.contract.payout_rules import top

M = 1_000_000


def contract(**fields: object) -> CrunchContract:
    """Four places of equal weight."""
    pools = [Pool(name="all", rule=top(4, alpha=0))]
    return CrunchContract(crunch_pubkey=PUBKEY, payout=Payout(pools=pools, **fields))


def snapshots() -> list[ev.SnapshotTaken]:
    """Three models of two players."""
    whose = {"a": "alice", "b": "bob", "c": "alice"}
    return [
        msgspec.structs.replace(
            event,
            data=msgspec.structs.replace(event.data, cruncher_id=whose[event.data.model_id], first_point=T0),
        )
        for event in (snapshot("a", T0, 3), snapshot("b", T0, 2), snapshot("c", T0, 1))
    ]


def built(of: CrunchContract, **later: CrunchContract) -> Given:
    stage = CheckpointStage("btc-up", lambda name: later.get(name, of))
    scene = given(stage).when("snapshots", configured())
    scene.when("snapshots", *snapshots())
    return scene.when("snapshots", period_closed(T0, T0 + 6 * HOUR))


def shares(data: ev.CheckpointData) -> dict[str, int]:
    return {
        data.ranking[reward["cruncher_index"]].model_id: reward["reward_pct"]
        for reward in data.emission["cruncher_rewards"]
    }


def test_a_retained_share_without_a_recipient_withholds_the_checkpoint():
    data = built(contract()).only(ev.CheckpointWithheld).data
    assert data.reason == (
        "250000000 of 1000000000 is retained by the rules of payout, and on chain all must be given out: "
        "the contract does not say who takes it (payout.retained)"
    )
    assert data.checkpoint.payout.retained_is == "withheld"
    assert shares(data.checkpoint) == {"a": 250 * M, "b": 250 * M, "c": 250 * M}


OFFERED = {
    "whoever is paid": ("share_out", {"a": 333_333_334, "b": 333_333_333, "c": 333_333_333}, "shared_out"),
    "a model": (Taker(model_id="c"), {"a": 250 * M, "b": 250 * M, "c": 500 * M}, "taken"),
    "nobody, by prizes only": ("prizes_only", {"a": 250 * M, "b": 250 * M, "c": 250 * M}, "left"),
}


@pytest.mark.parametrize(("retained", "wanted", "is_"), OFFERED.values(), ids=OFFERED)
def test_it_is_offered_if_the_contract_names_the_recipient_of_the_retained_share(retained, wanted, is_):
    data = built(contract(retained=retained)).only(ev.CheckpointOpened).data
    assert (shares(data), data.payout.retained_frac64, data.payout.retained_is) == (wanted, 250 * M, is_)


def test_a_payout_that_retains_nothing_needs_no_recipient():
    pools = [Pool(name="all", rule=top(3, alpha=0))]
    data = (
        built(CrunchContract(crunch_pubkey=PUBKEY, payout=Payout(pools=pools))).only(ev.CheckpointOpened).data
    )
    assert (data.payout.retained_frac64, data.payout.retained_is) == (0, "none")


def test_entries_have_their_player():
    data = built(contract(best_model_only=True, retained="share_out")).only(ev.CheckpointOpened).data
    assert shares(data) == {"a": 500 * M, "b": 500 * M}
    assert data.payout.pools[0].unpaid == {"another model of its player is better": [2]}
    assert [(row.cruncher_id, row.first_point) for row in data.ranking] == [
        ("alice", T0),
        ("bob", T0),
        ("alice", T0),
    ]


def test_entries_have_the_time_since_their_player_takes_part():
    young = built(contract(warm_up_hours=7, retained="prizes_only"))
    assert "no cruncher rewards" in young.only(ev.CheckpointWithheld).data.reason
    old = built(contract(warm_up_hours=6, retained="prizes_only"))
    assert len(shares(old.only(ev.CheckpointOpened).data)) == 3


def test_a_corrected_contract_releases_it():
    scene = built(contract(), mended=contract(retained=Taker(model_id="b")))
    the_id = scene.only(ev.CheckpointWithheld).data.checkpoint.checkpoint_id
    release = ev.ReleaseCheckpoint(
        id="r", at=T0, data=ev.ReleaseCheckpointData(checkpoint_id=the_id, reason="")
    )
    assert scene.when("commands", release).only(ev.CommandRefused).data.reason.startswith("250000000 of")
    scene.when("snapshots", configured(contract_hash="mended", effective_from=T0 + 6 * HOUR))
    again = msgspec.structs.replace(release, id="r2")
    data = scene.when("commands", again).only(ev.CheckpointOpened).data
    assert (shares(data), data.emission_contract_hash) == (
        {"a": 250 * M, "b": 500 * M, "c": 250 * M},
        "mended",
    )
    assert data.payout.retained_is == "taken"


def test_a_rule_that_raises_withholds_with_its_message():
    broken = Payout(pools=[Pool(name="all", rule=lambda entries: 1 / 0)])
    data = built(CrunchContract(crunch_pubkey=PUBKEY, payout=broken)).only(ev.CheckpointWithheld).data
    assert "payout: ZeroDivisionError" in data.reason


def test_the_same_snapshots_make_the_same_payout_whatever_their_order():
    of = contract(retained="share_out")
    scene = given(CheckpointStage("btc-up", shelf(of))).when("snapshots", configured())
    scene.when("snapshots", *reversed(snapshots()))
    scene.when("snapshots", period_closed(T0, T0 + 6 * HOUR))
    assert scene.only(ev.CheckpointOpened).data == built(of).only(ev.CheckpointOpened).data
    assert scene.only(ev.CheckpointOpened).data.contract_hash == HASH
