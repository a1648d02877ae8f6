"""Faust drives a stage: it gives the consumer group, the assignment, the live delivery and the commits.

One app per stage (a rebalance of one does not stop the others), one agent with concurrency 1 on the
driving topic, raw bytes in. What one fetch brought is one event: Faust takes a fifth of a millisecond
for each. No Faust tables, windows or exactly-once mode: see the module heads of `ownership` and
`tenure` for what stands in their place. The committed offset is a hint only; what a stage has decided
stands in its own topic.
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
"""In one event; of 25 kB each, with a hundred models."""
FETCHES_AHEAD_MAX = 3
BUFFERED_FETCHES_MAX = 8
"""Faust would hold 4,096 that wait at the gate."""
ROOM_SECONDS_MAX = 0.5


class FetchesAhead:
    """What was fetched and waits for the agent, by the offset of each fetch's last record.

    Faust has a bound of its own, `BUFFERED_FETCHES_MAX`. Once that is reached it looks again a second later, when the
    agent has long had nothing to do. So a fetch waits here for room, before that bound is reached.
    """

    def __init__(self) -> None:
        self._waiting: deque[int] = deque()
        self._moved = asyncio.Event()

    async def room(self) -> None:
        """Return once the agent is near. Not for ever: what Faust threw away in a rebalance is never taken."""
        if len(self._waiting) >= FETCHES_AHEAD_MAX:
            self._moved.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._moved.wait(), ROOM_SECONDS_MAX)

    def fetched(self, offset: int) -> None:
        """This was given to Faust."""
        self._waiting.append(offset)

    def taken(self, offset: int) -> None:
        """The agent has it."""
        while self._waiting and self._waiting[0] <= offset:
            self._waiting.popleft()
        self._moved.set()

    def forget(self) -> None:
        """After an assignment offsets may go back."""
        self._waiting.clear()
        self._moved.set()


class _Consumer(aiokafka.Consumer):
    """Gives all records of one fetch as one message, at the offset of the last one.

    Its value is [(offset, value), ..]. Faust takes the offsets before the last one for a gap and may commit them before
    the agent has seen them. That loses nothing: a new owner reads what its own topic has not decided, and a hole in the
    delivery is read from the log (`Tenure.deliver`).
    """

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> dict[TP, list[Any]]:
        ahead: FetchesAhead = self.app.ahead  # type: ignore[attr-defined]
        await ahead.room()
        fetched = await super()._getmany(active_partitions, timeout)
        for records in fetched.values():
            ahead.fetched(records[-1].offset)
        return {partition: [_as_one(records)] for partition, records in fetched.items() if records}


def _as_one(records: Sequence[Any]) -> Any:
    return dataclasses.replace(records[-1], value=[(one.offset, one.value or b"") for one in records])


class _Transport(aiokafka.Transport):
    Consumer = _Consumer


class _App(faust.App):
    """An app without tables, which therefore needs no folder: in a container there may be none that it could make."""

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
    tell: Callable[[BaseException], Awaitable[None]],
) -> faust.App:
    """A Faust app whose agent hands the records of `driver` to the keeper, a fetch at a time, and which tells it the
    assignment. `tell` hears what ends the process before it does.
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
        broker_max_poll_records=FETCHED_RECORDS_MAX,
        broker_max_poll_interval=3600.0,
        stream_buffer_maxsize=BUFFERED_FETCHES_MAX,
        stream_wait_empty=False,
        value_serializer="raw",
        key_serializer="raw",
        datadir=os.path.join(os.devnull, "no-tables"),  # noqa: PTH118 - a place where nobody can make a folder
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
            except BaseException as error:  # noqa: BLE001 - Faust would acknowledge the record and go on
                await tell(error)
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
