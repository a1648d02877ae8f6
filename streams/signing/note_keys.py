"""Public and private keys of Ed25519 in the form of C2SP signed-note, and what they sign.

Pure; reads and writes text. Signing is deterministic (RFC 8032): the same key and text give the same signature.
Needs the library `cryptography`, which only an installation with the extra `verify` or `node` has.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from typing import Self

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from coordinator.streams.log.errors import CoordinatorError, OperatorError

ED25519, COSIGNATURE = 1, 4
KEY_BYTES = 32
TIME_BYTES, SIGNATURE_BYTES = 8, 64
NAME = re.compile(r"[^\s+]+\Z")
_PRIVATE = "PRIVATE+KEY+"


class NoteError(CoordinatorError):
    """A note or a key cannot be read, or a signature is wrong; the text says which."""


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
        if len(content) != 1 + KEY_BYTES or content[0] not in (ED25519, COSIGNATURE):
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
            if head or len(content) != 1 + KEY_BYTES or content[0] not in (ED25519, COSIGNATURE):
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

    def signature(self, text: bytes) -> bytes:
        """The signature over a text, alone: no note, and no time of a cosignature."""
        return self._private.sign(text)

    def sign(self, text: bytes, at_seconds: int = 0) -> str:
        """The signature line for a note's text; `at_seconds` (POSIX) is the time of a cosignature."""
        if self.verifier.kind == COSIGNATURE:
            signature = at_seconds.to_bytes(TIME_BYTES, "big") + self._private.sign(
                cosigned(text, at_seconds)
            )
        else:
            signature = self._private.sign(text)
        return f"— {self.verifier.name} {base64.b64encode(self.verifier.key_id + signature).decode()}\n"


def cosigned(text: bytes, at_seconds: int) -> bytes:
    """The text that a witness signs: the time at which it saw the checkpoint (POSIX seconds), then the checkpoint."""
    return f"cosignature/v1\ntime {at_seconds}\n".encode() + text


def cosigned_at(signature: bytes) -> int:
    """The time in a cosignature, in POSIX seconds."""
    return int.from_bytes(signature[:TIME_BYTES], "big")


def _named(name: str) -> str:
    if not NAME.match(name):
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
