"""Rotates the key that signs notes: makes the new key, asks for the rotation in the log, and waits for its decision.

Reads `checkpoints`; writes the new key's file first, then a `RotateEvidenceKey` to `commands`. The checkpoint stage
decides it (`streams/checkpoints/evidence_keys.py`), and the report worker signs by what the log says. So a process that
is killed between the two leaves a key that nothing uses yet, and the next call takes it up again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from coordinator.infra.evidence.signing_keys import signing_keys
from coordinator.infra.log.followed_topic import CommandedTopic
from coordinator.streams.events import CommandRefused, Event, EvidenceKeyRotated, RotateEvidenceKey
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.errors import CoordinatorError, OperatorError
from coordinator.streams.log.ids import content_id
from coordinator.streams.settings import Settings
from coordinator.streams.signing.rotation import rotation

DECIDED_SECONDS_MAX = 15.0
Send = Callable[[Event], Awaitable[int]]
"""Appends a command; returns its offset."""


class RotationRefusedError(CoordinatorError):
    """The checkpoint stage refused the rotation; the text has its reason."""


class Rotated(msgspec.Struct, frozen=True):
    """Both keys as public keys in text, and the file of the new one."""

    old_key: str
    new_key: str
    file: str


class KeysLog(CommandedTopic):
    """`async with KeysLog(settings) as log`: `await log.read()` folds the rotations and refusals in `checkpoints`."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings.kafka_bootstrap, settings.crunch_id, "checkpoints")
        self.successors: dict[str, str] = {}
        self._refused: dict[str, str] = {}

    def take(self, decision: Decision) -> None:
        """Fold one decision of the topic, in order."""
        kinds = ("EvidenceKeyRotated", "CommandRefused")
        for event in decision.events if decision.may_hold(*kinds) else ():
            if isinstance(event, EvidenceKeyRotated):
                self.successors.setdefault(event.data.old_key, event.data.new_key)
            elif isinstance(event, CommandRefused):
                self._refused[event.data.command_id] = event.data.reason
        super().take(decision)

    def refusal(self, command_id: str) -> str:
        """Why a command was refused; "" if it was not."""
        return self._refused.get(command_id, "")


async def rotate(settings: Settings, send: Send, at: int, on_sent: Callable[[int], None]) -> Rotated:
    """Rotate the key. `at` (ms) is the time of the command; `on_sent` gets its offset.

    Raises OperatorError (the key in force is not here), WorldError (Kafka does not answer, or nobody decides in time),
    RotationRefusedError.
    """
    if not settings.data_dir.is_dir():
        raise OperatorError(f"there is no data directory {settings.data_dir}, and the key is in it")
    keys = signing_keys(settings)
    async with KeysLog(settings) as log:
        await log.read()
        old, new = keys.signer(log.successors), keys.next_key(log.successors)
        data = rotation(old, new)
        command = RotateEvidenceKey(
            id=content_id("cmd", "rotate-evidence-key", data.old_key, data.new_key), at=at, data=data
        )
        offset = await send(command)
        on_sent(offset)
        again = "; until then, asking again asks for the same rotation"
        await log.until_decided(offset, "checkpoint", DECIDED_SECONDS_MAX, again)
        if log.successors.get(data.old_key) != data.new_key:
            raise RotationRefusedError(
                f"the rotation is refused: {log.refusal(command.id) or 'by no reason told'}"
            )
    return Rotated(data.old_key, data.new_key, str(keys.path_of(new)))
