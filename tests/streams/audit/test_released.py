"""A withheld checkpoint that was released: as it was withheld it passes, as another one it is found."""

from __future__ import annotations

import msgspec
import pytest
from tests.given import decision
from tests.streams.build import HASH, T0, checkpoint_data, configured

from coordinator.streams import events as ev
from coordinator.streams.audit.facts import Chain, ChainBrokenError
from coordinator.streams.audit.released import check_release
from coordinator.streams.audit.sums import check_emission
from coordinator.streams.checkpoints.offering import build_emission
from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.emission import emission_sha256

GOOD = checkpoint_data()
NO_CRUNCH = GOOD.emission | {"crunch": ""}
FAULTY = msgspec.structs.replace(GOOD, emission=NO_CRUNCH, emission_sha256=emission_sha256(NO_CRUNCH))
RICH = msgspec.structs.replace(GOOD.ranking[0], model_id="rich")


def release(withheld, **changes):
    released = msgspec.structs.replace(withheld, **changes)
    held = ev.CheckpointWithheldData(reason="look first", checkpoint=withheld)
    events = [
        configured(),
        ev.CheckpointWithheld(id="withheld", at=T0, data=held),
        ev.CheckpointOpened(id="released", at=T0, data=released),
    ]
    chain = Chain({"checkpoints": [decision("checkpoints", n, [event]) for n, event in enumerate(events)]})
    check_release(chain, chain.checkpoints[released.checkpoint_id])


def test_shares_and_fields_are_those_of_the_contract_and_not_only_equal_to_them():
    """A released emission is the only one that no stage makes again: 1.0 is paid as the program reads it, and is not 1."""
    contract = CrunchContract(crunch_pubkey=GOOD.emission["crunch"])
    built = build_emission(contract, GOOD.ranking, 9, GOOD.period_end).emission
    as_floats = [reward | {"reward_pct": float(reward["reward_pct"])} for reward in built["cruncher_rewards"]]
    for emission, what in [
        (built, ""),
        (built | {"cruncher_rewards": as_floats}, "cruncher_rewards"),
        (built | {"compute_provider_rewards": 0}, "compute_provider_rewards"),
        (built | {"memo": "more"}, "memo"),
    ]:
        data = msgspec.structs.replace(
            GOOD, emission=emission, emission_sha256=emission_sha256(emission), emission_contract_hash=HASH
        )
        events = [configured(), ev.CheckpointOpened(id="opened", at=T0, data=data)]
        chain = Chain(
            {"checkpoints": [decision("checkpoints", n, [event]) for n, event in enumerate(events)]}
        )
        if not what:
            assert "exactly 1,000,000,000" in check_emission(chain, data, lambda _: contract)
            continue
        with pytest.raises(ChainBrokenError, match=what):
            check_emission(chain, data, lambda _: contract)


def mended(**changes):
    fields = {"emission": GOOD.emission, "emission_sha256": GOOD.emission_sha256}
    return fields | {"emission_contract_hash": HASH} | changes


def test_a_checkpoint_passes_that_was_released_as_it_was_or_with_an_emission_that_had_to_be_made_again():
    credit = ev.Credits(correction_id="c", checkpoint_id="ckp_old", reason="x", prizes={"m1": 1})
    release(GOOD, credits=[credit])
    release(FAULTY, **mended())


@pytest.mark.parametrize(
    ("withheld", "changes", "what"),
    [
        (GOOD, {"rehearsal": True}, "rehearsal is true"),
        (GOOD, {"snapshot_count": 7}, "snapshot_count is 7"),
        (GOOD, {"ranking": [RICH]}, "ranking"),
        (GOOD, {"emission_contract_hash": "f" * 64}, "emission_contract_hash"),
        (FAULTY, mended(emission_contract_hash="f" * 64), "which never held"),
        (FAULTY, mended(ranking=[RICH]), "ranking"),
        (FAULTY, {}, "may not be offered: crunch_pubkey"),
    ],
)
def test_a_checkpoint_that_was_released_as_another_is_found(withheld, changes, what):
    with pytest.raises(ChainBrokenError, match=what) as broken:
        release(withheld, **changes)
    assert broken.value.step == "emission"
