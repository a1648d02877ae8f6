"""A confirm from the terminal does the same as the API's: payees are bound before the transaction is recorded."""

from __future__ import annotations

import pytest
from tests.api.test_payment_shapes import OTHER
from tests.logs import PUBKEY, TX_HASH, busy_log

from coordinator.cli import checkpoint_log, own_kafka
from coordinator.cli.checkpoint_log import CheckpointsLog
from coordinator.cli.shared import NodeFile, node_settings, write_node_file
from coordinator.streams import events as ev
from coordinator.streams.log.errors import WorldError
from coordinator.streams.settings import Settings


@pytest.fixture
def sent(monkeypatch):
    """The commands that were appended."""
    commands: list[ev.Event] = []

    class Port:
        def __init__(self, *_where) -> None: ...

        async def start(self) -> None: ...

        async def stop(self) -> None: ...

        async def send(self, command: ev.Event) -> int:
            commands.append(command)
            return -2  # decided long ago

    monkeypatch.setattr(checkpoint_log, "KafkaCommandPort", Port)
    return commands


def offered(settings: Settings) -> tuple[CheckpointsLog, str]:
    log = busy_log()
    the_id = log.checkpoint(20 * 3_600_000, {"m1": 600_000_000, "m4": 400_000_000})
    read = CheckpointsLog(settings)
    for topic in read.read_model.topics:
        for offset, record in enumerate(log.records[topic]):
            read._folder.fold(topic, offset, record)
    read._folder.commit()
    return read, the_id


@pytest.mark.parametrize(
    ("text", "payees"),
    [
        (f"model_id,wallet\nm4,{OTHER}\n", [{"m1": PUBKEY, "m4": OTHER}]),
        ("model_id,wallet\nm4,paypal\n", []),  # the transaction was sent, so it must be recorded first
    ],
)
async def test_a_confirm_first_binds_the_wallets_that_were_handed_out(tmp_path, sent, text, payees):
    (tmp_path / "wallets.csv").write_text(text)
    log, the_id = offered(Settings(wallets_file=str(tmp_path / "wallets.csv")))
    await log.decide(ev.ConfirmCheckpoint, ev.ConfirmCheckpointData(checkpoint_id=the_id, tx_hash=TX_HASH))
    *bound, confirmed = sent
    assert [event.data.payees for event in bound] == payees
    assert isinstance(confirmed, ev.ConfirmCheckpoint)


async def test_other_commands_bind_nobody(sent):
    log, the_id = offered(Settings())
    await log.decide(ev.ReleaseCheckpoint, ev.ReleaseCheckpointData(checkpoint_id=the_id, reason=""))
    assert [type(command) for command in sent] == [ev.ReleaseCheckpoint]


def test_a_command_pays_by_the_nodes_file_of_wallets_unless_told_otherwise(tmp_path, monkeypatch):
    monkeypatch.delenv("WALLETS_FILE", raising=False)
    left = {"bootstrap": "127.0.0.1:2", "api": "", "crunch_id": "btc-up", "feed_source": "binance"}
    write_node_file(tmp_path, NodeFile(**left, wallets_file="/there/wallets.csv"))
    assert node_settings(tmp_path)[0].wallets_file == "/there/wallets.csv"
    monkeypatch.setenv("WALLETS_FILE", "mine.csv")
    assert node_settings(tmp_path)[0].wallets_file == "mine.csv"


async def test_on_a_stopped_node_no_decision_is_waited_for(sent, tmp_path, monkeypatch):
    settings = Settings(data_dir=tmp_path)
    monkeypatch.setitem(own_kafka._started, tmp_path, settings.kafka_bootstrap)
    log, the_id = offered(settings)
    with pytest.raises(WorldError, match="the node is not running: the command is in the log"):
        await log.decide(
            ev.ConfirmCheckpoint, ev.ConfirmCheckpointData(checkpoint_id=the_id, tx_hash=TX_HASH)
        )
    assert isinstance(sent[-1], ev.ConfirmCheckpoint)
