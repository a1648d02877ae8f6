"""Reads checkpoints from their topics and sends commands about them, for `coordinator checkpoint`.

It asks the log, not the API, and folds it with the API's own read model, so both give the same answers. A command is
appended to `commands`; the checkpoint stage decides it, and this waits for that decision.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

from coordinator.api.payees import bind_before_confirm
from coordinator.cli.folded_log import FoldedLog
from coordinator.cli.own_kafka import refuse_undecided
from coordinator.infra.log.commands import KafkaCommandPort
from coordinator.infra.wallets_file import WalletsFile
from coordinator.projections.views.checkpoints import CheckpointRow, Checkpoints
from coordinator.streams.clock import wall_ms
from coordinator.streams.events import ConfirmCheckpoint
from coordinator.streams.log.errors import NodeRefusedError, OperatorError, WorldError
from coordinator.streams.log.ids import content_id
from coordinator.streams.settings import Settings

DECIDED_SECONDS_MAX = 15.0


class CheckpointsLog(FoldedLog):
    """`async with CheckpointsLog(settings) as log`: `log.read_model` holds every checkpoint as of the last `read()`."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, Checkpoints.name)
        self.read_model = self._opened(Checkpoints)

    def find(self, beginning: str) -> CheckpointRow:
        """The checkpoint whose id is `beginning`, or the only one whose id begins so; `latest` is the newest one
        offered.

        Raises OperatorError.
        """
        if beginning == "latest":
            latest = self.read_model.latest_offered()
            if latest is None:
                raise OperatorError("no checkpoint has been offered yet")
            return latest
        matching = [
            row for row in self.read_model.newest() if row.checkpoint.checkpoint_id.startswith(beginning)
        ]
        exact = [row for row in matching if row.checkpoint.checkpoint_id == beginning]
        if len(matching) != 1 and not exact:
            what = (
                f"{len(matching)} checkpoints' ids begin with"
                if matching
                else "no checkpoint's id begins with"
            )
            raise OperatorError(f"{what} {beginning!r}; see `coordinator checkpoint list`")
        return (exact or matching)[0]

    async def decide(self, kind: type[Any], data: Any) -> CheckpointRow:
        """Append the command, wait for its decision, give the checkpoint as it then stands.

        Raises NodeRefusedError with the stage's reason, WorldError when nobody decides in time.
        """
        at = wall_ms()
        the_id = content_id("cmd", kind.__name__, data.checkpoint_id, str(at), secrets.token_hex(8))
        port = KafkaCommandPort(self.settings.kafka_bootstrap, self.settings.crunch_id)
        await port.start()
        try:
            if kind is ConfirmCheckpoint:
                row = self.read_model.get(data.checkpoint_id)
                wallets = WalletsFile(self.settings.wallets_file)
                await bind_before_confirm(port, row, self.read_model, wallets, at)
            offset = await port.send(kind(id=the_id, at=at, data=data))
        finally:
            await port.stop()
        refuse_undecided(self.settings, offset)
        try:
            async with asyncio.timeout(DECIDED_SECONDS_MAX):
                while self.read_model.commands_decided < (offset, 0):
                    await self.read()
        except TimeoutError:
            raise WorldError(
                f"the command is in the log (offset {offset}), but no checkpoint worker has decided it in "
                f"{DECIDED_SECONDS_MAX:g} s; it will be decided when one runs, and you can safely run the command again"
            ) from None
        if (refusal := self.read_model.refusal(the_id)) is not None:
            raise NodeRefusedError(f"refused in state {refusal.state}: {refusal.reason}")
        row = self.read_model.get(data.checkpoint_id)
        if row is None:
            raise NodeRefusedError(f"there is no checkpoint {data.checkpoint_id}")
        return row
