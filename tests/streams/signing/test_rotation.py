"""A rotation is proven by both signatures. The stage records one successor of each key and refuses any other."""

from __future__ import annotations

import base64

import msgspec
import pytest
from tests.given import Given
from tests.streams.build import T0
from tests.streams.checkpoints.test_checkpoint_commands import stage

from coordinator.streams.events import (
    EvidenceKeyData,
    EvidenceKeyRotated,
    EvidenceKeyRotatedData,
    RotateEvidenceKey,
)
from coordinator.streams.signing.note_keys import COSIGNATURE, NoteError, SignerKey
from coordinator.streams.signing.rotation import in_force, rotation, rotation_fault, statement, successors_of

OLD, NEW, NEWER, OTHER = (SignerKey("coordinator/btc-up", letter * 32) for letter in (b"o", b"n", b"e", b"x"))


def signed(key: SignerKey, data: EvidenceKeyData) -> str:
    return base64.b64encode(key.signature(statement(data.old_key, data.new_key))).decode()


def altered(**fields: str) -> EvidenceKeyData:
    return msgspec.structs.replace(rotation(OLD, NEW), **fields)


GOOD = rotation(OLD, NEW)
FAULTS = {
    "the old key did not sign it": altered(old_signature=signed(OTHER, GOOD)),
    "the new key did not sign it": altered(new_signature=signed(OLD, GOOD)),
    "is not base64": altered(new_signature="no"),
    "the new key is the old one": rotation(OLD, OLD),
    "not about those of": rotation(OLD, SignerKey("coordinator/eth-up", b"n" * 32)),
    "not a public key": altered(old_key="coordinator/btc-up+00000000+AA=="),
    "a key of a log is expected": rotation(OLD, SignerKey("coordinator/btc-up", b"n" * 32, COSIGNATURE)),
}


def command(data: EvidenceKeyData, name: str = "rotate") -> RotateEvidenceKey:
    return RotateEvidenceKey(id=name, at=T0 + 1, data=data)


def outcomes(scene: Given, *commands: RotateEvidenceKey) -> list[str]:
    scene.when("commands", *commands)
    return [f"{type(event).__name__} {getattr(event.data, 'http_status', 200)}" for event in scene.made]


@pytest.mark.parametrize("why", FAULTS)
def test_a_rotation_that_lacks_a_signature_is_invalid_and_the_stage_refuses_it(why: str):
    assert why in rotation_fault(FAULTS[why], "coordinator/btc-up")
    assert outcomes(stage(), command(FAULTS[why])) == ["CommandRefused 422"]


def test_a_rotation_is_recorded_once_and_its_repetition_changes_nothing():
    assert rotation_fault(GOOD, "coordinator/btc-up") == ""
    again = command(GOOD, "again")
    assert outcomes(stage(), command(GOOD), again) == ["EvidenceKeyRotated 200"]


def test_a_key_has_one_successor_and_no_key_returns():
    scene = stage()
    assert outcomes(scene, command(GOOD), command(rotation(OLD, OTHER), "fork")) == [
        "EvidenceKeyRotated 200",
        "CommandRefused 409",
    ]
    assert outcomes(scene, command(rotation(NEW, OLD), "back")) == ["CommandRefused 409"]
    assert outcomes(scene, command(rotation(NEW, NEWER), "on")) == ["EvidenceKeyRotated 200"]


def test_keys_that_are_too_long_are_refused_before_they_are_decoded():
    long = altered(new_key="coordinator/btc-up+00000000+" + "A" * 2000)
    assert outcomes(stage(), command(long)) == ["CommandRefused 422"]


def test_the_chain_is_followed_to_its_end_and_a_forged_event_is_an_error():
    events = [
        EvidenceKeyRotated(
            id=f"r{n}",
            at=T0,
            data=EvidenceKeyRotatedData(**msgspec.structs.asdict(data), command_id="c"),
        )
        for n, data in enumerate(
            (GOOD, rotation(NEW, NEWER), rotation(OTHER, SignerKey(OLD.verifier.name, b"y" * 32)))
        )
    ]
    successors = successors_of(events)
    assert in_force(str(OLD.verifier), successors) == str(NEWER.verifier)
    assert in_force(str(NEWER.verifier), successors) == str(NEWER.verifier)
    assert in_force("a", {"a": "b", "b": "a"}) == "b"
    forged = msgspec.structs.replace(
        events[0], data=msgspec.structs.replace(events[0].data, new_signature=signed(OTHER, GOOD))
    )
    with pytest.raises(NoteError, match="the new key did not sign it"):
        successors_of([forged])
