"""Commands to the checkpoint stage: every status against every command, repeated commands, refused hashes, rehearsals."""

from __future__ import annotations

from typing import Any

import pytest
from tests.given import Given, given
from tests.streams.build import (
    DEFAULT,
    HASH,
    HOUR,
    PUBKEY,
    T0,
    TX_A,
    TX_B,
    checkpoint_data,
    configured,
    period_closed,
    shelf,
    snapshot,
    tick,
)

from coordinator.streams import events as ev
from coordinator.streams.checkpoints.stage import CheckpointStage
from coordinator.streams.contract import FRAC64_ONE, CrunchContract
from coordinator.streams.contract.emission import emission_sha256
from coordinator.streams.contract.strategies import softmax
from coordinator.streams.log import ids
from coordinator.streams.log.errors import IllegalTransitionError

CKP = ids.checkpoint_id("btc-up", T0, T0 + 6 * HOUR)
OTHER = ids.checkpoint_id("btc-up", T0 + 6 * HOUR, T0 + 12 * HOUR)
EMPTY = {"crunch": "", "cruncher_rewards": [], "compute_provider_rewards": [], "data_provider_rewards": []}
STATUSES = ("WITHHELD", "PENDING", "SUBMITTED", "CLAIMABLE", "PAID")


def history(status: str, *, rehearsal: bool = False, start: int = T0, tx_hash: str = TX_A) -> list[ev.Event]:
    """The stage's own events that bring a checkpoint to a status."""
    data = checkpoint_data(start=start, rehearsal=rehearsal)
    the_id = data.checkpoint_id
    if status == "WITHHELD":
        withheld = ev.CheckpointWithheldData(reason="look first", checkpoint=data)
        return [ev.CheckpointWithheld(id=f"{the_id}:withheld", at=T0, data=withheld)]
    moved = ev.CheckpointAdvancedData(checkpoint_id=the_id, command_id="c")
    sent = ev.CheckpointSubmittedData(checkpoint_id=the_id, tx_hash=tx_hash, command_id="c")
    events: list[ev.Event] = [
        ev.CheckpointOpened(id=f"{the_id}:opened", at=T0, data=data),
        ev.CheckpointSubmitted(id=f"{the_id}:submitted", at=T0, data=sent),
        ev.CheckpointClaimable(id=f"{the_id}:claimable", at=T0, data=moved),
        ev.CheckpointPaid(id=f"{the_id}:paid", at=T0, data=moved),
    ]
    return events[: STATUSES.index(status)]


def failed(tx_hash: str = TX_A, reason: str = "expired") -> ev.CheckpointSubmissionFailed:
    data = ev.CheckpointSubmissionFailedData(
        checkpoint_id=CKP, tx_hash=tx_hash, reason=reason, command_id="c"
    )
    return ev.CheckpointSubmissionFailed(id=f"{CKP}:failed", at=T0, data=data)


def stage(*past: ev.Event, contract: CrunchContract = DEFAULT, settle: bool = False) -> Given:
    scene = given(CheckpointStage("btc-up", shelf(contract), settle_rehearsals=settle))
    return scene.own(configured()).own(*past) if past else scene.own(configured())


def confirm(tx_hash: str = TX_A, checkpoint_id: str = CKP) -> ev.ConfirmCheckpoint:
    data = ev.ConfirmCheckpointData(checkpoint_id=checkpoint_id, tx_hash=tx_hash)
    return ev.ConfirmCheckpoint(id=f"confirm-{tx_hash[-1:]}", at=T0 + 1, data=data)


def advance(status: str, checkpoint_id: str = CKP, tx_hash: str = TX_A) -> ev.AdvanceCheckpoint:
    data = ev.AdvanceCheckpointData(checkpoint_id=checkpoint_id, status=status, tx_hash=tx_hash)
    return ev.AdvanceCheckpoint(id=f"advance-{status}", at=T0 + 1, data=data)


def release(checkpoint_id: str = CKP) -> ev.ReleaseCheckpoint:
    return ev.ReleaseCheckpoint(
        id="release", at=T0 + 1, data=ev.ReleaseCheckpointData(checkpoint_id=checkpoint_id)
    )


def fail(tx_hash: str = TX_A, checkpoint_id: str = CKP) -> ev.FailCheckpointSubmission:
    data = ev.FailCheckpointSubmissionData(checkpoint_id=checkpoint_id, tx_hash=tx_hash, reason="expired")
    return ev.FailCheckpointSubmission(id="fail", at=T0 + 1, data=data)


