"""The proof that one append is in the tree of a signed note, as text in the format C2SP tlog-proof.

Pure; reads and writes text. `extra` is the append with its position: `<topic> <first offset> <offset>`, a line end,
and its bytes. The tree has the SHA-256 of that (`leaves.py`). So the proof is complete by itself, and any tool for
this format can check the 32-byte entry against the note.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Collection
from typing import Self

import msgspec

from coordinator.streams.evidence.leaves import LEAF_TOPICS
from coordinator.streams.evidence.merkle import HASH_BYTES, includes, leaf_hash
from coordinator.streams.evidence.notes import Note
from coordinator.streams.signing.note_keys import NoteError, VerifierKey, decoded

HEADER = "c2sp.org/tlog-proof@v1"
PROOF_BYTES_MAX = 32 * 1024 * 1024
SIBLINGS_MAX = 64
_INDEX = re.compile(r"index (0|[1-9][0-9]{0,15})")
_PLACE = re.compile(rb"([a-z]+) (0|[1-9][0-9]{0,18}) (0|[1-9][0-9]{0,18})")


class Proof(msgspec.Struct, frozen=True):
    """An append with its position in the log and in the tree. `note`: the signed checkpoint, verbatim."""

    topic: str
    first_offset: int
    offset: int
    record: bytes
    index: int
    siblings: list[bytes]
    note: bytes

    def text(self) -> bytes:
        """The proof as text, which `parse` reads."""
        lines = [
            HEADER,
            f"extra {base64.b64encode(self._placed()).decode()}",
            f"index {self.index}",
            *(base64.b64encode(sibling).decode() for sibling in self.siblings),
        ]
        return "\n".join(lines).encode() + b"\n\n" + self.note

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """Read a proof. Raises NoteError if it is not the proof of an append."""
        if len(content) > PROOF_BYTES_MAX:
            raise NoteError(f"a proof of {len(content)} bytes, more than {PROOF_BYTES_MAX}")
        head, blank, note = content.partition(b"\n\n")
        try:
            lines = head.decode("ascii").split("\n")
        except UnicodeDecodeError:
            raise NoteError("the proof is not ASCII above its note") from None
        if not blank or lines[0] != HEADER or len(lines) < 3:  # noqa: PLR2004 - header, extra, index
            raise NoteError(
                f"not a proof: it begins with {lines[0][:60]!r}, not with {HEADER}, extra and index"
            )
        match = _INDEX.fullmatch(lines[2])
        if not lines[1].startswith("extra ") or match is None or len(lines) > 3 + SIBLINGS_MAX:
            raise NoteError("the proof lacks its append or its index, or has too many hashes")
        placed = decoded(lines[1].removeprefix("extra "), "the append")
        place, _, record = placed.partition(b"\n")
        named = _PLACE.fullmatch(place)
        if named is None or (topic := named[1].decode()) not in LEAF_TOPICS:
            raise NoteError(f"the proof is about no append of a topic: {place[:60]!r}")
        siblings = [decoded(line, "a hash") for line in lines[3:]]
        if any(len(sibling) != HASH_BYTES for sibling in siblings):
            raise NoteError(f"a hash of the proof has not {HASH_BYTES} bytes")
        return cls(topic, int(named[2]), int(named[3]), record, int(match[1]), siblings, note)

    def _placed(self) -> bytes:
        return f"{self.topic} {self.first_offset} {self.offset}\n".encode() + self.record

    def check(self, keys: Collection[VerifierKey]) -> Note:
        """The note, if all of `keys` signed it and the append is in its tree. Raises NoteError otherwise."""
        note = Note.parse(self.note)
        signers = note.signed_by(keys)
        if unsigned := [key.name for key in keys if key not in signers]:
            raise NoteError(f"the note is not signed by {', '.join(unsigned)}")
        tree = note.checkpoint
        leaf = leaf_hash(hashlib.sha256(self._placed()).digest())
        if not includes(leaf, self.index, tree.size, self.siblings, tree.root):
            raise NoteError(
                f"the append of {self.topic} at offset {self.offset} is not leaf {self.index} of the signed tree"
            )
        return note
