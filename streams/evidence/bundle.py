"""The format of a bundle: the log up to one checkpoint, and what is needed to judge it without the node.

Pure; reads and writes bytes. The members of a bundle:

- `manifest.json`;
- `note`, the signed checkpoint of the tree;
- `tile/<level>/..`, the hashes of the whole tree;
- `log/<topic>`, the counted appends in order, without epochs, as they are hashed; `log/commands` as they are in the
  topic, but for the answers that were handed in. The contracts are in the commands that applied them;
- `payout/..`, the payment in all its forms.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import IO

import msgspec

from coordinator.streams.events import SubmitAnswers
from coordinator.streams.evidence.cut import Cut
from coordinator.streams.evidence.extent import Batch
from coordinator.streams.evidence.leaves import LEAF_TOPICS
from coordinator.streams.log.counting import Decision, canonical_records
from coordinator.streams.log.envelope import Need, decode_append, encode_event
from coordinator.streams.log.errors import CoordinatorError
from coordinator.streams.log.plain_topics import PlainCounter

FORMAT = "coordinator-bundle/1"
MANIFEST, NOTE = "manifest.json", "note"
LOG_TOPICS = ("commands", *LEAF_TOPICS)
RECORD_BYTES_MAX = 64 * 1024 * 1024
DECISION_BYTES_MAX = 4 * RECORD_BYTES_MAX
"""All parts of one decision together: they are in memory at once."""
_FRAME = struct.Struct(">QQI")

STEP_OF = {
    "feeds": "feed",
    "inputs": "input",
    "models": "predictions",
    "predictions": "predictions",
    "scores": "scores",
    "snapshots": "snapshots",
    "checkpoints": "checkpoint",
    "commands": "checkpoint",
}
"""Topic -> the step of the audit that its appends belong to."""


class BundleRefusedError(CoordinatorError):
    """The file is not a bundle that can be judged: it is cut, hostile, or of another format."""


class Manifest(msgspec.Struct, frozen=True):
    """What the bundle is about. Nothing in it is trusted: it only says what to look for.

    `versions`: package -> version, for the libraries that the node ran with.
    """

    format: str
    crunch_id: str
    checkpoint_id: str
    copy_of: str
    key: str
    """The node's public key, by its own word. A policy says which keys are trusted."""
    versions: dict[str, str]
    batches: list[Batch]
    """Which leaves belong to which topic. It is checked against the log; before that it serves to name what is
    missing.
    """
    cut: Cut | None = None
    """Where the bundle begins, if not with the first append. `batches` are those after it."""


def encode_manifest(manifest: Manifest) -> bytes:
    """The manifest as JSON with sorted keys and without spaces, so that it has only one form."""
    return msgspec.json.encode(manifest, order="deterministic")


def decode_manifest(content: bytes) -> Manifest:
    """Raises BundleRefusedError."""
    try:
        manifest = msgspec.json.decode(content, type=Manifest)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BundleRefusedError(f"{MANIFEST} cannot be read: {error}") from None
    if manifest.format != FORMAT:
        raise BundleRefusedError(
            f"the bundle has the format {manifest.format[:60]!r}; this version reads {FORMAT}"
        )
    return manifest


def frames_of(decision: Decision) -> Iterator[bytes]:
    """The bytes of one decision within its topic's member; of answers that were handed in, that they were."""
    records = [_command(decision)] if decision.topic == "commands" else canonical_records(decision)
    for record in records:
        yield _FRAME.pack(decision.first_offset, decision.offset, len(record)) + record


def read_frames(member: IO[bytes], name: str) -> Iterator[tuple[int, int, bytes]]:
    """(first offset, offset, append) of each frame of a member. Raises BundleRefusedError."""
    while head := member.read(_FRAME.size):
        if len(head) < _FRAME.size:
            raise BundleRefusedError(f"{name} is cut within a record's head")
        first_offset, offset, length = _FRAME.unpack(head)
        if length > RECORD_BYTES_MAX or first_offset > offset or offset >= 1 << 62:
            raise BundleRefusedError(f"{name} holds a record of impossible length or place")
        record = member.read(length)
        if len(record) < length:
            raise BundleRefusedError(f"{name} is cut within a record")
        yield first_offset, offset, record


def decisions_in(
    topic: str, frames: Iterable[tuple[int, int, bytes]], complete_from: int
) -> Iterator[Decision]:
    """The decisions of a topic's member. Raises BundleRefusedError if a number is repeated, or one from `complete_from`
    on is missing.
    """
    if topic == "commands":
        yield from _commands(frames)
        return
    seq, bodies, place = 0, list[msgspec.Raw](), (-1, -1)
    records: list[bytes] = []
    for first_offset, offset, record in frames:
        append = decode_append(record)
        number = len(bodies) + 1
        where = f"log/{topic}, offset {offset}"
        if append is None or append.epoch or append.claim or append.state is not None:
            raise BundleRefusedError(f"{where}: no counted append without its epoch")
        due = seq + 1
        if not bodies and due < append.seq <= complete_from:
            due = append.seq  # what is before `complete_from` may be left out
        # Parts of one decision name the same place. Otherwise two decisions could be joined into one.
        if append.seq != due or append.part[0] != number or (bodies and (first_offset, offset) != place):
            raise BundleRefusedError(
                f"{where}: decision {append.seq}, part {append.part[0]} stands where {due}, part {number} is due"
            )
        if number == 1 and first_offset <= place[1]:
            raise BundleRefusedError(f"{where}: it does not stand behind the decision before it")
        place = (first_offset, offset)
        bodies.append(append.events)
        records.append(record)
        # Each part is bounded, and their number is what the bundle says: the sum needs a bound of its own.
        if sum(map(len, records)) > DECISION_BYTES_MAX:
            raise BundleRefusedError(f"{where}: a decision of more than {DECISION_BYTES_MAX} bytes")
        if number == append.part[1]:
            before = Need(first_offset, 0, append.seq - 1)
            seq = append.seq
            decision = Decision(
                topic, first_offset, offset, seq, before, append.upto, append.need, tuple(bodies)
            )
            # The hash does not cover epochs, so an epoch in the bundle would not be checked.
            if canonical_records(decision) != records:
                raise BundleRefusedError(f"{where}: the decision is not written as the tree has it")
            yield decision
            bodies, records = [], []
    if bodies:
        raise BundleRefusedError(f"log/{topic} ends within decision {seq + 1}")


def _command(decision: Decision) -> bytes:
    """A command as it is in the topic. Answers are left out: those that count are in `predictions`, up to the bundle's
    end, and others may be of a question that is open still. No check reads them in `commands`, of which the tree has no
    leaves.
    """
    if decision.may_hold("SubmitAnswers"):
        for event in decision.events:
            if isinstance(event, SubmitAnswers):
                data = msgspec.structs.replace(event.data, answers=[])
                return encode_event(msgspec.structs.replace(event, data=data))
    return bytes(decision.bodies[0])[1:-1]


def _commands(frames: Iterable[tuple[int, int, bytes]]) -> Iterator[Decision]:
    counter, last = PlainCounter("commands"), -1
    for _, offset, record in frames:
        decision = counter.read(offset, record)
        if decision is None or offset <= last:
            raise BundleRefusedError(f"log/commands, offset {offset}: {counter.garbage or 'not in order'}")
        last = offset
        yield decision
