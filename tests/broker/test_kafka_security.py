"""A Kafka behind TLS and SASL: a whole node runs on it, and each error is reported as what it is."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import TopicAuthorizationFailedError
from aiokafka.protocol.admin import CreateAclsRequest
from tests.broker.certificates import Authority
from tests.broker.secured import (
    PASSWORD,
    Secured,
    coordinator,
    give_scram_password,
    secured_broker,  # noqa: F401 - a fixture
)
from tests.broker.test_witness import CRUNCH as WITNESSED
from tests.broker.test_witness import shown, topics_of
from tests.candles import START, candle_file
from tests.infra.evidence.bundles import whole_log
from tests.infra.evidence.test_witness import serving

from coordinator.infra.kafka.embedded import free_ports
from coordinator.infra.kafka.security import read_security
from coordinator.streams.log.errors import OperatorError

pytestmark = pytest.mark.broker
TOPIC, PREFIXED, READ, DESCRIBE, ALLOW = 2, 4, 3, 8, 3
"""As the protocol of Kafka numbers them."""
ROUNDS = 20
WRONG = "also-not-in-any-log-55aa"


@pytest.fixture(scope="module", autouse=True)
def scram(secured: Secured) -> None:
    give_scram_password(secured)


@pytest.mark.slow  # test_kafka_rights.py runs each worker over it
def test_a_whole_node_runs_over_scram_and_tls(secured: Secured, crunch_id: str, tmp_path: Path):
    password = tmp_path / "password"
    password.write_text(PASSWORD + "\n")
    summary = tmp_path / "summary.json"
    (port,) = free_ports(1)
    done = coordinator(
        *("up", "--kafka", secured.sasl, "--port", str(port), "--candles", str(candle_file(tmp_path))),
        *("--until", str(START + ROUNDS * 60_000), "--data-dir", str(tmp_path / "node")),
        *("--summary", str(summary)),
        cwd=tmp_path,
        CRUNCH_ID=crunch_id,
        KAFKA_SECURITY_PROTOCOL="SASL_SSL",
        KAFKA_SASL_USERNAME="node",
        KAFKA_SASL_PASSWORD_FILE=str(password),
        KAFKA_SSL_CA_FILE=str(secured.authority.file),
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    figures = json.loads(summary.read_text())
    assert figures["feed_records"] == ROUNDS
    assert figures["predictions"]["scored"] > 0
    assert figures["predictions"]["failed"] == 0
    written = [file for file in tmp_path.rglob("*") if file.is_file() and file != password]
    assert [file for file in written if PASSWORD.encode() in file.read_bytes()] == []
    assert PASSWORD not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("door", "variables", "complaint"),
    [
        ("sasl", {"KAFKA_SASL_MECHANISM": "PLAIN"}, None),
        ("sasl", {"KAFKA_SASL_MECHANISM": "SCRAM-SHA-512"}, None),
        ("sasl", {"KAFKA_SASL_PASSWORD": WRONG}, "it refused SCRAM-SHA-512 as 'node'"),
        ("sasl", {"KAFKA_SASL_MECHANISM": "SCRAM-SHA-256"}, "KAFKA_SASL_MECHANISM"),
        ("sasl", {"KAFKA_SSL_CA_FILE": ""}, "its certificate is not trusted"),
        ("sasl", {"KAFKA_SSL_CA_FILE": "OTHER"}, "its certificate is not trusted"),
        ("plain", {}, "KAFKA_SECURITY_PROTOCOL"),
    ],
)
def test_an_error_of_user_or_authority_is_reported(
    secured: Secured,
    crunch_id: str,
    tmp_path: Path,
    door: str,
    variables: dict[str, str],
    complaint: str | None,
):
    if variables.get("KAFKA_SSL_CA_FILE") == "OTHER":
        variables = variables | {"KAFKA_SSL_CA_FILE": str(Authority(tmp_path / "other", "other").file)}
    asked = {
        "KAFKA_BOOTSTRAP": getattr(secured, door),
        "CRUNCH_ID": crunch_id,
        "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "KAFKA_SASL_USERNAME": "node",
        "KAFKA_SASL_PASSWORD": PASSWORD,
        "KAFKA_SSL_CA_FILE": str(secured.authority.file),
    } | variables
    done = coordinator("topics", "list", cwd=tmp_path, **asked)
    if complaint is None:
        assert done.returncode == 0, done.stderr
        return
    assert (done.returncode, len(done.stderr.splitlines())) == (3, 1), done.stderr
    assert complaint in done.stderr
    assert PASSWORD not in done.stderr
    assert WRONG not in done.stderr


def test_a_client_certificate_is_accepted_by_the_listener_that_requires_one(
    secured: Secured, crunch_id: str, tmp_path: Path
):
    certificate, key = secured.authority.issue("operator", password="opens the key")
    asked = {
        "KAFKA_BOOTSTRAP": secured.tls,
        "CRUNCH_ID": crunch_id,
        "KAFKA_SECURITY_PROTOCOL": "ssl",
        "KAFKA_SSL_CA_FILE": str(secured.authority.file),
    }
    without = coordinator("topics", "list", cwd=tmp_path, **asked)
    assert without.returncode == 3, without.stderr
    asked |= {"KAFKA_SSL_CERT_FILE": str(certificate), "KAFKA_SSL_KEY_FILE": str(key)}
    locked = coordinator("topics", "list", cwd=tmp_path, **asked)
    assert locked.returncode == 2
    assert "KAFKA_SSL_KEY_PASSWORD" in locked.stderr
    opened = coordinator("topics", "list", cwd=tmp_path, **asked, KAFKA_SSL_KEY_PASSWORD="opens the key")
    assert opened.returncode == 0, opened.stderr


def test_plain_text_to_a_tls_listener_is_reported(secured: Secured, crunch_id: str, tmp_path: Path):
    done = coordinator("topics", "list", cwd=tmp_path, KAFKA_BOOTSTRAP=secured.tls, CRUNCH_ID=crunch_id)
    assert done.returncode == 3
    assert "KAFKA_SECURITY_PROTOCOL" in done.stderr


USER = {"KAFKA_SASL_USERNAME": "node", "KAFKA_SASL_PASSWORD": PASSWORD}


@pytest.mark.parametrize(
    ("variables", "complaint"),
    [
        ({"KAFKA_SECURITY_PROTOCOL": "TLS"}, "choose one of PLAINTEXT, SSL"),
        ({"KAFKA_SECURITY_PROTOCOL": "SASL_SSL"}, "needs KAFKA_SASL_USERNAME"),
        (USER, "KAFKA_SECURITY_PROTOCOL=PLAINTEXT does not use it: set the protocol to SASL_SSL"),
        (
            {"KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT", "KAFKA_SSL_CA_FILE": "x"} | USER,
            "KAFKA_SSL_CA_FILE is set",
        ),
        (
            {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "KAFKA_SASL_MECHANISM": "GSSAPI"} | USER,
            "choose one of PLAIN,",
        ),
        ({"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SSL_CERT_FILE": "x"}, "set both or neither"),
        ({"KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "KAFKA_SASL_PASSWORD_FILE": "x"} | USER, "set one"),
        (
            {
                "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
                "KAFKA_SASL_USERNAME": "node",
                "KAFKA_SASL_PASSWORD_FILE": "none",
            },
            "KAFKA_SASL_PASSWORD_FILE=none cannot be read",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(variables: dict[str, str], complaint: str):
    with pytest.raises(OperatorError, match=complaint) as refused:
        read_security(variables)
    assert PASSWORD not in str(refused.value)


def test_nothing_shows_the_password():
    security = read_security({"KAFKA_SECURITY_PROTOCOL": "SASL_SSL", **USER})
    assert PASSWORD not in f"{security!r} {security}"


def test_a_broker_of_our_own_speaks_plain_text_and_up_says_so(tmp_path: Path):
    done = coordinator("up", cwd=tmp_path, KAFKA_SECURITY_PROTOCOL="SASL_SSL", **USER)
    assert done.returncode == 2
    assert "--kafka HOST:PORT" in done.stderr


async def test_a_witness_that_may_only_read_the_topics_checks_and_signs(secured: Secured, tmp_path: Path):
    """Rights to read and describe the topics of the crunch: in no group, and without writing to any topic."""
    log = whole_log()
    node = await shown(tmp_path / "served", log)

    def looked(folder: str) -> subprocess.CompletedProcess[str]:
        with serving(node) as url:
            return coordinator(
                *(
                    "witness",
                    url,
                    "--kafka",
                    secured.sasl,
                    "--folder",
                    folder,
                    "--name",
                    "w.example",
                    "--once",
                ),
                cwd=tmp_path,
                KAFKA_SECURITY_PROTOCOL="SASL_SSL",
                KAFKA_SASL_MECHANISM="PLAIN",
                KAFKA_SASL_USERNAME="witness",
                KAFKA_SASL_PASSWORD=PASSWORD,
                KAFKA_SSL_CA_FILE=str(secured.authority.file),
            )

    async with topics_of(secured.plain, log):
        without = await asyncio.to_thread(looked, "without")
        # It may not even see them: that is no difference of the log, and no refusal of the password.
        assert without.returncode not in (0, 1), without.stdout
        assert "does not answer" not in without.stderr
        await may_read(secured, f"{WITNESSED}.")
        done = await asyncio.to_thread(looked, "witness")
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"signed {node.checkpoint_id}" in done.stdout
        as_witness = {
            "bootstrap_servers": secured.sasl,
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": "PLAIN",
            "sasl_plain_username": "witness",
            "sasl_plain_password": PASSWORD,
            "ssl_context": ssl.create_default_context(cafile=str(secured.authority.file)),
        }
        async with AIOKafkaProducer(**as_witness) as producer:
            with pytest.raises(TopicAuthorizationFailedError):
                await producer.send_and_wait(f"{WITNESSED}.scores", b"forged")


async def may_read(secured: Secured, prefix: str) -> None:
    """The rights of the guide: `kafka-acls.sh` is in none of the jars that the node brings."""
    admin = AIOKafkaAdminClient(bootstrap_servers=secured.plain)
    await admin.start()
    try:
        for operation in (READ, DESCRIBE):
            request = CreateAclsRequest(TOPIC, prefix, PREFIXED, "User:witness", "*", operation, ALLOW)
            answer = await admin._send_request(request)
            assert [code for code, _ in answer.creation_responses] == [0]
    finally:
        await admin.close()
