"""A Kafka behind TLS, SASL and ACLs, for the tests: one broker with three listeners."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests import forked
from tests.broker.certificates import Authority
from tests.waiting import LIMIT_SECONDS

from coordinator.infra.fetch import ensure_runtime
from coordinator.infra.kafka.embedded import EmbeddedBroker, free_ports
from coordinator.infra.kafka.rights import ROLES
from coordinator.infra.kafka.runtime import load_runtime
from coordinator.infra.kafka.security import VARIABLES

PASSWORD = "not-in-any-log-7c1d"
OF_ROLES = "acls"
"""The crunch of the tests in which each role has a user of its own."""
USERS_OF_ROLES = [f"{OF_ROLES}-{role}" for role in ROLES]


@dataclass
class Secured:
    """One broker with three listeners."""

    plain: str
    tls: str
    sasl: str
    authority: Authority
    folder: Path


@pytest.fixture(scope="module", name="secured")
def secured_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("secured")
    authority = Authority(folder / "authority")
    authority.issue("broker")
    ensure_runtime()
    plain, tls, sasl, controller = free_ports(4)
    broker = EmbeddedBroker(
        folder / "kafka",
        plain,
        voters={1: controller},
        more_settings={
            "listeners": f"PLAINTEXT://127.0.0.1:{plain},SSL://127.0.0.1:{tls},SASL_SSL://127.0.0.1:{sasl},"
            f"CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{plain},SSL://127.0.0.1:{tls},SASL_SSL://127.0.0.1:{sasl}",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_SSL:SASL_SSL",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(authority.folder / "broker.pem"),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(authority.file),
            "listener.name.ssl.ssl.client.auth": "required",
            # Everybody of these tests may do all, but for the witness and the roles, who may do what they are given.
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS;User:node;User:CN=operator",
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
            "listener.name.sasl_ssl.plain.sasl.jaas.config": (
                "org.apache.kafka.common.security.plain.PlainLoginModule required "
                f'user_node="{PASSWORD}" user_witness="{PASSWORD}" '
                + " ".join(f'user_{user}="{PASSWORD}"' for user in USERS_OF_ROLES)
                + ";"
            ),
            "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": (
                "org.apache.kafka.common.security.scram.ScramLoginModule required;"
            ),
        },
    )
    broker.start()
    try:
        broker.wait_ready(LIMIT_SECONDS)
        yield Secured(
            f"127.0.0.1:{plain}", f"127.0.0.1:{tls}", f"127.0.0.1:{sasl}", authority, broker.data_dir
        )
    finally:
        broker.stop()


def give_scram_password(secured: Secured) -> None:
    """The user `node` logs in by SCRAM from now on. Kafka's own tool for it costs as much CPU as half a broker."""
    subprocess.run(
        [
            *load_runtime().command("kafka.admin.ConfigCommand", "-Xmx128m"),
            *("--bootstrap-server", secured.plain, "--alter"),
            *("--add-config", f"SCRAM-SHA-512=[password={PASSWORD}]"),
            *("--entity-type", "users", "--entity-name", "node"),
        ],
        check=True,
        capture_output=True,
        timeout=LIMIT_SECONDS,
    )


def coordinator(*arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    return forked.run(arguments, env=environment | variables, cwd=cwd)
