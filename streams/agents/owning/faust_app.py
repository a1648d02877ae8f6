"""Faust drives a stage: it gives the consumer group, the assignment, the live delivery and the commits.

One app per stage (a rebalance of one does not stop the others), one agent with concurrency 1 on the
driving topic, raw bytes in. No Faust tables, windows or exactly-once mode: see the module heads of
`ownership` and `tenure` for what stands in their place. The committed offset is a hint only; what a
stage has decided stands in its own topic.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

import faust
import structlog
from faust.types import TP, StreamT

from coordinator.infra.disk import full_disk_of
from coordinator.infra.kafka.clients import PARTITION
from coordinator.infra.kafka.security import process_security, ssl_context
from coordinator.streams.agents.owning.keeper import Keeper
from coordinator.streams.log.errors import CoordinatorError, OperatorError
from coordinator.streams.settings import Settings
from coordinator.streams.topology import topic_name

log = structlog.get_logger()

OPERATOR_EXIT_CODE = 2
OUR_BUG_EXIT_CODE = 70
BUFFERED_RECORDS_MAX = 256
"""Faust would hold 4,096 records that wait at the gate: of 25 kB each, with a hundred models."""


class _App(faust.App):
    """An app without tables, which therefore needs no folder: in a container there may be none that it could make."""

    def _create_directories(self) -> None:
        pass


def stage_app(
    settings: Settings,
    stage_name: str,
    driver: str,
    keeper: Keeper,
    tell: Callable[[BaseException], Awaitable[None]],
) -> faust.App:
    """A Faust app whose agent hands every record of `driver` to the keeper, and which tells it the assignment. `tell`
    hears what ends the process before it does.
    """
    topic = topic_name(settings.crunch_id, driver)
    partition = TP(topic, PARTITION)
    app = _App(
        f"{settings.crunch_id}-{stage_name}",
        broker=[f"aiokafka://{one}" for one in settings.kafka_bootstrap.split(",")],
        broker_credentials=_credentials(),
        store="memory://",
        autodiscover=False,
        web_enabled=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        topic_partitions=1,
        consumer_auto_offset_reset="earliest",
        broker_session_timeout=settings.session_timeout_seconds,
        broker_heartbeat_interval=settings.heartbeat_seconds,
        broker_commit_interval=1.0,
        broker_max_poll_interval=3600.0,
        stream_buffer_maxsize=BUFFERED_RECORDS_MAX,
        stream_wait_empty=False,
        value_serializer="raw",
        key_serializer="raw",
        datadir=os.path.join(os.devnull, "no-tables"),  # noqa: PTH118 - a place where nobody can make a folder
    )
    channel = app.topic(topic, key_type=bytes, value_type=bytes, value_serializer="raw", key_serializer="raw")

    @app.agent(channel, name=f"{stage_name}-agent", concurrency=1)
    async def agent(stream: StreamT[bytes]) -> None:
        async for event in stream.events():
            try:
                await keeper.deliver(event.message.offset, event.message.value or b"")
            except asyncio.CancelledError:
                raise
            except BaseException as error:  # noqa: BLE001 - Faust would acknowledge the record and go on
                await tell(error)
                end_process(stage_name, error)

    def assigned(*args: Any, **_kwargs: Any) -> None:
        keeper.assigned(ours=partition in args[1])

    def revoked(*args: Any, **_kwargs: Any) -> None:
        log.info("partitions_revoked", stage=stage_name, ours=partition in args[1])

    app.on_partitions_assigned.connect(assigned, weak=False)
    app.on_partitions_revoked.connect(revoked, weak=False)
    return app


def _credentials() -> faust.auth.Credentials | None:
    """What Faust's own consumer shows the broker: the same as our clients."""
    security = process_security()
    context = ssl_context(security) if security.tls else None
    if security.sasl:
        return faust.SASLCredentials(
            username=security.username,
            password=security.password,
            ssl_context=context,
            mechanism=security.mechanism,
        )
    return None if context is None else faust.SSLCredentials(context)


def end_process(worker: str, error: BaseException | None) -> NoReturn:
    """End this process at once, before anything more is acknowledged, with the reason said in one line.

    0: told to stop. 2: the operator must change something. 70: the log or the world will not let us go on, or a bug
    of ours, which comes with its traceback.
    """
    code = 0
    if error is not None:
        error = full_disk_of(error) or error
    if isinstance(error, CoordinatorError):
        code = OPERATOR_EXIT_CODE if isinstance(error, OperatorError) else OUR_BUG_EXIT_CODE
        event = "operator_error" if isinstance(error, OperatorError) else "stopped"
        log.error(event, error=f"{type(error).__name__}: {error}")
        sys.stderr.write(f"coordinator worker {worker}: {error}\n")
    elif error is not None:
        code = OUR_BUG_EXIT_CODE
        log.error("crashed", error=f"{type(error).__name__}: {error}", exc_info=error)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
