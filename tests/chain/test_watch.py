"""The meaning of a look at the chain: every status here against the state of the chain, and commands that must never be
sent.
"""

from __future__ import annotations

import pytest

from coordinator.streams.checkpoints.chain_watch import Watched, judge
from coordinator.streams.events import AdvanceCheckpoint, ConfirmCheckpoint, FailCheckpointSubmission
from coordinator.streams.ports import ChainCheckpoint, ChainState, TxState, TxStatus

A, B, C = "tx-a", "tx-b", "tx-c"


def ours(status, tx_hash=A, checkpoint_id="c1"):
    return Watched(checkpoint_id=checkpoint_id, status=status, tx_hash="" if status == "PENDING" else tx_hash)


def chain(tx_hash=A, state=ChainState.SUBMITTED, checkpoint_id="c1", at_ms=1):
    return ChainCheckpoint(tx_hash, state, checkpoint_id, at_ms)


def look(row, *on_chain, tx=TxState.UNKNOWN, known_hashes=(), **options):
    return judge(
        [row], frozenset({row.tx_hash, *known_hashes} - {""}), {A: TxStatus(tx, "why")}, on_chain, **options
    )


def wanted_commands(verdict):
    return [
        (wanted.kind, wanted.status or wanted.tx_hash, wanted.replaced_by)
        for wanted in verdict.wanted_commands
    ]


def concerns(verdict):
    return [concern.name for concern in verdict.concerns]


@pytest.mark.parametrize("tx", [TxState.UNKNOWN, TxState.SEEN])
@pytest.mark.parametrize("status", ["PENDING", "SUBMITTED", "CLAIMABLE", "WITHHELD"])
def test_a_state_that_is_not_final_changes_nothing(status, tx):
    verdict = look(ours(status), tx=tx)
    assert (verdict.wanted_commands, verdict.concerns) == ([], [])


def test_a_final_transaction_alone_claims_nothing_unless_the_operator_declares_its_meaning():
    assert wanted_commands(look(ours("SUBMITTED"), tx=TxState.FINALIZED)) == []
    verdict = look(ours("SUBMITTED"), tx=TxState.FINALIZED, finalized_is_claimable=True)
    assert wanted_commands(verdict) == [("advance", "CLAIMABLE", "")]
    assert wanted_commands(look(ours("SUBMITTED"), tx=TxState.SEEN, finalized_is_claimable=True)) == []


@pytest.mark.parametrize(
    ("status", "state", "expected"),
    [
        ("SUBMITTED", ChainState.SUBMITTED, []),
        ("SUBMITTED", ChainState.CLAIMABLE, [("advance", "CLAIMABLE", "")]),
        ("SUBMITTED", ChainState.PAID, [("advance", "CLAIMABLE", "")]),  # one step at a time
        ("CLAIMABLE", ChainState.CLAIMABLE, []),
        ("CLAIMABLE", ChainState.PAID, [("advance", "PAID", "")]),
    ],
)
def test_later_states_are_those_of_the_checkpoint_on_chain(status, state, expected):
    assert wanted_commands(look(ours(status), chain(state=state), tx=TxState.FINALIZED)) == expected


def test_another_checkpoints_state_changes_nothing():
    assert (
        wanted_commands(look(ours("SUBMITTED"), chain(B, ChainState.PAID, "c2"), tx=TxState.FINALIZED)) == []
    )


def test_a_settlement_whose_confirm_was_lost_is_confirmed():
    verdict = look(ours("PENDING"), chain(B))
    assert wanted_commands(verdict) == [("confirm", B, "")]
    assert wanted_commands(look(ours("PENDING"), chain(B, ChainState.FAILED))) == []


def test_a_finally_failed_transaction_is_taken_back():
    assert wanted_commands(look(ours("SUBMITTED"), tx=TxState.FAILED)) == [("fail", A, "")]


def test_a_failed_transaction_beside_a_live_one_is_replaced_and_never_offered_in_between():
    verdict = look(ours("SUBMITTED"), chain(A, ChainState.FAILED), chain(B), tx=TxState.FAILED)
    assert wanted_commands(verdict) == [("fail", A, B)]


def test_a_failed_transaction_stays_while_an_unknown_one_may_settle_the_checkpoint():
    verdict = look(ours("SUBMITTED"), chain(C, checkpoint_id=""), tx=TxState.FAILED)
    assert (wanted_commands(verdict), concerns(verdict)) == ([], ["maybe_settled"])
    told = look(ours("SUBMITTED"), chain(C, checkpoint_id=""), tx=TxState.FAILED, known_hashes=[C])
    assert wanted_commands(told) == [("fail", A, "")]


def test_an_unknown_transaction_over_an_offered_checkpoint_is_a_concern_and_no_confirm():
    verdict = look(ours("PENDING"), chain(C, checkpoint_id=""))
    assert (wanted_commands(verdict), concerns(verdict)) == ([], ["maybe_settled"])


@pytest.mark.parametrize(
    ("row", "on_chain", "tx", "name"),
    [
        (ours("SUBMITTED"), [chain(A), chain(B)], TxState.SEEN, "settled_twice"),
        (ours("WITHHELD", ""), [chain(A)], TxState.UNKNOWN, "withheld_but_settled"),
        (ours("CLAIMABLE"), [], TxState.FAILED, "claimable_but_failed"),
    ],
)
def test_a_state_that_no_command_can_repair_is_reported(row, on_chain, tx, name):
    verdict = look(row, *on_chain, tx=tx)
    assert (wanted_commands(verdict), concerns(verdict)) == ([], [name])


def test_a_command_has_an_id_made_from_its_content():
    wanted = look(ours("SUBMITTED"), chain(B), tx=TxState.FAILED).wanted_commands[0]
    command = wanted.command(5)
    assert isinstance(command, FailCheckpointSubmission)
    assert command.data.replaced_by == B
    assert "why" in command.data.reason
    assert (
        command.id
        == wanted.command(6).id
        != look(ours("SUBMITTED"), tx=TxState.FAILED).wanted_commands[0].command(5).id
    )
    assert isinstance(look(ours("PENDING"), chain(B)).wanted_commands[0].command(5), ConfirmCheckpoint)
    paid = (
        look(ours("CLAIMABLE"), chain(A, ChainState.PAID), tx=TxState.FINALIZED).wanted_commands[0].command(5)
    )
    assert isinstance(paid, AdvanceCheckpoint)
    assert paid.data.tx_hash == A  # of another transaction nothing was seen