def outcome(scene: Given, command: ev.Event) -> tuple[str, int]:
    """(event made, or "nothing"; HTTP status of a refusal) of a command. A command is always one decision."""
    scene.when("commands", command)
    assert len(scene.drafts) == 1
    assert len(scene.made) <= 1
    if not scene.made:
        return "nothing", 200
    event = scene.made[0]
    if isinstance(event, ev.CommandRefused):
        assert event.data.command_id == command.id
        assert event.data.command_kind == type(command).__name__
        assert event.data.reason
        return "refused", event.data.http_status
    return type(event).__name__, 200


OK, NO, DONE = 200, ("refused", 409), ("nothing", 200)
SUBMITS, CLAIMS = ("CheckpointSubmitted", OK), ("CheckpointClaimable", OK)
PAYS, FAILS, RELEASES = ("CheckpointPaid", OK), ("CheckpointSubmissionFailed", OK), ("CheckpointOpened", OK)
COMMANDS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    #                                WITHHELD, PENDING, SUBMITTED, CLAIMABLE, PAID
    "confirm": (confirm(), (NO, SUBMITS, DONE, DONE, DONE)),
    "confirm with another hash": (confirm(TX_B), (NO, SUBMITS, NO, NO, NO)),
    "to CLAIMABLE": (advance("CLAIMABLE"), (NO, NO, CLAIMS, DONE, NO)),
    "to PAID": (advance("PAID"), (NO, NO, NO, PAYS, DONE)),
    "to PENDING": (advance("PENDING"), (NO, DONE, NO, NO, NO)),
    "to SUBMITTED": (advance("SUBMITTED"), (NO, NO, DONE, NO, NO)),
    "to WITHHELD": (advance("WITHHELD"), (DONE, NO, NO, NO, NO)),
    "to nowhere": (advance("REFUNDED"), (("refused", 422),) * 5),
    "release": (release(), (RELEASES, NO, NO, NO, NO)),
    "its transaction failed": (fail(), (NO, NO, FAILS, NO, NO)),
    "another transaction failed": (fail(TX_B), (NO, NO, NO, NO, NO)),
    "an empty transaction failed": (fail(""), (NO, NO, NO, NO, NO)),
    "confirm with no hash": (confirm(""), (("refused", 422),) * 5),
    "confirm with 63 bytes": (confirm("1" * 63), (("refused", 422),) * 5),
    "confirm with 65 bytes": (confirm("1" * 65), (("refused", 422),) * 5),
    "confirm with letters that base58 lacks": (confirm("0" * 64), (("refused", 422),) * 5),
    "confirm with a megabyte": (confirm("1" * 1_000_000), (("refused", 422),) * 5),
    "an event that is no command": (tick(T0), (("refused", 422),) * 5),
}
TABLE = [
    (name, status, command, expected)
    for name, (command, row) in COMMANDS.items()
    for status, expected in zip(STATUSES, row, strict=True)
]


@pytest.mark.parametrize(
    ("name", "status", "command", "expected"), TABLE, ids=[f"{t[0]}, {t[1]}" for t in TABLE]
)
def test_every_status_against_every_command(name, status, command, expected):
    scene = stage(*history(status))
    assert outcome(scene, command) == expected
    if expected[0] == "refused":
        assert outcome(stage(*history(status)), command) == expected  # a refused command changes nothing
        assert scene.only(ev.CommandRefused).data.state == (
            status if name != "an event that is no command" else ""
        )


@pytest.mark.parametrize(
    "command", [confirm(), advance("PAID"), release(), fail()], ids=lambda command: command.id
)
def test_a_checkpoint_that_does_not_exist(command):
    assert outcome(stage(), command) == ("refused", 404)


@pytest.mark.parametrize(
    ("status", "command"),
    [
        ("PENDING", confirm()),
        ("SUBMITTED", advance("CLAIMABLE")),
        ("CLAIMABLE", advance("PAID")),
        ("SUBMITTED", fail()),
        ("WITHHELD", release()),
    ],
)
def test_repeating_a_command_is_safe(status, command):
    scene = stage(*history(status))
    assert outcome(scene, command)[1] == OK
    assert outcome(scene, command) == DONE
    assert outcome(scene, command) == DONE


@pytest.mark.parametrize("wanted", ["CLAIMABLE", "PAID"])
@pytest.mark.parametrize("seen", ["", TX_A])
def test_a_late_observation_of_one_transaction_does_not_move_its_successor(wanted, seen):
    """The first transaction failed and another was recorded in its place. Only then an observation of the first one
    arrived.
    """
    for status in ("SUBMITTED", "CLAIMABLE", "PAID"):
        scene = stage(*history(status, tx_hash=TX_B))
        assert outcome(scene, advance(wanted, tx_hash=seen)) == NO
        assert TX_B in scene.only(ev.CommandRefused).data.reason


