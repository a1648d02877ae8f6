"""TLS and SASL towards Kafka, for a cluster that is not the embedded one.

Reads KAFKA_SECURITY_PROTOCOL and the variables beside it once, from the environment of the process. They are not part
of `Settings`, which are passed to children as text, written to files and shown: a password must be in none of these.
Every client of the node gets its options here (`infra/kafka/clients.py`), and Faust its credentials.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from coordinator.streams.log.errors import OperatorError

PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
SECRET_BYTES_MAX = 10_000
VARIABLES = (
    "KAFKA_SECURITY_PROTOCOL",
    "KAFKA_SASL_MECHANISM",
    "KAFKA_SASL_USERNAME",
    "KAFKA_SASL_PASSWORD",
    "KAFKA_SASL_PASSWORD_FILE",
    "KAFKA_SSL_CA_FILE",
    "KAFKA_SSL_CERT_FILE",
    "KAFKA_SSL_KEY_FILE",
    "KAFKA_SSL_KEY_PASSWORD",
    "KAFKA_SSL_KEY_PASSWORD_FILE",
)


class KafkaSecurity(msgspec.Struct, frozen=True, kw_only=True):
    """The security settings; "" for each that is not set. The `repr` shows no secret."""

    protocol: str = "PLAINTEXT"
    mechanism: str = ""
    username: str = ""
    password: str = ""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    key_password: str = ""

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted, and the broker's certificate and host name are checked."""
        return self.protocol.endswith("SSL")

    @property
    def sasl(self) -> bool:
        """Whether the client logs in with a user name and a password."""
        return self.protocol.startswith("SASL")

    def __repr__(self) -> str:
        user = f", {self.mechanism} as {self.username}" if self.sasl else ""
        return f"<KafkaSecurity {self.protocol}{user}>"


def read_security(environ: Mapping[str, str]) -> KafkaSecurity:
    """The security settings from environment variables; plain text if KAFKA_SECURITY_PROTOCOL is not set.

    Raises OperatorError naming the variable to change, also for a variable that the protocol does not use: an operator
    who sets a password does not expect it to be ignored.
    """
    protocol = environ.get("KAFKA_SECURITY_PROTOCOL", "").strip().upper() or "PLAINTEXT"
    if protocol not in PROTOCOLS:
        raise OperatorError(f"KAFKA_SECURITY_PROTOCOL={protocol}: choose one of {', '.join(PROTOCOLS)}")
    names_set = {name for name in VARIABLES[1:] if environ.get(name)}
    for prefix, used in (
        ("KAFKA_SASL_", protocol.startswith("SASL")),
        ("KAFKA_SSL_", protocol.endswith("SSL")),
    ):
        unused = sorted(name for name in names_set if name.startswith(prefix))
        if unused and not used:
            protocols = "SASL_SSL" if prefix == "KAFKA_SASL_" else "SSL or SASL_SSL"
            raise OperatorError(
                f"{unused[0]} is set, but KAFKA_SECURITY_PROTOCOL={protocol} does not use it: "
                f"set the protocol to {protocols}, or remove it"
            )
    security = KafkaSecurity(
        protocol=protocol,
        mechanism=(environ.get("KAFKA_SASL_MECHANISM") or "SCRAM-SHA-512").upper()
        if protocol.startswith("SASL")
        else "",
        username=environ.get("KAFKA_SASL_USERNAME", ""),
        password=_secret(environ, "KAFKA_SASL_PASSWORD"),
        ca_file=environ.get("KAFKA_SSL_CA_FILE", ""),
        cert_file=environ.get("KAFKA_SSL_CERT_FILE", ""),
        key_file=environ.get("KAFKA_SSL_KEY_FILE", ""),
        key_password=_secret(environ, "KAFKA_SSL_KEY_PASSWORD"),
    )
    if security.sasl and security.mechanism not in MECHANISMS:
        raise OperatorError(
            f"KAFKA_SASL_MECHANISM={security.mechanism}: choose one of {', '.join(MECHANISMS)}"
        )
    if security.sasl and not (security.username and security.password):
        raise OperatorError(
            f"KAFKA_SECURITY_PROTOCOL={protocol} needs KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD "
            "(or KAFKA_SASL_PASSWORD_FILE)"
        )
    if bool(security.cert_file) != bool(security.key_file):
        raise OperatorError("KAFKA_SSL_CERT_FILE and KAFKA_SSL_KEY_FILE go together: set both or neither")
    return security


def client_options(security: KafkaSecurity) -> dict[str, Any]:
    """The options of an aiokafka client; empty for plain text. Raises OperatorError for an unusable file."""
    if security.protocol == "PLAINTEXT":
        return {}
    options: dict[str, Any] = {"security_protocol": security.protocol}
    if security.tls:
        options["ssl_context"] = ssl_context(security)
    if security.sasl:
        options |= {
            "sasl_mechanism": security.mechanism,
            "sasl_plain_username": security.username,
            "sasl_plain_password": security.password,
        }
    return options


def ssl_context(security: KafkaSecurity) -> ssl.SSLContext:
    """TLS 1.2 or newer, with the configured certificate authority or the system's. Raises OperatorError."""
    try:
        context = ssl.create_default_context(cafile=security.ca_file or None)
    except (OSError, ssl.SSLError) as error:
        raise OperatorError(
            f"KAFKA_SSL_CA_FILE={security.ca_file} cannot be used ({error}); it must hold certificates in PEM"
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if security.cert_file:
        try:
            # Always pass a password, even an empty one: otherwise OpenSSL asks for it on the terminal.
            context.load_cert_chain(security.cert_file, security.key_file, lambda: security.key_password)
        except (OSError, ssl.SSLError) as error:
            raise OperatorError(
                f"KAFKA_SSL_CERT_FILE={security.cert_file} and KAFKA_SSL_KEY_FILE={security.key_file} cannot be used "
                f"({error}); both must be PEM and belong together, an encrypted key needs KAFKA_SSL_KEY_PASSWORD"
            ) from error
    return context


@cache
def process_security() -> KafkaSecurity:
    """The settings of this process, read from its environment at the first call. Raises OperatorError."""
    return read_security(os.environ)


@cache
def _process_options() -> dict[str, Any]:
    return client_options(process_security())


def connection_options(bootstrap: str) -> dict[str, Any]:
    """Address and security options: every aiokafka client of this process starts with these."""
    return {"bootstrap_servers": bootstrap, **_process_options()}


def _secret(environ: Mapping[str, str], name: str) -> str:
    """The secret in variable `name`, or the first line of the file that `name`_FILE names (container secrets)."""
    value, path = environ.get(name, ""), environ.get(f"{name}_FILE", "")
    if value and path:
        raise OperatorError(f"{name} and {name}_FILE exclude each other: set one")
    if not path:
        return value
    try:
        with Path(path).open("rb") as file:
            text = file.read(SECRET_BYTES_MAX).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise OperatorError(f"{name}_FILE={path} cannot be read: {error}") from error
    lines = text.splitlines()
    return lines[0] if lines else ""
