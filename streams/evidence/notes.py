"""Signed notes and checkpoints of a tree: C2SP signed-note, tlog-checkpoint and tlog-cosignature, with Ed25519.

Pure; reads and writes text. A checkpoint has the size and the root of the tree. Below it are the signature of the log,
and cosignatures of witnesses, which add the time at which they saw it. Signing is deterministic (RFC 8032): the same
key and tree give the same note.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Collection, Iterator
from typing import Self

import msgspec

from coordinator.streams.evidence.merkle import HASH_BYTES, LEAVES_MAX
from coordinator.streams.signing.note_keys import NAME, NoteError, SignerKey, VerifierKey, decoded

NOTE_BYTES_MAX = 64 * 1024
SIGNATURES_MAX = 64
_LINE = re.compile(r"— (\S+) (\S+)\Z")


class Checkpoint(msgspec.Struct, frozen=True):
    """A note's statement: the tree of `origin` with `size` leaves has this root."""

    origin: str
    size: int
    root: bytes

    def text(self) -> bytes:
        """The text of the note, which is signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n".encode()


class Note(msgspec.Struct, frozen=True):
    """A signed checkpoint: its text, and (name, key id, signature) of each signature line, in order."""

    text: bytes
    signatures: list[tuple[str, bytes, bytes]]
    checkpoint: Checkpoint

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """Read a note. Raises NoteError if it is not the note of a checkpoint."""
        if len(content) > NOTE_BYTES_MAX:
            raise NoteError(f"a note of {len(content)} bytes, more than {NOTE_BYTES_MAX}")
        try:
            decoded = content.decode()
        except UnicodeDecodeError:
            raise NoteError("the note is not UTF-8") from None
        if any(character < " " and character != "\n" for character in decoded):
            raise NoteError("the note holds control characters")
        text, blank, signed = decoded.rpartition("\n\n")
        if not blank or not signed.endswith("\n"):
            raise NoteError("the note has no signature lines below an empty line")
        signatures = list(_signatures(signed))
        text += "\n"
        return cls(text.encode(), signatures, _checkpoint(text))

    def signed_by(self, keys: Collection[VerifierKey]) -> list[VerifierKey]:
        """The keys, among these, that signed. Raises NoteError if the signature of one of them is wrong."""
        by_id = {(key.name, key.key_id): key for key in keys}
        signers: list[VerifierKey] = []
        for name, key_id, signature in self.signatures:
            key = by_id.get((name, key_id))
            if key is None:
                continue
            if not key.verifies(self.text, signature):
                raise NoteError(
                    f"the signature of {name} is not over this text: the note is forged or altered"
                )
            if key not in signers:
                signers.append(key)
        return signers


def signed_note(checkpoint: Checkpoint, key: SignerKey) -> bytes:
    """The note of a checkpoint with the log's own signature."""
    text = checkpoint.text()
    return text + b"\n" + key.sign(text).encode()


def _signatures(lines: str) -> Iterator[tuple[str, bytes, bytes]]:
    split = lines.splitlines()
    if len(split) > SIGNATURES_MAX:
        raise NoteError(f"{len(split)} signatures, more than {SIGNATURES_MAX}")
    for line in split:
        match = _LINE.match(line)
        content = decoded(match[2], "a signature") if match else b""
        if match is None or not NAME.match(match[1]) or len(content) <= 4:  # noqa: PLR2004 - the key's id
            raise NoteError(f"not a signature line: {line[:200]!r}")
        yield match[1], content[:4], content[4:]


def _checkpoint(text: str) -> Checkpoint:
    lines = text.split("\n")
    if len(lines) != 4 or not lines[0]:  # noqa: PLR2004 - origin, size, root, and what is behind the last line end
        raise NoteError("the note is not a checkpoint: origin, size and root, a line each")
    origin, size, root = lines[:3]
    if not re.fullmatch(r"0|[1-9][0-9]{0,15}", size) or int(size) > LEAVES_MAX:
        raise NoteError(f"the checkpoint's size is {size[:40]!r}, which is none")
    content = decoded(root, "a root")
    if len(content) != HASH_BYTES:
        raise NoteError(f"the checkpoint's root has {len(content)} bytes, not {HASH_BYTES}")
    return Checkpoint(origin, int(size), content)
