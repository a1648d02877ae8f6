"""Waits for a Kafka that does not answer yet, and finds out why it does not answer.

The client libraries try every address, log what failed, and raise only "unable to bootstrap". An operator with a wrong
password or an unknown certificate authority needs the reason. So `why_silent` opens one connection itself, and puts the
error into words. It reads only the answer to the handshake.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator

import stamina
from aiokafka.conn import create_conn
from aiokafka.errors import (
    IllegalSaslStateError,
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)

from coordinator.infra.kafka.security import connection_options, process_security
from coordinator.streams.log.errors import text_of

PROBE_SECONDS_MAX = 5.0


async def why_silent(bootstrap: str) -> str:
    """One line: why no connection to the first address of `bootstrap` is possible; "" if it is possible.

    Raises OperatorError when the security settings themselves cannot be used.
    """
    options = {
        key: value for key, value in connection_options(bootstrap).items() if key != "bootstrap_servers"
    }
    host, _, port = bootstrap.split(",", maxsplit=1)[0].strip().rpartition(":")
    if not host or not port.isdecimal():
        return f"{bootstrap!r} is not HOST:PORT"
    try:
        async with asyncio.timeout(PROBE_SECONDS_MAX):
            connection = await create_conn(host.strip("[]"), int(port), request_timeout_ms=4000, **options)
    except ssl.SSLCertVerificationError as error:
        return (
            f"its certificate is not trusted ({error.verify_message}): check KAFKA_SSL_CA_FILE, and that the "
            f"certificate names {host}"
        )
    except ssl.SSLError as error:
        return f"it does not speak TLS with us ({error.reason or error}): check KAFKA_SECURITY_PROTOCOL and the port"
    except (SaslAuthenticationFailed, IllegalSaslStateError, UnsupportedSaslMechanismError) as error:
        return (
            f"it refused {process_security().mechanism} as {process_security().username!r} ({error}): check "
            "KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD and KAFKA_SASL_MECHANISM"
        )
    except TimeoutError:
        return f"no answer within {PROBE_SECONDS_MAX:g} s"
    except (KafkaConnectionError, ConnectionResetError, asyncio.IncompleteReadError) as error:
        return f"it ended the connection ({text_of(error)}){_hint()}"
    except (KafkaError, OSError, EOFError) as error:
        return text_of(error)
    connection.close()
    return ""


def _hint() -> str:
    security = process_security()
    if security.protocol == "PLAINTEXT":
        return "; a broker that requires TLS or SASL does this: see KAFKA_SECURITY_PROTOCOL"
    return f"; KAFKA_SECURITY_PROTOCOL is {security.protocol}"


def until_kafka_answers(timeout_seconds: float, wait_seconds_max: float) -> AsyncIterator[stamina.Attempt]:
    """Attempts with growing pauses, from 0.1 s, until one succeeds. After the timeout the last error is raised."""
    return stamina.retry_context(
        on=(KafkaError, OSError),
        attempts=None,
        timeout=timeout_seconds,
        wait_initial=0.1,
        wait_max=wait_seconds_max,
    )
