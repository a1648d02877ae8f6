"""The shadow's process: follows the topics read-only, decides by the other rules, and writes files that others read.

It commits nothing, writes to no topic and serves nothing. It keeps its state when it has caught up, then every
KEPT_SECONDS; after a crash it reads on from there.
"""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import AsyncExitStack
from pathlib import Path

import structlog

from coordinator.cli.shared import node_settings
from coordinator.infra.blobs.store_by_settings import store_of
from coordinator.infra.contracts.archive import unpack
from coordinator.infra.contracts.node_contracts import NodeContracts
from coordinator.infra.log.followed_topic import FollowedTopic
from coordinator.infra.log.own_log import OwnLog
from coordinator.infra.saved_runs import SavedRuns
from coordinator.infra.shadow_files import ShadowFiles, ShadowOrder, ShadowResult, ShadowStatus
from coordinator.streams.clock import wall_ms
from coordinator.streams.contract import CrunchContract
from coordinator.streams.engine.engine import StaleStateError
from coordinator.streams.engine.shadow import TOPICS_READ, Shadow, begun_with
from coordinator.streams.log.errors import ContractError, OperatorError, WorldError
from coordinator.streams.log.reasons import as_reason
from coordinator.streams.ports import Blobs

LOOK_SECONDS = 1.0
RETRY_SECONDS = 5.0
KEPT_SECONDS = 15.0
STEPS = 200
"""Decisions of the feed between two looks at whether it should stop."""
NICENESS = 10
"""The node's workers go first where CPU is scarce."""
_log = structlog.get_logger()