def test_a_checkpoint_goes_all_the_way_to_paid():
    scene = stage(*history("WITHHELD"))
    commands = [release(), confirm(), advance("CLAIMABLE"), advance("PAID")]
    assert [outcome(scene, command)[0] for command in commands] == [
        "CheckpointOpened", "CheckpointSubmitted", "CheckpointClaimable", "CheckpointPaid",
    ]  # fmt: skip
    assert scene.stage.settlements.states[CKP].status == "PAID"


def test_only_what_commands_still_need_of_a_paid_checkpoint_is_kept():
    """Otherwise rankings and emissions of all past periods would be the largest part of the state."""
    scene = stage(*history("PAID"))
    state = scene.stage.settlements.states[CKP]
    assert (state.status, state.data, state.payees, state.tx_hash) == ("PAID", None, {}, TX_A)
    data = ev.WithholdCheckpointData(reason="late", period_at=state.period_start)
    assert outcome(scene, ev.WithholdCheckpoint(id="w", at=T0 + 1, data=data)) == NO
    other = checkpoint_data(checkpoint_id="ckp_other", period_end=state.period_end + 1)
    scene.own(ev.CheckpointOpened(id="o", at=T0, data=other))
    assert outcome(scene, confirm(TX_A, "ckp_other")) == NO
    assert outcome(scene, confirm(TX_B, "ckp_other")) == SUBMITS


def test_a_hash_whose_transaction_failed_stays_refused_and_another_is_accepted():
    scene = stage(*history("SUBMITTED"), failed())
    assert outcome(scene, confirm(TX_A)) == NO
    assert "used" in scene.only(ev.CommandRefused).data.reason
    assert outcome(scene, confirm(TX_B)) == SUBMITS
    assert outcome(scene, fail(TX_A)) == DONE  # the old failure is reported again
    assert outcome(scene, fail(TX_B)) == FAILS
    assert outcome(scene, confirm(TX_B)) == NO


def test_a_checkpoint_is_never_offered_again_while_a_settlement_may_be_under_way():
    scene = stage(*history("SUBMITTED"))
    for command in (release(), confirm(TX_B), advance("PENDING")):
        assert outcome(scene, command) == NO


@pytest.mark.parametrize("where", ["in use", "failed"])
def test_a_transaction_pays_only_one_checkpoint(where):
    past = [
        *history("SUBMITTED"),
        *([failed()] if where == "failed" else []),
        *history("PENDING", start=T0 + 6 * HOUR),
    ]
    assert outcome(stage(*past), confirm(TX_A, OTHER)) == NO


def test_a_refusal_tells_the_right_command():
    scene = stage(*history("PENDING"))
    outcome(scene, advance("SUBMITTED"))
    assert "confirm with a tx_hash" in scene.only(ev.CommandRefused).data.reason
    outcome(scene, advance("PAID"))
    assert "CheckpointPaid is not legal in state PENDING" in scene.only(ev.CommandRefused).data.reason


# --- rehearsals ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("settle", "expected"), [(False, NO), (True, SUBMITS)])
def test_a_rehearsal_is_settled_only_where_the_operator_allows_it(settle, expected):
    scene = stage(*history("PENDING", rehearsal=True), settle=settle)
    assert outcome(scene, confirm()) == expected
    if expected == NO:
        assert "SETTLE_REHEARSALS=true" in scene.only(ev.CommandRefused).data.reason


# --- release ---------------------------------------------------------------------------------------------


def test_a_release_is_computed_again_under_the_newest_terms():
    keyless, mended = CrunchContract(), CrunchContract(crunch_pubkey=PUBKEY)
    scene = given(CheckpointStage("btc-up", shelf(keyless, mended=mended))).when("snapshots", configured())
    scene.when("snapshots", snapshot("a", T0, 2), snapshot("b", T0, 1), period_closed(T0, T0 + 6 * HOUR))
    assert "crunch_pubkey" in scene.only(ev.CheckpointWithheld).data.reason
    assert outcome(scene, release()) == NO
    assert "crunch_pubkey" in scene.only(ev.CommandRefused).data.reason
    scene.when("snapshots", configured(contract_hash="mended", effective_from=T0 + 12 * HOUR))
    assert outcome(scene, release()) == RELEASES
    data = scene.only(ev.CheckpointOpened).data
    assert (data.checkpoint_id, data.emission["crunch"]) == (CKP, PUBKEY)
    assert sum(reward["reward_pct"] for reward in data.emission["cruncher_rewards"]) == FRAC64_ONE
    assert [row.model_id for row in data.ranking] == ["a", "b"]
    assert outcome(scene, confirm()) == SUBMITS


