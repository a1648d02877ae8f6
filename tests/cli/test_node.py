"""What `up` does about the broker's ports before anything runs."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from coordinator.cli import node as node_module
from coordinator.cli.node import Node
from coordinator.infra.kafka.embedded import free_ports
from coordinator.streams.log.errors import OperatorError, WorldError
from coordinator.streams.settings import Settings


class Broker:
    """One that cannot prepare for a while."""

    failures_left = 0

    cluster_id = "ours"
    log_file = "broker.log"

    def __init__(self, _folder, port=0):
        self.port = port or 1

    def prepare(self):
        if Broker.failures_left:
            Broker.failures_left -= 1
            raise OperatorError("port 5 cannot be used for Kafka")


@pytest.fixture
def node(tmp_path, monkeypatch):
    """(node, its planned port of Kafka, what it says)"""
    monkeypatch.setattr(node_module, "EmbeddedBroker", Broker)
    (port,) = free_ports(1)
    settings = Settings(data_dir=tmp_path, kafka_bootstrap=f"127.0.0.1:{port}")
    told: list[str] = []
    return Node(SimpleNamespace(settings=settings), SimpleNamespace(say=told.append)), port, told


@pytest.mark.parametrize("failures", [0, 1])
async def test_a_port_that_was_used_for_a_moment_costs_another_try_and_no_start(node, failures):
    made, port, told = node
    Broker.failures_left = failures
    assert (await made._broker()).port == port
    assert told == []


async def test_a_reason_that_stays_is_said(node):
    Broker.failures_left = 2
    with pytest.raises(OperatorError, match="cannot be used for Kafka"):
        await node[0]._broker()


async def test_a_strangers_kafka_on_our_port_is_not_taken_for_ours(node, monkeypatch):
    """Nothing is asked of it but its name: the topics of a new crunch would be made there."""
    made, port, told = node
    broker = Broker(None, port)
    clusters = {port: "another node's", port + 1: "ours"}

    async def listens(_host, _port, _who, _seconds):
        return None

    async def ask_cluster(bootstrap, _crunch_id):
        asked = int(bootstrap.rsplit(":", 1)[1])
        broker.port = port + 1  # the supervisor starts ours again, elsewhere
        return SimpleNamespace(cluster_id=clusters[asked])

    monkeypatch.setattr(node_module, "_listens", listens)
    monkeypatch.setattr(node_module, "ask_cluster", ask_cluster)
    await made._ours_listens(broker, 60)
    assert told == [f"another Kafka took port {port} first; ours takes another one"]
    clusters[port + 1] = "another node's"
    with pytest.raises(WorldError, match="our Kafka does not listen"):
        await made._ours_listens(broker, 0.05)
