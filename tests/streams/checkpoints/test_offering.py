"""Rules for offering a checkpoint: each with a case that breaks it. No checkpoint that breaks one is PENDING."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from tests.given import Given, decision, given
from tests.streams.build import (
    HOUR,
    PUBKEY,
    T0,
    UNIT,
    checkpoint_data,
    configured,
    period_closed,
    shelf,
    snapshot,
)

from coordinator.streams import events as ev
from coordinator.streams.addresses import SAMPLE_PUBKEY
from coordinator.streams.checkpoints.offering import NOBODYS, offer_faults
from coordinator.streams.checkpoints.stage import CheckpointStage
from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.emission import emission_sha256
from coordinator.streams.contract.strategies import by_weights, softmax
from coordinator.streams.log import ids
from coordinator.streams.log.envelope import MESSAGE_BYTES_MAX, encode_decision

M = 1_000_000
NOW = T0 + 7 * HOUR


def entry(model_id: str, rank: int = 1, **changes: Any) -> ev.RankedEntry:
    fields = {
        "key_units": UNIT - rank,
        "prediction_count": 60,
        "snapshot_count": 6,
        "result_summary_units": {},
    }
    return ev.RankedEntry(model_id=model_id, rank=rank, **(fields | changes))


def rewards(*shares: int) -> list[dict[str, int]]:
    return [{"cruncher_index": i, "reward_pct": share} for i, share in enumerate(shares)]


def checkpoint(emission: dict[str, Any] | None = None, **changes: Any) -> ev.CheckpointData:
    """A checkpoint that may be offered, apart from the changes."""
    whole = {
        "crunch": PUBKEY,
        "cruncher_rewards": rewards(600 * M, 400 * M),
        "compute_provider_rewards": [],
        "data_provider_rewards": [],
    } | (emission or {})
    fields = {
        "ranking": [entry("a"), entry("b", 2)],
        "emission": whole,
        "emission_sha256": emission_sha256(whole),
    }
    return checkpoint_data(**(fields | changes))


def test_a_checkpoint_that_breaks_no_rule_may_be_offered():
    assert offer_faults(checkpoint(), -1, NOW) == []
    assert offer_faults(checkpoint(), T0, T0 + 6 * HOUR) == []
    tied = [entry("a", key_units=5), entry("b", key_units=5), entry("c", 3)]
    assert offer_faults(checkpoint(ranking=tied), -1, NOW) == []
    fewer = [entry("a"), entry("b", 2), entry("unpaid", 3)]
    assert offer_faults(checkpoint(ranking=fewer), -1, NOW) == []


BROKEN = {
    # rule of the protocol's document: (checkpoint, end of the previous one, now), the fault
    "1 crunch is unset": (checkpoint({"crunch": ""}), "crunch_pubkey is not a base58"),
    "1 crunch is no key": (checkpoint({"crunch": "0x12"}), "crunch_pubkey is not a base58"),
    "2 no rewards": (checkpoint({"cruncher_rewards": []}), "no cruncher rewards"),
    "2 a zero share": (checkpoint({"cruncher_rewards": rewards(1000 * M, 0)}), "a share is not an integer in 1.."),
    "2 a negative share": (checkpoint({"cruncher_rewards": rewards(1005 * M, -5 * M)}), "a share is not an integer in 1.."),
    "2 above the whole": (checkpoint({"cruncher_rewards": rewards(1400 * M)}), "a share is not an integer in 1.."),
    "2 a float": (checkpoint({"cruncher_rewards": rewards(1e9)}), "a share is not an integer in 1.."),  # type: ignore[arg-type]
    "2 one too few": (checkpoint({"cruncher_rewards": rewards(600 * M, 400 * M - 1)}), "sum to 999999999"),
    "2 one too many": (checkpoint({"cruncher_rewards": rewards(600 * M, 400 * M + 1)}), "sum to 1000000001"),
    "3 an index twice": (
        checkpoint({"cruncher_rewards": [{"cruncher_index": 1, "reward_pct": 500 * M}] * 2}),
        "cruncher_index is no distinct position",
    ),
    "3 an index behind the ranking": (
        checkpoint({"cruncher_rewards": rewards(400 * M, 300 * M, 300 * M)}),
        "cruncher_index is no distinct position",
    ),
    "3 more than 16 bits hold": (
        checkpoint(
            {"cruncher_rewards": [{"cruncher_index": 65_536, "reward_pct": 1000 * M}]},
            ranking=[entry(f"m{i:05}", i + 1) for i in range(65_537)],
        ),
        "cruncher_index is no distinct position",
    ),
    "4 a pool that is not shared out": (
        checkpoint({"data_provider_rewards": [{"provider": PUBKEY, "reward_pct": 1}]}),
        "data_provider_rewards do not sum",
    ),
    "4 a provider that is no key": (
        checkpoint({"compute_provider_rewards": [{"provider": "us", "reward_pct": 1000 * M}]}),
        "providers must be distinct public keys",
    ),
    "4 a provider twice": (
        checkpoint({"compute_provider_rewards": [{"provider": PUBKEY, "reward_pct": 500 * M}] * 2}),
        "providers must be distinct public keys",
    ),
    "5 a model without an id": (checkpoint(ranking=[entry("a"), entry("", 2)]), "a ranked model has no id"),
    "5 a model twice": (checkpoint(ranking=[entry("a"), entry("a", 2)]), "ranked more than once: a"),
    "5 ranks begin at 0": (checkpoint(ranking=[entry("a", 0), entry("b")]), "rank 0 of a is not its place"),
    "5 a rank is left out": (checkpoint(ranking=[entry("a"), entry("b", 3)]), "rank 3 of b is not its place"),
    "5 ranks descend": (checkpoint(ranking=[entry("a", 2), entry("b", 1)]), "rank 2 of a is not its place"),
    "5 tied with another key": (
        checkpoint(ranking=[entry("a", key_units=2), entry("b", key_units=1)]), "rank 1 of b is not its place"
    ),
    "5 after a tie the next place": (
        checkpoint(ranking=[entry("a", key_units=2), entry("b", key_units=2), entry("c", 2)]),
        "rank 2 of c is not its place",
    ),
    "5 an ensemble": (
        checkpoint(ranking=[entry("a"), entry("__ensemble_mean__", 2)]), "an ensemble is no participant"
    ),
    "5 never scored": (
        checkpoint(ranking=[entry("a"), entry("idle", 2, prediction_count=0)]), "without a score in the period: idle"
    ),
    "6 no time at all": (checkpoint(period_end=T0), f"the period from {T0} to {T0} ms is none"),
    "6 backwards": (checkpoint(period_start=T0 + 6 * HOUR, period_end=T0), "ms is none"),
    "7 nobody is ranked": (checkpoint({"cruncher_rewards": []}, ranking=[]), "nobody is ranked"),
    "7 no snapshots": (checkpoint(snapshot_count=0), "the period has no snapshots"),
    "8 other bytes than its hash is over": (checkpoint(emission_sha256="0" * 64), "emission_sha256 is not over"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "fault"), BROKEN.values(), ids=BROKEN)
def test_each_rule_has_a_case_that_breaks_it(data, fault):
    faults = offer_faults(data, -1, NOW)
    assert fault in "; ".join(faults)


def test_the_period_rules_compare_the_previous_end_and_the_time():
    assert "before the end of the one before it" in offer_faults(checkpoint(), T0 + 1, NOW)[0]
    assert "later than now" in offer_faults(checkpoint(), -1, T0 + 6 * HOUR - 1)[0]


def test_a_long_list_is_cut():
    silent = [entry(f"m{i}", i + 1, prediction_count=0) for i in range(9)]
    (fault,) = offer_faults(checkpoint(ranking=silent), -1, NOW)
    assert fault == "ranked without a score in the period: m0, m1, m2 and 6 more"


# --- at the stage ----------------------------------------------------------------------------------------


def built(contract: CrunchContract, *snapshots: ev.SnapshotTaken, now: int = T0 + 6 * HOUR) -> Given:
    scene = given(CheckpointStage("btc-up", shelf(contract))).when("snapshots", configured())
    scene.when("snapshots", *snapshots)
    closed = msgspec.structs.replace(period_closed(T0, T0 + 6 * HOUR), at=now)
    return scene.when("snapshots", closed)


def test_a_checkpoint_that_breaks_rules_is_withheld_with_all_reasons():
    contract = CrunchContract(crunch_pubkey="nobody", compute_provider="us")
    scene = built(contract, snapshot("a", T0, 2), now=T0)
    reason = scene.only(ev.CheckpointWithheld).data.reason
    assert all(part in reason for part in ("crunch_pubkey", "compute_provider_rewards", "later than now"))


def test_author_weights_that_are_not_finite_withhold_the_checkpoint():
    contract = CrunchContract(
        crunch_pubkey=PUBKEY, build_emission=by_weights(lambda ranked: [float("nan")] * len(ranked))
    )
    scene = built(contract, snapshot("a", T0, 2))
    assert "weight 0 is no finite number: nan" in scene.only(ev.CheckpointWithheld).data.reason


def test_an_id_depends_on_crunch_and_period_alone():
    """Not on the payees, the contract or the position in the log."""
    checkpoints = [
        built(CrunchContract(crunch_pubkey=PUBKEY), snapshot("a", T0, 2)).only(ev.CheckpointOpened).data,
        built(CrunchContract(), snapshot("b", T0, 1)).only(ev.CheckpointWithheld).data.checkpoint,
    ]
    assert {checkpoint.checkpoint_id for checkpoint in checkpoints} == {
        ids.checkpoint_id("btc-up", T0, T0 + 6 * HOUR)
    }
    others = [("eth-up", T0, T0 + 6 * HOUR), ("btc-up", T0, T0 + HOUR), ("btc-up", T0 + HOUR, T0 + 6 * HOUR)]
    assert len({ids.checkpoint_id(*arguments) for arguments in others} | {checkpoints[0].checkpoint_id}) == 4


def test_an_ensemble_is_not_on_the_chain():
    scene = built(
        CrunchContract(crunch_pubkey=PUBKEY), snapshot("a", T0, 2), snapshot("__ensemble_mean__", T0, 9)
    )
    data = scene.only(ev.CheckpointOpened).data
    assert [row.model_id for row in data.ranking] == ["a"]
    assert data.unranked == ["__ensemble_mean__"]


def test_ten_thousand_models_are_offered_in_one_record():
    contract = CrunchContract(crunch_pubkey=PUBKEY, build_emission=softmax(0))
    stage = CheckpointStage("btc-up", shelf(contract))
    shown = [snapshot(f"model-{i:05}", T0, i) for i in range(10_000)]
    for offset, events in enumerate(([configured()], shown, [period_closed(T0, T0 + 6 * HOUR)])):
        stage.absorb(decision("snapshots", offset, events))
        while (draft := stage.step()) is not None:
            last = draft
    (event,) = last.events
    assert isinstance(event, ev.CheckpointOpened)
    assert sum(reward["reward_pct"] for reward in event.data.emission["cruncher_rewards"]) == 1000 * M
    (record,) = encode_decision(last.events, epoch=1, seq=1, upto={}, need={})
    assert len(record) < MESSAGE_BYTES_MAX


def test_commands_of_other_stages_are_passed_over():
    """A backfill delivers its records by command, and the checkpoint stage has nothing to decide about them."""
    record = ev.RecordFeedData(
        source="binance", subject="BTCUSDT", kind="candle", granularity="1m", records=[]
    )
    ban = ev.BanModelData(model_id="a", reason="copied")
    scene = given(CheckpointStage("btc-up", shelf())).when("snapshots", configured())
    for command in (ev.RecordFeed(id="r", at=T0, data=record), ev.BanModel(id="b", at=T0, data=ban)):
        assert scene.when("commands", command).made == []
        assert len(scene.drafts) == 1  # decided all the same, so that its sender gets an answer


def test_the_placeholder_is_no_valid_crunch_address_except_in_a_rehearsal():
    for rehearsal, faults in ((False, [NOBODYS]), (True, [])):
        data = checkpoint({"crunch": SAMPLE_PUBKEY}, rehearsal=rehearsal)
        assert offer_faults(data, -1, NOW) == faults
