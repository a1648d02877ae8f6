"""The chain watch beside the API: what it sees is on `/reports/chain`, what it may do is bounded, what it sends is not
sent twice.
"""

from __future__ import annotations

from types import SimpleNamespace

import httpx
import pytest
from tests.chain.rpc_server import error, result, rpc_server
from tests.logs import HOUR_MS, PUBKEY, START_MS, TX_HASH, fold_into
from tests.projections.test_checks import a_log, submitted

from coordinator.api.app import create_app
from coordinator.api.chain_loop import RESEND_MS, ChainLoop, make_chain
from coordinator.api.commands import Sender
from coordinator.api.monitor import Monitor, make_monitor
from coordinator.api.watches import Watches
from coordinator.infra.chain.fake import FakeChain
from coordinator.infra.chain.solana import SolanaChain
from coordinator.projections.folding.projector import Projector
from coordinator.projections.views.all_views import open_read_models
from coordinator.streams.events import BindPayees, ConfirmCheckpoint, FailCheckpointSubmission
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.settings import Settings, read_settings

FINAL = {"slot": 9, "confirmations": None, "err": None, "confirmationStatus": "finalized"}
FAILED = FINAL | {"err": {"InstructionError": [0, {"Custom": 6001}]}}


@pytest.fixture
def scene(tmp_path):
    """A log with one offered checkpoint, folded, and a port that stores what is sent."""
    log, sent = a_log(), []
    read = open_read_models(tmp_path, "cluster", log.crunch_id)
    projector = Projector(Settings(data_dir=tmp_path, settle_rehearsals=True), read)
    projector._started = True
    fold_into(projector.folder, log)
    clock = SimpleNamespace(now=START_MS + 10 * HOUR_MS)

    async def send(command):
        sent.append(command)
        return len(sent) - 1

    offered = next(row for row in read.checkpoints.newest() if row.status == "PENDING")
    yield SimpleNamespace(
        log=log, projector=projector, port=SimpleNamespace(send=send), sent=sent, clock=clock,
        the_id=offered.checkpoint.checkpoint_id, read=read,
    )  # fmt: skip
    read.close()


def loop(scene, chain, **options):
    return ChainLoop(chain, scene.projector, scene.port, lambda: scene.clock.now, **options)


def submit(scene):
    scene.log.append("checkpoints", submitted(scene.the_id))
    fold_into(scene.projector.folder, scene.log)


