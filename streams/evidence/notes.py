"""Signed notes and checkpoints of a tree: C2SP signed-note, tlog-checkpoint and tlog-cosignature, with Ed25519.

Pure; reads and writes text. A checkpoint has the size and the root of the tree. Below it are the signature of the log,
and cosignatures of witnesses, which add the time at which they saw it. Signing is deterministic (RFC 8032): the same
key and tree give the same note.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Collection, Iterator
from typing import Self

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from coordinator.streams.evidence.merkle import HASH_BYTES, LEAVES_MAX
from coordinator.streams.log.errors import CoordinatorError, OperatorError

ED25519, COSIGNATURE = 1, 4
NOTE_BYTES_MAX = 64 * 1024
SIGNATURES_MAX = 64
TIME_BYTES, SIGNATURE_BYTES = 8, 64
_PRIVATE = "PRIVATE+KEY+"
_NAME = re.compile(r"[^\s+]+\Z")
_LINE = re.compile(r"— (\S+) (\S+)\Z")


class NoteError(CoordinatorError):
    """A note cannot be read, or its signature is wrong; the text says which."""


class VerifierKey(msgspec.Struct, frozen=True):
    """A public key with its name, as a policy lists them. `kind`: ED25519 of a log, or COSIGNATURE of a witness."""

    name: str
    public: bytes
    kind: int = ED25519

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `<name>+<key id>+<base64>`, as in the signed-note format. Raises NoteError."""
        name, _, rest = text.strip().partition("+")
        key_id, _, material = rest.partition("+")
        content = decoded(material, "a public key")
        if len(content) != 1 + HASH_BYTES or content[0] not in (ED25519, COSIGNATURE):
            raise NoteError(f"not a public key of Ed25519: {text.strip()[:200]!r}")
        key = cls(_named(name), content[1:], content[0])
        if key.key_id.hex() != key_id:
            raise NoteError(
                f"the public key of {name[:100]!r} has the id {key.key_id.hex()}, not {key_id[:20]!r}"
            )
        return key

    @property
    def key_id(self) -> bytes:
        """The four bytes before a signature that name this key."""
        return hashlib.sha256(self.name.encode() + b"\n" + bytes([self.kind]) + self.public).digest()[:4]

    def __str__(self) -> str:
        """As `parse` reads it."""
        material = base64.b64encode(bytes([self.kind]) + self.public).decode()
        return f"{self.name}+{self.key_id.hex()}+{material}"

    def verifies(self, text: bytes, signature: bytes) -> bool:
        """Whether it is this key's signature over the text of a note. A cosignature begins with its time."""
        if self.kind == COSIGNATURE:
            if len(signature) != TIME_BYTES + SIGNATURE_BYTES:
                return False
            text, signature = cosigned(text, cosigned_at(signature)), signature[TIME_BYTES:]
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, text)
        except (InvalidSignature, ValueError):
            return False
        return True


class SignerKey:
    """A private key with its name. Its `repr` shows only the public key."""

    def __init__(self, name: str, seed: bytes, kind: int = ED25519) -> None:
        self._seed = seed
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self.verifier = VerifierKey(_named(name), self._private.public_key().public_bytes_raw(), kind)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `PRIVATE+KEY+<name>+<key id>+<base64>`, as Go's note package writes it. Raises OperatorError."""
        what = "a private key in the signed-note form, PRIVATE+KEY+<name>+<id>+<base64>"
        head, _, rest = text.strip().partition(_PRIVATE)
        name, _, rest = rest.partition("+")
        key_id, _, material = rest.partition("+")
        try:
            content = decoded(material, what)
            if head or len(content) != 1 + HASH_BYTES or content[0] not in (ED25519, COSIGNATURE):
                raise NoteError(what)
            key = cls(name, content[1:], content[0])
        except NoteError:
            raise OperatorError(f"this is not {what}") from None
        if key.verifier.key_id.hex() != key_id:
            raise OperatorError("the id in this private key is not that of the key: it is damaged")
        return key

    def secret_text(self) -> str:
        """The key as text, which `parse` reads. Only for the key's own file."""
        material = base64.b64encode(bytes([self.verifier.kind]) + self._seed).decode()
        return f"{_PRIVATE}{self.verifier.name}+{self.verifier.key_id.hex()}+{material}\n"

    def __repr__(self) -> str:
        return f"SignerKey({self.verifier})"

    def sign(self, text: bytes, at_seconds: int = 0) -> str:
        """The signature line for a note's text; `at_seconds` (POSIX) is the time of a cosignature."""
        if self.verifier.kind == COSIGNATURE:
            signature = at_seconds.to_bytes(TIME_BYTES, "big") + self._private.sign(
                cosigned(text, at_seconds)
            )
        else:
            signature = self._private.sign(text)
        return f"— {self.verifier.name} {base64.b64encode(self.verifier.key_id + signature).decode()}\n"


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


def cosigned(text: bytes, at_seconds: int) -> bytes:
    """The text that a witness signs: the time at which it saw the checkpoint (POSIX seconds), then the checkpoint."""
    return f"cosignature/v1\ntime {at_seconds}\n".encode() + text


def cosigned_at(signature: bytes) -> int:
    """The time in a cosignature, in POSIX seconds."""
    return int.from_bytes(signature[:TIME_BYTES], "big")


def _signatures(lines: str) -> Iterator[tuple[str, bytes, bytes]]:
    split = lines.splitlines()
    if len(split) > SIGNATURES_MAX:
        raise NoteError(f"{len(split)} signatures, more than {SIGNATURES_MAX}")
    for line in split:
        match = _LINE.match(line)
        content = decoded(match[2], "a signature") if match else b""
        if match is None or not _NAME.match(match[1]) or len(content) <= 4:  # noqa: PLR2004 - the key's id
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


def _named(name: str) -> str:
    if not _NAME.match(name):
        raise NoteError(f"no name of a key: {name[:100]!r} (not empty, without spaces and +)")
    return name


def decoded(text: str, what: str) -> bytes:
    """The bytes of base64 in its canonical form. Raises NoteError, which names `what`."""
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise NoteError(f"{what} is not base64: {text[:100]!r}") from None
    if base64.b64encode(content).decode() != text:
        raise NoteError(f"{what} is not base64 in its one form: {text[:100]!r}")
    return content
