"""Commands on a stopped node: its own Kafka is started for the while, once, whatever listens on its old port."""

from __future__ import annotations

import os

import pytest
from typer.testing import CliRunner

from coordinator.cli import own_kafka, topics
from coordinator.cli.lazy_groups import command_ends
from coordinator.cli.main import app
from coordinator.cli.own_kafka import node_log
from coordinator.cli.shared import NodeFile, write_node_file
from coordinator.infra.kafka import running_broker
from coordinator.infra.log.copy_file import Tail
from coordinator.infra.processes.data_dir import claim_data_dir
from coordinator.streams.log.errors import OperatorError, WorldError

OLD = "127.0.0.1:9092"


class FakeBroker:
    """Says what is done with it."""

    did: list[str]

    def __init__(self, data_dir) -> None:
        self.bootstrap = f"127.0.0.1:{20_000 + self.did.count('start')}"

    def start(self) -> None:
        self.did.append("start")

    def wait_ready(self) -> None:
        pass

    def is_alive(self) -> bool:
        return True

    def stop(self) -> None:
        self.did.append("stop")


@pytest.fixture
def stopped_node(tmp_path, monkeypatch):
    FakeBroker.did = []
    monkeypatch.setattr(running_broker, "EmbeddedBroker", FakeBroker)
    with claim_data_dir(tmp_path, "btc-up"):
        pass
    (tmp_path / "kafka" / "log").mkdir(parents=True)
    node = NodeFile(bootstrap=OLD, api="http://127.0.0.1:8000", crunch_id="btc-up", feed_source="binance")
    write_node_file(tmp_path, node)
    return tmp_path


def test_a_command_that_asks_twice_has_one_kafka_until_it_ends(stopped_node):
    for _ in range(2):
        with command_ends:
            first, _ = node_log(stopped_node, checked=False)
            again, _ = node_log(stopped_node, checked=False)
            assert first.kafka_bootstrap == again.kafka_bootstrap != OLD
    assert FakeBroker.did == ["start", "stop"] * 2


def test_a_directory_that_another_process_uses_is_left_alone(stopped_node):
    with (
        claim_data_dir(stopped_node, "btc-up"),
        pytest.raises(OperatorError, match=f"in use by process {os.getpid()}"),
    ):
        node_log(stopped_node, checked=False)
    assert FakeBroker.did == []


@pytest.mark.parametrize("options", [[], ["--kafka", "127.0.0.1:1"]])
def test_nothing_is_restored_into_a_directory_whose_node_runs(stopped_node, tmp_path, options):
    node = NodeFile(
        bootstrap=OLD, api="", crunch_id="btc-up", feed_source="binance", pids={"up": os.getpid()}
    )
    write_node_file(stopped_node, node)
    (tmp_path / "copy").write_bytes(b"")
    with claim_data_dir(stopped_node, "btc-up"):
        result = CliRunner().invoke(
            app, ["topics", "restore", str(tmp_path / "copy"), "--data-dir", str(stopped_node), *options]
        )
    assert result.exit_code == 2
    assert f"in use by process {os.getpid()}: stop it first" in result.output
    assert FakeBroker.did == []


def test_a_second_host_does_not_write_into_the_logs_of_a_running_node_s_models(
    stopped_node, monkeypatch, tmp_path
):
    monkeypatch.setenv("DATA_DIR", str(stopped_node))
    (tmp_path / "my-models").mkdir()
    with claim_data_dir(stopped_node, "btc-up"):
        result = CliRunner().invoke(app, ["models", "serve", str(tmp_path / "my-models")])
    assert result.exit_code == 2
    assert f"in use by process {os.getpid()}" in result.output
    assert "--log-dir" in result.output


@pytest.mark.parametrize("named", ["nothing", "kafka", "environment"])
def test_where_no_node_is_and_nothing_answers_the_default_address_is_not_blamed_alone(
    named, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KAFKA_BOOTSTRAP", raising=False)
    if named == "environment":
        monkeypatch.setenv("KAFKA_BOOTSTRAP", OLD)

    async def silent(_log):
        raise WorldError(f"Kafka at {OLD} does not answer (refused)")

    monkeypatch.setattr(own_kafka.OwnLog, "check", silent)
    with command_ends, pytest.raises(WorldError) as raised:
        node_log(None, OLD if named == "kafka" else None)
    assert ("give --data-dir or --kafka" in str(raised.value)) == (named == "nothing")


def test_what_is_restored_into_a_new_directory_is_found_there_by_every_command(tmp_path, monkeypatch):
    FakeBroker.did = []
    monkeypatch.setattr(running_broker, "EmbeddedBroker", FakeBroker)

    async def read_backup(*_, **__):
        return Tail(3, "ab" * 32)

    monkeypatch.setattr(topics, "read_backup", read_backup)
    monkeypatch.setattr(topics, "_remember", lambda _settings: None)
    monkeypatch.setenv("CRUNCH_ID", "btc-up")
    (tmp_path / "copy").write_bytes(b"")
    node = tmp_path / "node"
    answer = CliRunner().invoke(
        app, ["topics", "restore", str(tmp_path / "copy"), "--data-dir", str(node), "--json"]
    )
    assert answer.exit_code == 0, answer.output
    monkeypatch.delenv("CRUNCH_ID")
    (node / "kafka" / "log").mkdir(parents=True)
    with command_ends:
        settings, left = node_log(node, checked=False)
        assert (settings.crunch_id, left.bootstrap) == ("btc-up", "127.0.0.1:20000")
    assert FakeBroker.did == ["start", "stop"] * 2


def test_on_an_address_that_nobody_named_a_command_says_whose_log_it_is(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("KAFKA_BOOTSTRAP", raising=False)
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("CRUNCH_ID", "another")
    for _ in range(2):
        node_log(None, checked=False)
    says = f"{tmp_path / 'none'} holds no node: this command uses crunch another on the default address 127.0.0.1:9092\n"
    assert capsys.readouterr().err == says
    node_log(None, "127.0.0.1:9092", checked=False)
    assert capsys.readouterr().err == ""
