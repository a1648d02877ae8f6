"""Certificates: the files that the operator names are read at the start and passed to the client library. A file that
cannot be read is refused by name. Servers that check certificates are in test_behind_tls.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from tests.infra.models.stage import CRUNCH_ID

from coordinator.infra.models.gateway import Credentials, RunnerClientGateway
from coordinator.streams.agents.workers import _cert_dir, _gateway_key
from coordinator.streams.log.errors import OperatorError

SECURE = ("ca.crt", "tls.crt", "tls.key")


def write_certificates(folder: Path) -> None:
    """A key, and a certificate that it signed itself, under every file name that is read."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "coordinator")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for file, content in {"ca.crt": pem, "tls.crt": pem, "tls.key": private, "key.pem": private}.items():
        (folder / file).write_bytes(content)


@pytest.mark.parametrize("kind", ["secure", "gateway"])
async def test_what_the_operator_names_reaches_the_client_library(tmp_path: Path, kind: str):
    write_certificates(tmp_path)
    gateway = RunnerClientGateway(
        "127.0.0.1",
        1,
        CRUNCH_ID,
        credentials=Credentials(
            secure_cert_dir=_cert_dir("SECURE_CERT_DIR", str(tmp_path), *SECURE)
            if kind == "secure"
            else None,
            gateway_key_pem=_gateway_key(str(tmp_path)) if kind == "gateway" else None,
        ),
    )
    await gateway.start()
    try:
        runner = gateway._runner
        assert (runner.secure_credentials is not None) == (kind == "secure")
        assert (runner.gateway_credentials is not None) == (kind == "gateway")
    finally:
        await gateway.stop()


def test_without_certificates_calls_are_in_plain_text():
    assert (_cert_dir("SECURE_CERT_DIR", "", *SECURE), _gateway_key("")) == (None, None)


def test_a_file_that_is_missing_is_named(tmp_path: Path):
    (tmp_path / "ca.crt").write_text("x")
    with pytest.raises(
        OperatorError, match=r"SECURE_CERT_DIR=.*: tls\.crt cannot be read .*it needs ca\.crt, tls"
    ):
        _cert_dir("SECURE_CERT_DIR", str(tmp_path), *SECURE)
    with pytest.raises(OperatorError, match=r"GATEWAY_CERT_DIR=.*: key\.pem cannot be read"):
        _gateway_key(str(tmp_path))
