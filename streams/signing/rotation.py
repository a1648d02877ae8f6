"""The rotation of a key: a statement that names the old and the new key, with the signature of each over it.

Pure. A rotation proves itself: whoever trusts the old key needs nobody's word to trust the new one. Each key has at
most one successor, so the successors of a key are a chain, and a rotation between keys that nobody trusts has no effect
on anybody.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping

from coordinator.streams.events import EvidenceKeyData, EvidenceKeyRotated
from coordinator.streams.signing.note_keys import ED25519, NoteError, SignerKey, VerifierKey, decoded

Successors = Mapping[str, str]
"""Key -> the key that took its place, both as text (`VerifierKey`)."""


def statement(old_key: str, new_key: str) -> bytes:
    """The text that both keys sign. No checkpoint of a tree has this form: its second line is a number."""
    return f"coordinator key rotation\n{old_key}\n{new_key}\n".encode()


def rotation(old: SignerKey, new: SignerKey) -> EvidenceKeyData:
    """The rotation from one key to another."""
    old_key, new_key = str(old.verifier), str(new.verifier)
    text = statement(old_key, new_key)
    old_signature, new_signature = (base64.b64encode(key.signature(text)).decode() for key in (old, new))
    return EvidenceKeyData(
        old_key=old_key, new_key=new_key, old_signature=old_signature, new_signature=new_signature
    )


def rotation_fault(data: EvidenceKeyData, name: str = "") -> str:
    """Why this is no rotation, in words; "" if it is one. `name`: what both keys must be named, unless it is ""."""
    try:
        old, new = VerifierKey.parse(data.old_key), VerifierKey.parse(data.new_key)
        signatures = [decoded(text, "a signature") for text in (data.old_signature, data.new_signature)]
    except NoteError as error:
        return str(error)
    if (str(old), str(new)) != (data.old_key, data.new_key) or old.kind != ED25519 or new.kind != ED25519:
        return "a key of a log is expected, in its one form"
    if old.public == new.public:
        return "the new key is the old one"
    if old.name != new.name or name not in ("", old.name):
        return f"it is about the keys {old.name!r} and {new.name!r}, not about those of {name or old.name!r}"
    text = statement(data.old_key, data.new_key)
    for key, signature, which in zip((old, new), signatures, ("old", "new"), strict=True):
        if not key.verifies(text, signature):
            return f"the {which} key did not sign it"
    return ""


def successors_of(events: Iterable[object]) -> dict[str, str]:
    """The successors by the rotations among some events, the first of a key where it has two. Raises NoteError for one
    that not both keys signed: no node records it.
    """
    successors: dict[str, str] = {}
    for event in events:
        if isinstance(event, EvidenceKeyRotated):
            if fault := rotation_fault(event.data):
                raise NoteError(f"{event.id} rotates {event.data.old_key[:100]}: {fault}")
            successors.setdefault(event.data.old_key, event.data.new_key)
    return successors


def in_force(key: str, successors: Successors) -> str:
    """The key at the end of the chain that begins with `key`. A chain that turns back to itself ends before that."""
    seen = {key}
    while (after := successors.get(key)) is not None and after not in seen:
        seen.add(after)
        key = after
    return key
