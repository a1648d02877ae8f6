"""The leaves of the tree: a leaf is one counted append, with its topic and its position, and without epochs.

Pure. Takes counted decisions, returns the 32 bytes of each append for the tree. An epoch says who wrote an append and
not what it says, so a copy of a log, or a log that another owner continued, has the same tree.
"""

from __future__ import annotations

import hashlib

import msgspec

from coordinator.streams.events import (
    AnswersClosed,
    CheckpointOpened,
    CheckpointWithheld,
    EvidenceKeyRotated,
    InputReceived,
    InputResolved,
    RoundAnswered,
    RoundOpened,
    RoundRescored,
    RoundScored,
    ScopeAnswered,
)
from coordinator.streams.log.counting import Decision, canonical_records
from coordinator.streams.log.ids import is_question

LEAF_TOPICS = ("feeds", "inputs", "models", "predictions", "scores", "snapshots", "checkpoints")
"""The topics whose appends are leaves, in their order within a batch. `commands` has none, because anybody may write
to it; its effects are in these topics.
"""
DRIVER = {"inputs": "feeds", "scores": "inputs", "snapshots": "scores", "checkpoints": "snapshots"}
"""Topic -> the topic whose decisions its own decide."""

_NAMING = frozenset(("inputs", "predictions", "scores", "checkpoints"))
_OF_AN_INPUT = frozenset(
    (InputReceived, InputResolved, RoundOpened, ScopeAnswered, RoundAnswered, RoundScored, RoundRescored)
)


class Leafed(msgspec.Struct, frozen=True, array_like=True):
    """The row of one counted decision: its leaves, and what `extent.py` needs to find how far a checkpoint reaches."""

    seq: int
    first_leaf: int
    """The number of leaves of its topic before it."""
    entries: bytes
    """32 bytes for each part of the decision."""
    driven_until: int = -1
    """The offset in its driver up to which it decides."""
    models_seq: int = -1
    """In `predictions`: the last decision of `models` that its rosters are made from."""
    names: list[str] = []
    """The inputs that it is about; in `checkpoints` the checkpoints that it builds."""
    ends: list[str] = []
    """In `predictions` the inputs whose rounds it completes, all of a posted question together; in `inputs` those whose
    last horizon it resolves; in `scores` those that it scores for the first time; in `checkpoints` the rotations of the
    signing key, each as `<old key> <new key>`.
    """


def entry_of(topic: str, first_offset: int, offset: int, record: bytes) -> bytes:
    """The 32 bytes of an append in the tree: SHA-256 over `<topic> <first offset> <offset>`, a line end, and the
    append.

    The offsets are those of the first and last part of its decision. They are included because decisions of other
    topics refer to them.
    """
    return hashlib.sha256(f"{topic} {first_offset} {offset}\n".encode() + record).digest()


def leafed(decision: Decision, first_leaf: int) -> Leafed:
    """The row of a decision. `first_leaf`: the number of leaves of its topic before it."""
    entries = b"".join(
        entry_of(decision.topic, decision.first_offset, decision.offset, record)
        for record in canonical_records(decision)
    )
    driver = DRIVER.get(decision.topic)
    driven_until = decision.upto.get(driver, (-1, 0))[0] if driver else -1
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
            case RoundAnswered(data=data) if not is_question(data.input_id):
                ends.append(data.input_id)
            case AnswersClosed(data=closed):
                ends.append(closed.input_id)
            case RoundScored(data=scored):
                ends.append(scored.input_id)
            case InputResolved(data=resolved) if resolved.last:
                ends.append(resolved.input_id)
            case CheckpointOpened(data=checkpoint):
                names[checkpoint.checkpoint_id] = None
            case EvidenceKeyRotated(data=rotated):
                ends.append(f"{rotated.old_key} {rotated.new_key}")
            case CheckpointWithheld(data=withheld):
                names[withheld.checkpoint.checkpoint_id] = None
            case _:
                pass
    return Leafed(decision.seq, first_leaf, entries, driven_until, models_seq, list(names), ends)
