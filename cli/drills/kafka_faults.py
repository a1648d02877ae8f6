"""Faults of a Kafka that is not the node's own: gone, another one in its place, its certificate expired."""

from __future__ import annotations

from datetime import timedelta

from coordinator.cli.drills.drill import Drill, Step
from coordinator.cli.drills.drill_certificates import DAY, DrillAuthority
from coordinator.cli.drills.scratch import ScratchNode
from coordinator.infra.fetch import ensure_runtime
from coordinator.infra.kafka.embedded import HOST, EmbeddedBroker, free_ports

TLS = "SSL://"
HOUR = timedelta(hours=1)
FOREIGN = "another node's Kafka"


def _beside(node: ScratchNode) -> None:
    """A Kafka beside the node, which knows its address alone."""
    ensure_runtime()
    _start_kafka(node, EmbeddedBroker(node.folder / "kafka", free_ports(1)[0]))
    node.environ["KAFKA_BOOTSTRAP"] = _kafka(node).bootstrap


def _behind_tls(node: ScratchNode) -> None:
    """The same behind TLS, with a certificate that is good for a day; the drill itself reads by a plain listener."""
    ensure_runtime()
    authority = node.notes["authority"] = DrillAuthority(node.folder / "authority")
    authority.issue(DAY)
    plain, tls, controller = free_ports(3)
    listeners = f"PLAINTEXT://{HOST}:{plain},{TLS}{HOST}:{tls}"
    more = {
        "listeners": f"{listeners},CONTROLLER://{HOST}:{controller}",
        "advertised.listeners": listeners,
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(authority.broker_file),
    }
    _start_kafka(
        node, EmbeddedBroker(node.folder / "kafka", plain, voters={1: controller}, more_settings=more)
    )
    node.kafka_read_at = f"{HOST}:{plain}"
    node.environ |= {
        "KAFKA_BOOTSTRAP": f"{HOST}:{tls}",
        "KAFKA_SECURITY_PROTOCOL": "SSL",
        "KAFKA_SSL_CA_FILE": str(authority.file),
    }


def _start_kafka(node: ScratchNode, broker: EmbeddedBroker) -> None:
    node.notes["kafka"] = broker
    node.left_over.append(broker.stop)
    broker.start()
    broker.wait_ready()


def _kafka(node: ScratchNode) -> EmbeddedBroker:
    broker: EmbeddedBroker = node.notes["kafka"]
    return broker


def _gone(node: ScratchNode) -> None:
    _kafka(node).stop()


def _back(node: ScratchNode) -> None:
    _kafka(node).start()
    _kafka(node).wait_ready()


def _certified(lasts: timedelta) -> Step:
    """Kafka gets a certificate that lasts for so long from now; one that is over has less than nothing."""

    def step(node: ScratchNode) -> None:
        _gone(node)
        node.notes["authority"].issue(lasts)
        _back(node)

    return step


def _foreign(node: ScratchNode) -> None:
    """Another node's Kafka on the address of this node's Kafka. The node ends and names it."""
    _gone(node)
    stranger = node.notes["stranger"] = EmbeddedBroker(node.folder / "stranger", _kafka(node).port)
    node.left_over.append(stranger.stop)
    stranger.start()
    stranger.wait_ready()
    node.until_ended(FOREIGN)


def _ours_again(node: ScratchNode) -> None:
    node.notes["stranger"].stop()
    _back(node)
    node.launch()


DRILLS = (
    Drill(
        name="kafka-gone",
        breaks="A Kafka that is not the node's own (KAFKA_BOOTSTRAP) is stopped.",
        alert="kafka",
        prepare=_beside,
        inject=_gone,
        end=_back,
        ends_by="Start Kafka again. The workers continue by themselves.",
    ),
    Drill(
        name="certificate-expired",
        breaks="Kafka comes back with a TLS certificate that expired an hour ago.",
        alert="kafka",
        says="certificate has expired",
        prepare=_behind_tls,
        inject=_certified(-HOUR),
        end=_certified(DAY),
        ends_by="Give Kafka a new certificate of the same authority, and start it again. The workers continue.",
    ),
    Drill(
        name="kafka-foreign",
        breaks="Another node's Kafka listens on the address of this node's Kafka (KAFKA_BOOTSTRAP).",
        alert="down",
        prepare=_beside,
        inject=_foreign,
        end=_ours_again,
        ends_by="The node has ended and names both clusters. "
        "End the other Kafka, start this node's Kafka, then run `coordinator up`.",
    ),
)