def test_a_release_pays_by_the_contract_of_its_period_if_its_payment_may_be_offered():
    """A later contract must not change the promise of a period that was withheld only for inspection."""
    later = CrunchContract(crunch_pubkey=PUBKEY, build_emission=softmax(0))
    scene = given(CheckpointStage("btc-up", shelf(later=later))).when("snapshots", configured())
    hold = ev.WithholdCheckpoint(id="w", at=T0, data=ev.WithholdCheckpointData(reason="look first"))
    scene.when("commands", hold)
    scene.when("snapshots", snapshot("a", T0, 2), snapshot("b", T0, 1), period_closed(T0, T0 + 6 * HOUR))
    scene.when("snapshots", configured(contract_hash="later", effective_from=T0 + 12 * HOUR))
    assert outcome(scene, release()) == RELEASES
    shares = [
        reward["reward_pct"] for reward in scene.only(ev.CheckpointOpened).data.emission["cruncher_rewards"]
    ]
    assert shares == [625_000_000, 375_000_000]


def test_a_release_does_not_need_a_replaced_contract():
    """A broken contract is replaced, and a node that runs the new one no longer has the old one."""
    mended = CrunchContract(crunch_pubkey=PUBKEY)
    broken = checkpoint_data(contract_hash="gone", emission=EMPTY, emission_sha256=emission_sha256(EMPTY))
    looked_at = checkpoint_data(contract_hash="gone", start=T0 + 6 * HOUR)
    scene = given(CheckpointStage("btc-up", shelf(mended)))
    scene.own(configured(contract_hash="gone"), configured(effective_from=T0 + 12 * HOUR))
    for data in (broken, looked_at):
        withheld = ev.CheckpointWithheldData(reason="x", checkpoint=data)
        scene.own(ev.CheckpointWithheld(id=f"{data.checkpoint_id}:withheld", at=T0, data=withheld))
    assert outcome(scene, release(CKP)) == RELEASES
    assert scene.only(ev.CheckpointOpened).data.emission_contract_hash == HASH
    assert scene.only(ev.CheckpointOpened).data.emission["crunch"] == PUBKEY
    assert outcome(scene, release(OTHER)) == RELEASES
    assert scene.only(ev.CheckpointOpened).data.emission_sha256 == looked_at.emission_sha256


@pytest.mark.parametrize("status", ["PENDING", "SUBMITTED", "CLAIMABLE", "PAID"])
def test_a_second_opening_in_the_own_log_stops_the_stage_and_is_named(status):
    """Only the stage itself writes there, so such an event is a bug of ours. It must not be interpreted where money is
    paid.
    """
    scene = stage(*history(status))
    before = scene.stage.settlements.states[CKP].data
    other = checkpoint_data(snapshot_count=99)
    with pytest.raises(IllegalTransitionError, match=f"CheckpointOpened is not legal in state {status}"):
        scene.own(ev.CheckpointOpened(id=f"{CKP}:opened", at=T0, data=other))
    state = scene.stage.settlements.states[CKP]
    assert (state.status, state.data) == (status, before)


def test_a_released_checkpoint_is_not_built_again():
    scene = stage(*history("WITHHELD"))
    assert outcome(scene, release()) == RELEASES
    scene.when("snapshots", snapshot("a", T0, 1), period_closed(T0, T0 + 6 * HOUR)).then()


# --- a failed transaction beside a live one --------------------------------------------------------------


def replace(replaced_by: str, tx_hash: str = TX_A) -> ev.FailCheckpointSubmission:
    data = ev.FailCheckpointSubmissionData(
        checkpoint_id=CKP, tx_hash=tx_hash, reason="expired", replaced_by=replaced_by
    )
    return ev.FailCheckpointSubmission(id="replace", at=T0 + 1, data=data)


def test_a_failed_transaction_is_replaced_by_the_live_one_in_one_decision():
    scene = stage(*history("SUBMITTED"))
    scene.when("commands", replace(TX_B)).then(ev.CheckpointSubmissionFailed, ev.CheckpointSubmitted)
    assert len(scene.drafts) == 1
    assert scene.made[1].data.tx_hash == TX_B
    assert outcome(scene, confirm(TX_A)) == NO  # refused for good
    assert outcome(scene, confirm(TX_B)) == DONE
    assert outcome(scene, replace(TX_B)) == DONE


@pytest.mark.parametrize(("replaced_by", "http_status"), [("no hash", 422), (TX_A, 422), ("1" * 63, 422)])
def test_a_transaction_that_cannot_replace_it_leaves_the_checkpoint_submitted(replaced_by, http_status):
    scene = stage(*history("SUBMITTED"))
    assert outcome(scene, replace(replaced_by)) == ("refused", http_status)
    assert outcome(scene, advance("CLAIMABLE")) == CLAIMS


def test_another_checkpoints_transaction_replaces_nothing():
    scene = stage(*history("SUBMITTED"), *history("SUBMITTED", start=T0 + 6 * HOUR, tx_hash=TX_B))
    assert outcome(scene, replace(TX_B)) == NO
    assert outcome(scene, advance("CLAIMABLE")) == CLAIMS
