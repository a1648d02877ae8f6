"""A withheld checkpoint that was released: as it was withheld it passes, as another one it is found."""

from __future__ import annotations

import msgspec
import pytest
from tests.given import decision
from tests.streams.build import HASH, T0, checkpoint_data, configured

from coordinator.streams import events as ev
from coordinator.streams.audit.facts import Chain, ChainBrokenError
from coordinator.streams.audit.released import check_release
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
