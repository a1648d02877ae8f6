"""How we wait for a Kafka that does not answer yet: one retry for every admin client and reader that starts."""

from __future__ import annotations

from collections.abc import AsyncIterator

import stamina
from aiokafka.errors import KafkaError


def until_kafka_answers(timeout_seconds: float, wait_seconds_max: float) -> AsyncIterator[stamina.Attempt]:
    """Attempts, with growing pauses from 0.1 s on, until one succeeds. The last error is raised after the timeout."""
    return stamina.retry_context(
        on=(KafkaError, OSError),
        attempts=None,
        timeout=timeout_seconds,
        wait_initial=0.1,
        wait_max=wait_seconds_max,
    )
