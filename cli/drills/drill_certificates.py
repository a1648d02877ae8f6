"""An authority of a drill's own, and the certificate of its Kafka: valid, or expired."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from coordinator.infra.kafka.embedded import HOST

DAY = timedelta(days=1)


class DrillAuthority:
    """Writes `ca.crt` into the folder, and `broker.pem`, key and certificate, at each `issue`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.broker_file = folder / "broker.pem"
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named("authority of a drill")
        certificate = (
            self._begun(self._name, self._key.public_key(), DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.file = folder / "ca.crt"
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, valid_for: timedelta) -> None:
        """A new key and certificate of the broker. A negative time: it has expired so long ago."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            self._begun(_named("broker"), key.public_key(), valid_for)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))]), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        self.broker_file.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))

    def _begun(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, valid_for: timedelta
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 2 * DAY)
            .not_valid_after(now + valid_for)
        )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