class ShadowProcess:
    """`run` until it is told to stop, by the order's file or by `stop`."""

    def __init__(
        self, files: ShadowFiles, data_dir: Path | None, kafka: str | None, stop: asyncio.Event
    ) -> None:
        self._files, self._data_dir, self._kafka, self._stop = files, data_dir, kafka, stop
        order = files.order()
        if order is None:
            raise OperatorError(
                "no shadow was started here: `coordinator shadow start --contract MODULE:NAME`"
            )
        self._order: ShadowOrder = order
        self._shadow: Shadow | None = None
        self._log, self._data = "", files.folder.parent
        self._feeds_end = 0
        self._kept_at = time.monotonic()
        self._clock_kept = -1
        self._decided_shown: object = None

    async def run(self) -> None:
        """Follow the log. Kafka that does not answer is waited for; anything else ends it, and is shown in the status.

        Raises what a stage or a contract raises, OperatorError for rules that ask the models something else.
        """
        os.nice(NICENESS)
        try:
            while not self._told_to_stop():
                try:
                    await self._follow()
                except WorldError as error:
                    _log.warning("shadow_waits", reason=str(error))
                    self._say(waiting=str(error))
                    self._shadow = None  # begun again at what was kept
                    await self._pause(RETRY_SECONDS)
        except BaseException as error:
            self._say(error=as_reason(f"{type(error).__name__}: {error}") or type(error).__name__)
            raise
        self._keep()
        self._say(ended=True)

    async def _follow(self) -> None:
        settings, _ = node_settings(self._data_dir, self._kafka)
        if settings.crunch_id != self._order.rules.crunch_id:
            raise OperatorError(
                f"the shadow belongs to crunch {self._order.rules.crunch_id}, but this is crunch {settings.crunch_id}"
            )
        own = OwnLog(settings.kafka_bootstrap, settings.crunch_id, None)
        await own.check()
        self._log, self._data = own.identity, settings.data_dir
        shadow = self._shadow = self._begun(NodeContracts(settings), store_of(settings))
        async with AsyncExitStack() as stack:
            topics = {
                topic: await stack.enter_async_context(
                    FollowedTopic(settings.kafka_bootstrap, settings.crunch_id, topic, shadow.needs[topic])
                )
                for topic in TOPICS_READ
            }
            while not self._told_to_stop():
                for topic, followed in topics.items():
                    await self._read(shadow, topic, followed)
                stepped = await asyncio.to_thread(_steps, shadow)
                self._show()
                self._say()
                first = stepped < STEPS and self._clock_kept < 0  # it has caught up
                if first or time.monotonic() - self._kept_at >= KEPT_SECONDS:
                    self._keep()
                if stepped < STEPS:
                    await self._pause(LOOK_SECONDS)

    async def _read(self, shadow: Shadow, topic: str, followed: FollowedTopic) -> None:
        def progress(_done: int, total: int) -> None:
            if topic == "feeds":
                self._feeds_end = total

        if shadow.wants(topic):
            async for decision in followed.decisions(progress, lambda: not shadow.wants(topic)):
                shadow.take(decision)

    def _begun(self, contracts: NodeContracts, blobs: Blobs) -> Shadow:
        rules = self._order.rules
        key = rules.terms.contract_hash
        archive = self._files.contracts.get(key)
        if archive is None:
            raise OperatorError("the shadow's contract is not in the data directory: start the shadow again")
        new = unpack(archive, key)

        def contract_of(contract_hash: str) -> CrunchContract:
            return new if contract_hash == key else contracts.shelf(contract_hash)

        state = self._files.kept(self._log)
        run = None if state else SavedRuns(self._data, self._log).before(rules.from_ms)
        try:
            shadow = Shadow(rules, contract_of, state if run is None else begun_with(rules, run), blobs)
        except StaleStateError as error:
            _log.info("shadow_begins_at_the_first_event", reason=str(error))
            shadow = Shadow(rules, contract_of, blobs=blobs)
        _log.info("shadow_reads_on", feeds_offset=shadow.needs["feeds"].offset)
        return shadow

    def _told_to_stop(self) -> bool:
        if self._stop.is_set():
            return True
        order = self._files.order()
        return order is None or order.stopped or order.rules != self._order.rules

    async def _pause(self, seconds: float) -> None:
        """Wait, or until it is told to stop."""
        until = time.monotonic() + seconds
        waited = asyncio.ensure_future(self._stop.wait())
        while not self._told_to_stop() and (left := until - time.monotonic()) > 0:
            await asyncio.wait((waited,), timeout=min(left, LOOK_SECONDS))
        waited.cancel()

    def _keep(self) -> None:
        self._kept_at = time.monotonic()
        if self._shadow is not None and self._shadow.clock != self._clock_kept:
            self._files.put_kept(self._log, self._shadow.keep())
            self._clock_kept = self._shadow.clock

    def _show(self) -> None:
        """Write the result if there is anything new in it: the report worker decodes it whenever it is written."""
        shadow = self._shadow
        if shadow is None:
            return
        needs, last = shadow.needs, shadow.new.periods[-1:]
        decided = (shadow.new.board_end, last, needs["snapshots"].offset, needs["checkpoints"].offset)
        if decided != self._decided_shown:
            self._files.put_result(
                ShadowResult(key=self._order.rules.key, clock=shadow.clock, new=shadow.new, live=shadow.live)
            )
            self._decided_shown = decided

    def _say(self, *, error: str = "", waiting: str = "", ended: bool = False) -> None:
        shadow = self._shadow
        self._files.put_status(
            ShadowStatus(
                key=self._order.rules.key,
                pid=os.getpid(),
                at_ms=wall_ms(),
                clock=0 if shadow is None else shadow.clock,
                feeds_read=0 if shadow is None else shadow.needs["feeds"].offset,
                feeds_end=self._feeds_end,
                error=error,
                waiting=waiting,
                ended=ended,
            )
        )


def _steps(shadow: Shadow) -> int:
    """Decide up to STEPS decisions of the feed: how many there were. Raises OperatorError for a contract that fails."""
    count = 0
    try:
        while count < STEPS and shadow.step():
            count += 1
    except ContractError as error:
        raise OperatorError(f"the shadow's contract failed: {error}") from error
    return count
