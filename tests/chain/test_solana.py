"""The Solana adapter against a real HTTP server: regular answers, nulls, errors, slowness, garbage."""

from __future__ import annotations

import pytest
from tests.chain.rpc_server import error, result, rpc_server

from coordinator.infra.chain.solana import PAGE, SIGNATURES_PER_CALL, SolanaChain
from coordinator.streams.log.errors import OperatorError, WorldError
from coordinator.streams.ports import ChainState, TxState

CONTEXT = {"slot": 100, "apiVersion": "2.0.0"}
FAILED = {"InstructionError": [0, {"Custom": 6001}]}


def status(confirmation="finalized", err=None, confirmations=None, **more):
    return {"slot": 90, "confirmations": confirmations, "err": err, "confirmationStatus": confirmation} | more


def statuses(*values):
    return result({"context": CONTEXT, "value": list(values)})


def signature(name, err=None, at=1_700_000_000, confirmation="finalized"):
    return {
        "signature": name, "slot": 9, "err": err, "memo": None, "blockTime": at,
        "confirmationStatus": confirmation,
    }  # fmt: skip


async def ask(*answers, hashes=("a",), seconds=60.0, attempts=3):
    async with rpc_server(*answers) as server:
        chain = SolanaChain(server.url, call_seconds_max=seconds, attempts=attempts, retry_wait_seconds=0.01)
        try:
            return await chain.status_of(hashes), server
        finally:
            await chain.close()


async def listed(*answers, since=0):
    async with rpc_server(*answers) as server:
        chain = SolanaChain(server.url, retry_wait_seconds=0.01)
        try:
            return await chain.checkpoints_of("crunch", since), server
        finally:
            await chain.close()


@pytest.mark.parametrize(
    ("value", "state"),
    [
        (None, TxState.UNKNOWN),
        (status("processed", confirmations=0), TxState.SEEN),
        (status("confirmed", confirmations=10), TxState.SEEN),
        (status(), TxState.FINALIZED),
        (status(err=FAILED), TxState.FAILED),
        (status("confirmed", err=FAILED, confirmations=3), TxState.SEEN),  # its block may still be given up
        (status(None), TxState.FINALIZED),  # a node that tells no confirmationStatus: null means rooted
        (status(None, confirmations=4), TxState.SEEN),
        (status(status={"Ok": None}, unheard_of=1), TxState.FINALIZED),
    ],
)
async def test_the_answers_of_a_node_about_a_transaction_are_read(value, state):
    state_of, server = await ask(statuses(value))
    assert state_of["a"].state is state
    assert server.calls[0]["method"] == "getSignatureStatuses"
    assert server.calls[0]["params"] == [["a"], {"searchTransactionHistory": True}]
    if state is TxState.FAILED:
        assert "6001" in state_of["a"].error


async def test_many_hashes_are_requested_in_bounded_calls_and_each_gets_its_own_answer():
    hashes = [f"h{n}" for n in range(SIGNATURES_PER_CALL + 1)]
    state_of, server = await ask(
        statuses(*[None] * SIGNATURES_PER_CALL), statuses(status()), hashes=[*hashes, "h0"]
    )
    assert [len(call["params"][0]) for call in server.calls] == [SIGNATURES_PER_CALL, 1]
    assert state_of["h0"].state is TxState.UNKNOWN
    assert state_of[hashes[-1]].state is TxState.FINALIZED


@pytest.mark.parametrize(
    "passing",
    [
        error(-32005, "Node is behind by 42 slots"),
        lambda _call: (429, b"slow down"),
        lambda _call: (503, b""),
        lambda _call: None,  # hangs up
    ],
)
async def test_a_temporary_error_is_retried(passing):
    state_of, server = await ask(passing, statuses(status()))
    assert state_of["a"].state is TxState.FINALIZED
    assert len(server.calls) == 2


async def test_a_call_without_an_answer_in_time_is_repeated():
    state_of, server = await ask(lambda _call: 5.0, statuses(status()), seconds=0.2, attempts=100)
    assert state_of["a"].state is TxState.FINALIZED
    assert len(server.calls) >= 2


@pytest.mark.parametrize(
    ("broken", "tries"),
    [
        (error(-32602, "invalid params"), 1),
        (error(-32005, "behind"), 3),
        (lambda _call: (403, b"key?"), 1),
        (lambda _call: (302, b""), 1),  # a redirect is not followed
        (lambda _call: b"<html>", 1),
        (lambda _call: b"\xff\xfe", 1),
        (lambda _call: b"", 1),
        (lambda _call: b"{}", 1),
        (lambda call: b'{"jsonrpc":"2.0","id":%d}' % call["id"], 1),
        (lambda _call: b'{"jsonrpc":"2.0","id":999,"result":{"value":[null]}}', 1),
        (statuses(), 1),  # fewer answers than questions
        (statuses(None, None), 1),
        (statuses({"slot": "9", "err": None}), 1),
        (result([1, 2]), 1),
        (result(None), 1),
        (lambda _call: b"[" * 100_000, 1),
        (lambda _call: b" " * (5 * 1024 * 1024), 1),
        (lambda _call: None, 3),
        (lambda _call: (500, b""), 3),
        (lambda _call: (200, b"no gzip at all", "Content-Encoding: gzip"), 3),
    ],
)
async def test_an_invalid_answer_is_an_error_and_never_a_status(broken, tries):
    with pytest.raises(WorldError) as raised:
        _, server = await ask(broken)
    assert "secret-key" not in str(raised.value)
    async with rpc_server(broken) as server:
        chain = SolanaChain(server.url, retry_wait_seconds=0.01)
        with pytest.raises(WorldError):
            await chain.status_of(["a"])
        await chain.close()
        assert len(server.calls) == tries
        assert set(server.paths) == {"/secret-key"}


async def test_a_server_that_answers_byte_by_byte_is_bounded_by_the_limit_of_the_whole_call():
    with pytest.raises(WorldError, match="no answer within"):
        await ask(lambda _call: 5.0, seconds=0.1, attempts=2)


async def test_transactions_that_touched_the_crunch_are_listed_and_attributed_to_nothing():
    page = [signature("new", at=None), signature("ok"), signature("bad", FAILED), signature("maybe", FAILED, confirmation="confirmed"), signature("old", at=5)]  # fmt: skip
    transactions, server = await listed(result(page), since=6_000)
    assert [
        (transaction.tx_hash, transaction.state, transaction.checkpoint_id) for transaction in transactions
    ] == [
        ("new", ChainState.SUBMITTED, ""),
        ("ok", ChainState.SUBMITTED, ""),
        ("bad", ChainState.FAILED, ""),
        ("maybe", ChainState.SUBMITTED, ""),
    ]
    assert server.calls[0]["params"] == ["crunch", {"limit": PAGE, "commitment": "confirmed"}]


async def test_a_long_list_is_read_page_by_page_and_an_endless_one_is_an_error():
    full = [signature(f"s{n}") for n in range(PAGE)]
    transactions, server = await listed(result(full), result([signature("last")]))
    assert len(transactions) == PAGE + 1
    assert server.calls[1]["params"][1]["before"] == full[-1]["signature"]
    with pytest.raises(WorldError, match="more than"):
        await listed(result(full))


@pytest.mark.parametrize("url", ["", "ftp://x", "localhost:8899", "file:///etc/passwd", "http://"])
def test_an_invalid_url_is_refused_without_being_repeated(url):
    with pytest.raises(OperatorError, match="SOLANA_RPC_URL"):
        SolanaChain(url)
