from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.streams.evidence.notes import Checkpoint, Note, signed_note
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.signing.note_keys import COSIGNATURE, NoteError, SignerKey, VerifierKey, cosigned_at

# The keys and the signature with which Go's reference implementation of signed notes is tested.
VERIFIER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
SIGNER = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
TEXT = (
    b"If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
)
SIGNED = "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
# The example of the tlog-cosignature format.
EXAMPLE = """example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==
"""
ROOT = hashlib.sha256(b"root").digest()


def a_key(name: str = "coordinator/btc-up", kind: int = 1) -> SignerKey:
    return SignerKey(name, hashlib.sha256(name.encode()).digest(), kind)


def test_signatures_are_those_of_the_reference_implementation():
    key = SignerKey.parse(SIGNER)
    assert str(key.verifier) == VERIFIER
    assert key.sign(TEXT) == SIGNED
    assert key.secret_text().strip() == SIGNER
    signature = base64.b64decode(SIGNED.split()[2])[4:]
    assert VerifierKey.parse(VERIFIER).verifies(TEXT, signature)
    assert not VerifierKey.parse(VERIFIER).verifies(TEXT + b"\n", signature)
    assert SIGNER.split("+", 4)[4] not in repr(key)


def test_the_formats_own_example_is_read():
    note = Note.parse(EXAMPLE.encode())
    assert note.checkpoint.origin == "example.com/behind-the-sofa"
    assert note.checkpoint.size == 20852163
    assert [name for name, *_ in note.signatures] == [note.checkpoint.origin, "witness.example.com/w1"]
    assert cosigned_at(note.signatures[1][2]) == 1679315147
    assert note.text == note.checkpoint.text()
    assert note.signed_by([VerifierKey.parse(VERIFIER)]) == []


@given(size=st.integers(0, 1 << 40), root=st.binary(min_size=32, max_size=32))
def test_a_note_is_signed_and_read_back(size: int, root: bytes):
    key = a_key()
    note = Note.parse(signed_note(Checkpoint("coordinator/btc-up", size, root), key))
    assert note.checkpoint == Checkpoint("coordinator/btc-up", size, root)
    assert note.signed_by([a_key("another").verifier, key.verifier]) == [key.verifier]
    assert signed_note(note.checkpoint, key) == signed_note(note.checkpoint, key)


def test_a_witness_adds_its_line_with_its_time():
    log, witness = a_key(), a_key("witness/one", COSIGNATURE)
    content = signed_note(Checkpoint("coordinator/btc-up", 7, ROOT), log)
    note = Note.parse(content + witness.sign(Note.parse(content).text, 1_700_000_000).encode())
    assert note.signed_by([log.verifier, witness.verifier]) == [log.verifier, witness.verifier]
    assert cosigned_at(note.signatures[1][2]) == 1_700_000_000
    assert VerifierKey.parse(str(witness.verifier)) == witness.verifier


@given(st.data())
def test_a_note_with_one_byte_changed_is_never_accepted_as_signed(data: st.DataObject):
    key = a_key()
    content = bytearray(signed_note(Checkpoint("coordinator/btc-up", 123, ROOT), key))
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    try:
        signers = Note.parse(bytes(content)).signed_by([key.verifier])
    except NoteError:
        return
    assert signers == []


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "no signature lines"),
        (b"a\n1\n", "no signature lines"),
        (b"\xff\n", "not UTF-8"),
        (b"a\r\n1\n", "control characters"),
        (EXAMPLE.replace("20852163", "020852163").encode(), "size"),
        (EXAMPLE.replace("20852163", "9" * 17).encode(), "size"),
        (EXAMPLE.replace("20852163\n", "20852163\nmore\n").encode(), "root is not base64|not a checkpoint"),
        (EXAMPLE.replace("jxq2I=", "jxq2J=").encode(), "one form"),
        (EXAMPLE.replace("CsUY", "").encode(), "29 bytes"),
        (EXAMPLE.replace("— witness", "- witness").encode(), "not a signature line"),
        (("a\n1\n\n" + SIGNED * 65).encode(), "65 signatures"),
        (b"a" * 70_000, "70000 bytes"),
    ],
)
def test_an_invalid_note_is_refused_with_its_reason(content: bytes, why: str):
    with pytest.raises(NoteError, match=why):
        Note.parse(content)


@pytest.mark.parametrize(
    "text", ["", "a+b+c", VERIFIER.replace("c74f", "c74e"), VERIFIER[:-4], "a b+c74f20a3+AA=="]
)
def test_an_invalid_public_key_is_refused(text: str):
    with pytest.raises(NoteError):
        VerifierKey.parse(text)


@pytest.mark.parametrize("text", ["", VERIFIER, SIGNER.replace("c74f", "c74e"), SIGNER[:-4]])
def test_an_invalid_private_key_is_refused_without_being_shown(text: str):
    with pytest.raises(OperatorError) as refused:
        SignerKey.parse(text)
    assert "AYEKFALV" not in str(refused.value)
