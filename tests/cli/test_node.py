"""What `up` does about the broker's ports before anything runs."""

from __future__ import annotations

import socket
from types import SimpleNamespace

import pytest

from coordinator.cli import node_kafka
from coordinator.cli.node import Node
from coordinator.cli.node_kafka import prepared_broker, until_ours_listens
from coordinator.infra.kafka.embedded import PortTakenError, free_ports
from coordinator.infra.processes.sockets import HANDED_ON, handed_on, listen
from coordinator.streams.log.errors import OperatorError, WorldError
from coordinator.streams.settings import Settings


class Broker:
    """One that cannot prepare for a while."""

    failures_left = 0

    cluster_id = "ours"
    log_file = "broker.log"

    def __init__(self, _folder, port=0):
        self.port = port or 1

    def move(self):
        self.port = 0

    def prepare(self):
        if Broker.failures_left:
            Broker.failures_left -= 1
            raise PortTakenError("port 5 cannot be used for Kafka")


@pytest.fixture
def node(tmp_path, monkeypatch):
    """(node, its planned port of Kafka, what it says)"""
    monkeypatch.setattr(node_kafka, "EmbeddedBroker", Broker)
    (port,) = free_ports(1)
    settings = Settings(data_dir=tmp_path, kafka_bootstrap=f"127.0.0.1:{port}")
    told: list[str] = []
    return Node(SimpleNamespace(settings=settings), SimpleNamespace(say=told.append), None), port, told


@pytest.mark.parametrize("failures", [0, 1])
async def test_a_port_that_was_used_for_a_moment_costs_another_try_and_no_start(node, failures):
    node_, port, told = node
    Broker.failures_left = failures
    assert (await prepared_broker(node_.settings)).port == port
    assert told == []


async def test_a_reason_that_stays_is_said(node):
    Broker.failures_left = 2
    with pytest.raises(OperatorError, match="cannot be used for Kafka"):
        await prepared_broker(node[0].settings)


async def test_a_strangers_kafka_on_our_port_is_not_taken_for_ours(node, monkeypatch):
    """Nothing is asked of it but its name: the topics of a new crunch would be made there."""
    _, port, told = node
    broker = Broker(None, port)
    clusters = {port: "another node's", port + 1: "ours"}

    async def listens(_host, _port, _who, _seconds):
        return None

    async def ask_cluster(bootstrap, _crunch_id):
        asked = int(bootstrap.rsplit(":", 1)[1])
        broker.port = port + 1  # the supervisor starts ours again, elsewhere
        return SimpleNamespace(cluster_id=clusters[asked])

    monkeypatch.setattr(node_kafka, "listens", listens)
    monkeypatch.setattr(node_kafka, "ask_cluster", ask_cluster)
    await until_ours_listens(broker, "crunch", 60, told.append)
    assert told == [f"another Kafka took port {port} first; ours takes another one"]
    clusters[port + 1] = "another node's"
    with pytest.raises(WorldError, match="the node's Kafka does not listen"):
        await until_ours_listens(broker, "crunch", 0.05, told.append)


def test_ports_are_held_from_their_choice_on_and_handed_to_the_process_that_listens(node, monkeypatch):
    """Also while it is started again, when nobody listens: no other process can take them."""
    node_, _, told = node
    api, models = free_ports(2)
    node_.settings = Settings(api_port=api, model_runner_node_host="127.0.0.1", model_runner_node_port=models)
    node_.plan.api_port_named = True
    node_._hold_ports()
    for port in (api, models):
        bound = node_._ports.socket_of("127.0.0.1", port)["127.0.0.1", port]
        with pytest.raises(OSError), socket.socket() as other:
            other.bind(("127.0.0.1", port))
        variables = handed_on([("127.0.0.1", port)], [bound.fileno()])
        monkeypatch.setenv(HANDED_ON, variables[HANDED_ON])
        for _life in range(2):
            with listen("127.0.0.1", port, "--port") as child:
                child.listen()
                socket.create_connection(("127.0.0.1", port)).close()
        bound.close()
    assert told == []


@pytest.mark.parametrize("named", [True, False])
def test_a_port_that_was_taken_since_the_plan_is_another_one_unless_the_operator_chose_it(node, named):
    node_, _, told = node
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        (free,) = free_ports(1)
        node_.settings = Settings(
            api_port=taken, model_runner_node_host="127.0.0.1", model_runner_node_port=free
        )
        node_.plan.api_port_named = named
        if named:
            with pytest.raises(OperatorError, match=f"port {taken} .* choose another with --port"):
                node_._hold_ports()
            return
        node_._hold_ports()
    assert node_.settings.api_port not in (0, taken)
    assert told == [f"port {taken} was taken meanwhile; the API uses {node_.settings.api_port}"]
    node_._ports.close()
