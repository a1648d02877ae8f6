"""Faust drives a stage: it brings the consumer group, the assignment, the live delivery and the commits.

One app per stage, so that a rebalance of one does not stop the others. One agent with concurrency 1 reads the driving
topic as raw bytes. All records of one fetch are one event, because Faust takes a fifth of a millisecond per event.
Faust's tables, windows and exactly-once mode are not used: `ownership` and `tenure` say what replaces them. The
committed offset is only a hint; the stage's own topic says what it has decided.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NoReturn

import faust
import structlog
from faust.transport.drivers import aiokafka
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
FETCHED_RECORDS_MAX = 64
"""Records per event; with a hundred models a record has 25 kB."""
FETCHES_AHEAD_MAX = 3
BUFFERED_FETCHES_MAX = 8
"""Faust's default would hold 4,096 fetches while the gate is closed."""
ROOM_SECONDS_MAX = 0.5
COMMIT_SECONDS = 5.0
"""A commit costs Faust 10 ms of CPU. What is delivered again after a start was decided, and is passed over."""
REQUEST_SECONDS = 90.0


class FetchesAhead:
    """The fetches that wait for the agent, each by the offset of its last record.

    Faust has a bound, too, `BUFFERED_FETCHES_MAX`. But when it is reached Faust fetches again only a second later, and
    meanwhile the agent runs out of records. So a fetch waits here before that bound is reached.
    """

    def __init__(self) -> None:
        self._waiting: deque[int] = deque()
        self._moved = asyncio.Event()

    async def room(self) -> None:
        """Return when fewer than FETCHES_AHEAD_MAX fetches wait.

        At most ROOM_SECONDS_MAX: the agent never takes what Faust dropped in a rebalance.
        """
        if len(self._waiting) >= FETCHES_AHEAD_MAX:
            self._moved.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ROOM_SECONDS_MAX):
                    await self._moved.wait()

    def fetched(self, offset: int) -> None:
        """Note a fetch that was handed to Faust."""
        self._waiting.append(offset)

    def taken(self, offset: int) -> None:
        """Note that the agent has taken the fetches up to this offset."""
        while self._waiting and self._waiting[0] <= offset:
            self._waiting.popleft()
        self._moved.set()

    def forget(self) -> None:
        """Forget all fetches: after an assignment the offsets may go back."""
        self._waiting.clear()
        self._moved.set()


class _Consumer(aiokafka.Consumer):
    """Hands all records of one fetch to Faust as one message, with the offset of the last record.

    The message's value is [(offset, value), ..]. Faust takes the offsets before the last one for a gap, and may commit
    them before the agent has seen them. Nothing is lost by that: a new owner reads what its own topic has not decided,
    and a hole in the delivery is read from the log (`Tenure.deliver`).
    """

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> dict[TP, list[Any]]:
        ahead: FetchesAhead = self.app.ahead  # type: ignore[attr-defined]
        await ahead.room()
        fetched = await super()._getmany(active_partitions, timeout)
        for records in fetched.values():
            ahead.fetched(records[-1].offset)
        return {partition: [_one_message(records)] for partition, records in fetched.items() if records}


def _one_message(records: Sequence[Any]) -> Any:
    return dataclasses.replace(
        records[-1], value=[(record.offset, record.value or b"") for record in records]
    )


class _Transport(aiokafka.Transport):
    Consumer = _Consumer


class _App(faust.App):
    """An app without tables. It creates no folder: in a container there may be no place where it can."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.ahead = FetchesAhead()
        super().__init__(*args, **options)

    def _new_transport(self) -> _Transport:
        return _Transport(self.conf.broker_consumer, self)

    def _create_directories(self) -> None:
        pass


def stage_app(
    settings: Settings,
    stage_name: str,
    driver: str,
    keeper: Keeper,
    on_fault: Callable[[BaseException], Awaitable[None]],
) -> faust.App:
    """A Faust app that hands the records of `driver` to the keeper, a fetch at a time, and tells it the assignment.

    `on_fault` is called with an error of the keeper before that error ends the process.
    """
    topic = topic_name(settings.crunch_id, driver)
    partition = TP(topic, PARTITION)
    app = _App(
        f"{settings.crunch_id}-{stage_name}",
        broker=[f"aiokafka://{address}" for address in settings.kafka_bootstrap.split(",")],
        broker_credentials=_credentials(),
        store="memory://",
        autodiscover=False,
        web_enabled=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        topic_partitions=1,
        consumer_auto_offset_reset="earliest",
        broker_session_timeout=settings.session_timeout_seconds,
        # Faust refuses a session that is longer.
        broker_request_timeout=max(REQUEST_SECONDS, settings.session_timeout_seconds),
        broker_heartbeat_interval=settings.heartbeat_seconds,
        broker_commit_interval=COMMIT_SECONDS,
        broker_max_poll_records=FETCHED_RECORDS_MAX,
        broker_max_poll_interval=3600.0,
        stream_buffer_maxsize=BUFFERED_FETCHES_MAX,
        stream_wait_empty=False,
        value_serializer="raw",
        key_serializer="raw",
        datadir=os.path.join(os.devnull, "no-tables"),  # noqa: PTH118 - a path where no folder can be created
    )
    channel = app.topic(topic, key_type=bytes, value_serializer="raw", key_serializer="raw")

    @app.agent(channel, name=f"{stage_name}-agent", concurrency=1)
    async def agent(stream: StreamT[list[tuple[int, bytes]]]) -> None:
        async for event in stream.events():
            app.ahead.taken(event.message.offset)
            try:
                await keeper.deliver(event.message.value)
            except asyncio.CancelledError:
                raise
            except BaseException as error:  # noqa: BLE001 - Faust would acknowledge the record and continue
                await on_fault(error)
                end_process(stage_name, error)

    def assigned(*args: Any, **_kwargs: Any) -> None:
        app.ahead.forget()
        keeper.assigned(ours=partition in args[1])

    def revoked(*args: Any, **_kwargs: Any) -> None:
        log.info("partitions_revoked", stage=stage_name, ours=partition in args[1])

    app.on_partitions_assigned.connect(assigned, weak=False)
    app.on_partitions_revoked.connect(revoked, weak=False)
    return app


def _credentials() -> faust.auth.Credentials | None:
    """The credentials of Faust's consumer, the same as those of our clients; None without TLS and SASL."""
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
    """End this process at once, before anything more is acknowledged; one line on stderr gives the reason.

    Exit code 0: it was told to stop. 2: the operator must change something. 70: the log or the world does not let it
    continue, or it has a bug, which is logged with its traceback.
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
