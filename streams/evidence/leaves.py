"""What a leaf of the tree is: one counted append, with its topic and its place, and without epochs.

Reads counted decisions; emits the bytes that a bundle holds and the 32 bytes that the tree holds of them. Epochs say
who wrote and not what: a log that was copied, or went on under another owner, has the same tree. Pure.
"""

from __future__ import annotations

import hashlib

import msgspec

from coordinator.streams.events import (
    CheckpointOpened,
    CheckpointWithheld,
    InputReceived,
    InputResolved,
    RoundAnswered,
    RoundOpened,
    RoundScored,
    ScopeAnswered,
)
from coordinator.streams.log.counting import Decision, canonical_records

LEAF_TOPICS = ("feeds", "inputs", "models", "predictions", "scores", "snapshots", "checkpoints")
"""Whose appends are leaves; in this order they follow each other within what a checkpoint adds. Of `commands`, which
anybody may write to, the effect stands in these.
"""
DRIVER = {"inputs": "feeds", "scores": "inputs", "snapshots": "scores", "checkpoints": "snapshots"}
"""Topic -> the one whose decisions its own are made of."""

_NAMING = frozenset(("inputs", "predictions", "scores", "checkpoints"))
_OF_AN_INPUT = frozenset(
    (InputReceived, InputResolved, RoundOpened, ScopeAnswered, RoundAnswered, RoundScored)
)


class Leafed(msgspec.Struct, frozen=True, array_like=True):
    """What is kept of one counted decision: its leaves, and what says how far a checkpoint reaches."""

    seq: int
    first_leaf: int
    """How many leaves its topic has before it."""
    entries: bytes
    """32 bytes a part."""
    driven_until: int = -1
    """The offset in the driver's topic that it decides up to."""
    models_seq: int = -1
    """Of `predictions`: the last decision of `models` that its rosters know."""
    names: list[str] = []
    """The inputs that it is about; of `checkpoints` the checkpoints that it builds."""
    ends: list[str] = []
    """Of `predictions` the inputs whose round it completes; of `inputs` those whose last horizon it resolves."""


def entry_of(topic: str, first_offset: int, offset: int, record: bytes) -> bytes:
    """The tree's 32 bytes of one append: SHA-256 over `<topic> <first offset> <offset>`, a line end, and the append.

    The offsets are those of its decision's first and last part: what other topics decided names them.
    """
    return hashlib.sha256(f"{topic} {first_offset} {offset}\n".encode() + record).digest()


def leafed(decision: Decision, first_leaf: int) -> Leafed:
    """What is kept of a decision whose topic has `first_leaf` leaves before it."""
    entries = b"".join(
        entry_of(decision.topic, decision.first_offset, decision.offset, record)
        for record in canonical_records(decision)
    )
    driver = DRIVER.get(decision.topic)
    driven = decision.upto.get(driver, (-1, 0))[0] if driver else -1
    names: dict[str, None] = {}
    ends: list[str] = []
    models_seq = -1
    for event in decision.events if decision.topic in _NAMING else ():
        kind = type(event)
        if kind in _OF_AN_INPUT:
            names[event.data.input_id] = None  # type: ignore[union-attr]
        match event:
            case RoundOpened(data=data):
                models_seq = max(models_seq, data.models_seq)
            case RoundAnswered(data=data):
                ends.append(data.input_id)
            case InputResolved(data=resolved) if resolved.last:
                ends.append(resolved.input_id)
            case CheckpointOpened(data=checkpoint):
                names[checkpoint.checkpoint_id] = None
            case CheckpointWithheld(data=withheld):
                names[withheld.checkpoint.checkpoint_id] = None
            case _:
                pass
    return Leafed(decision.seq, first_leaf, entries, driven, models_seq, list(names), ends)
