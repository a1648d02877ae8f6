"""Decides the rotation of the key that signs notes about the log (`RotateEvidenceKey`).

Pure. The stage refuses what whoever follows the keys would have to refuse: a rotation that not both keys signed, and a
second successor of the same key. It does not know which key the node began with. So a rotation between two keys that
nobody trusts is recorded, and has no effect on anybody.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from coordinator.streams.events import (
    CommandRefused,
    CommandRefusedData,
    EvidenceKeyRotated,
    EvidenceKeyRotatedData,
    RotateEvidenceKey,
)
from coordinator.streams.log.ids import content_id
from coordinator.streams.log.reasons import as_reason

TEXT_CHARS_MAX = 1000
"""A key has its name and 60 more characters, a signature 88. What is longer is refused before it is decoded."""


def decide_rotation(
    event: RotateEvidenceKey, successors: Mapping[str, str], crunch_id: str
) -> Iterator[EvidenceKeyRotated | CommandRefused]:
    """The events that the command makes; none if the rotation is recorded already."""
    data = event.data
    if successors.get(data.old_key) == data.new_key:
        return
    fault, http_status = _fault(event, successors, crunch_id)
    if fault:
        refused = CommandRefusedData(
            command_id=event.id,
            command_kind=type(event).__name__,
            checkpoint_id="",
            reason=as_reason(fault, 500),
            state="",
            http_status=http_status,
        )
        yield CommandRefused(id=f"{event.id}:refused", at=event.at, data=refused)
        return
    yield EvidenceKeyRotated(
        id=content_id("key-rotation", data.old_key, data.new_key),
        at=event.at,
        data=EvidenceKeyRotatedData(**msgspec.structs.asdict(data), command_id=event.id),
    )


def _fault(event: RotateEvidenceKey, successors: Mapping[str, str], crunch_id: str) -> tuple[str, int]:
    """(why the command is refused, the HTTP status that says whose fault it is); ("", 0) if it is not."""
    # `cryptography` comes with a node. A backtest runs this stage without it, and has no such command.
    from coordinator.streams.signing.rotation import rotation_fault  # noqa: PLC0415

    data = event.data
    if any(
        len(text) > TEXT_CHARS_MAX
        for text in (data.old_key, data.new_key, data.old_signature, data.new_signature)
    ):
        return f"a key or a signature has more than {TEXT_CHARS_MAX} characters", 422
    if fault := rotation_fault(data, f"coordinator/{crunch_id}"):
        return fault, 422
    if data.old_key in successors:
        return f"{data.old_key} was rotated already, to {successors[data.old_key]}", 409
    if data.new_key in {*successors, *successors.values()}:
        return f"{data.new_key} was in force before: make a new key", 409
    return "", 0