async def test_a_final_failure_is_taken_back_and_shown_over_the_wire(scene):
    submit(scene)
    async with rpc_server(result({"value": [FAILED]}), result([])) as server:
        watch = loop(scene, SolanaChain(server.url))
        await watch.look()
        monitor = Monitor(scene.projector, scene.port, lambda: scene.clock.now, Watches(chain=watch))
        app = create_app(scene.projector.settings, Sender(scene.projector, scene.port), monitor=monitor)
        transport = httpx.ASGITransport(app, client=("127.0.0.1", 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            body = (await client.get("/reports/chain")).json()
            text = (await client.get("/metrics")).text
        await watch.chain.close()
    (command,) = scene.sent
    assert isinstance(command, FailCheckpointSubmission)
    assert "6001" in command.data.reason
    assert body["adapter"] == "solana"
    assert body["transactions"] == [
        {"checkpoint_id": scene.the_id, "tx_hash": TX_HASH, "state": "FAILED", "error": FAILED_TEXT}
    ]
    assert 'coordinator_chain_looks_total{outcome="ok"} 1.0' in text
    assert server.calls[1]["params"][0] == PUBKEY


FAILED_TEXT = '{"InstructionError":[0,{"Custom":6001}]}'


async def test_a_final_success_changes_nothing_until_the_operator_declares_its_meaning(scene):
    submit(scene)
    async with rpc_server(result({"value": [FINAL]}), result([])) as server:
        watch = loop(scene, SolanaChain(server.url))
        await watch.look()
        await watch.chain.close()
    assert scene.sent == []
    assert watch.checked_at == scene.clock.now


async def test_a_chain_that_does_not_answer_causes_an_alert_and_no_command(scene):
    submit(scene)
    async with rpc_server(error(-32602, "no")) as server:
        watch = loop(scene, SolanaChain(server.url))
        await watch.look()
        await watch.chain.close()
    assert (scene.sent, watch.checked_at, watch.failures) == ([], None, 1)
    monitor = Monitor(scene.projector, scene.port, lambda: scene.clock.now, Watches(chain=watch))
    await monitor.look()
    (alert,) = [alert_ for alert_ in monitor.alerts.current.values() if alert_.kind == "chain"]
    assert alert.name == "unreachable"
    assert "secret-key" not in alert.text


async def test_a_command_is_sent_once_and_again_after_a_minute(scene):
    chain = FakeChain(lambda: scene.clock.now / 1000)
    chain.send(TX_HASH, PUBKEY, scene.the_id)
    watch = loop(scene, chain)
    for _ in range(3):
        await watch.look()
    assert [type(command) for command in scene.sent] == [ConfirmCheckpoint]
    assert watch.checked_at is None  # no look yet that found nothing to do
    scene.clock.now += RESEND_MS
    await watch.look()
    assert scene.sent[0].id == scene.sent[1].id


async def test_the_chain_is_not_queried_before_the_log_is_folded(scene):
    scene.projector._ends["checkpoints"] = 10**6
    watch = loop(scene, FakeChain(lambda: 0.0))
    await watch.look()
    assert (watch.looks, watch.checked_at) == (0, None)


def test_the_fake_chain_survives_its_process(tmp_path):
    path = tmp_path / "chain.json"
    FakeChain(lambda: 1.0, path=path).send(TX_HASH, PUBKEY, "ckp_1")
    again = FakeChain(lambda: 2.0, path=path)
    assert again.settlements[TX_HASH].checkpoint_id == "ckp_1"


def test_settings_name_what_is_missing_or_forbidden(tmp_path):
    for wrong, complaint in (
        ({"CHAIN": "ethereum"}, "CHAIN='ethereum' is unknown"),
        ({"CHAIN": "fake"}, "SETTLE_REHEARSALS"),
        ({"CHAIN": "solana"}, "SOLANA_RPC_URL"),
        ({"CHAIN_POLL_SECONDS": "0"}, "CHAIN_POLL_SECONDS"),
    ):
        with pytest.raises(OperatorError, match=complaint):
            read_settings(wrong)
    assert make_chain(Settings(), lambda: 0) is None
    assert isinstance(
        make_chain(Settings(chain="fake", settle_rehearsals=True, data_dir=tmp_path), lambda: 0), FakeChain
    )


def test_a_wrong_webhook_stops_the_start(scene):
    scene.projector.settings = Settings(webhook_url="http://169.254.169.254/x")
    with pytest.raises(OperatorError, match="WEBHOOK_URL"):
        make_monitor(scene.projector, scene.port)


async def test_the_payees_of_a_settlement_on_the_chain_are_bound_before_it_is_confirmed(scene, tmp_path):
    wallets = tmp_path / "wallets.csv"
    wallets.write_text(f"model_id,wallet\nm2,{PUBKEY}\n")
    scene.projector.settings = Settings(data_dir=tmp_path, wallets_file=str(wallets))
    chain = FakeChain(lambda: scene.clock.now / 1000)
    chain.send(TX_HASH, PUBKEY, scene.the_id)
    await loop(scene, chain).look()
    bound, confirmed = scene.sent
    assert isinstance(bound, BindPayees)
    assert bound.data.payees["m2"] == PUBKEY
    assert isinstance(confirmed, ConfirmCheckpoint)


async def test_a_wrong_file_of_wallets_does_not_hide_the_state_of_the_chain(scene, tmp_path):
    (tmp_path / "wallets.csv").write_text("model_id,wallet\nm2,paypal\n")
    scene.projector.settings = Settings(data_dir=tmp_path, wallets_file=str(tmp_path / "wallets.csv"))
    chain = FakeChain(lambda: scene.clock.now / 1000)
    chain.send(TX_HASH, PUBKEY, scene.the_id)
    await loop(scene, chain).look()
    assert [type(command) for command in scene.sent] == [ConfirmCheckpoint]
