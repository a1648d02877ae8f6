"""Bundles of a node whose key was rotated: a verifier that trusts the old key accepts the new one, and no other."""

from __future__ import annotations

import asyncio
import base64
import zipfile
from pathlib import Path

import pytest
from tests.infra.evidence.bundles import MemorySource, bundle_of
from tests.infra.evidence.rotated import GOOD, NEW, OLD, rotated_log, with_keys
from tests.infra.evidence.test_bundle import judged
from tests.infra.evidence.test_hostile_bundles import written

from coordinator.infra.evidence.bundle_file import BundleFile
from coordinator.infra.evidence.proving import write_proof
from coordinator.streams.audit.facts import ChainBrokenError
from coordinator.streams.engine.memory_log import MemoryLog
from coordinator.streams.events import RoundScored
from coordinator.streams.evidence.bundle_judging import Judged, Trust, judge_bundle
from coordinator.streams.evidence.notes import Checkpoint, Note, signed_note
from coordinator.streams.evidence.prediction_proof import proved, split
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.log.ids import prediction_id
from coordinator.streams.settings import Settings
from coordinator.streams.signing.note_keys import NoteError, SignerKey
from coordinator.streams.signing.rotation import statement

STRANGER = SignerKey("coordinator/btc-up", b"s" * 32)


def members_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def first_half(path: Path, *keys: SignerKey, earlier: bytes | None = None) -> tuple[str, str]:
    """(the step that fails, why); ("", the signers) if all pass."""
    signers = ""
    try:
        for step in judge_bundle(BundleFile(path), Trust(tuple(key.verifier for key in keys), earlier)):
            if isinstance(step, Judged):
                signers = ",".join(step.signers)
    except ChainBrokenError as error:
        return error.step, error.reason
    return "", signers


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, bytes]]:
    """The bundles of the first three checkpoints, by one node."""
    folder = tmp_path_factory.mktemp("rotated")
    with_keys(folder, NEW)
    return [members_of(bundle_of(folder, rotated_log(), number)) for number in range(3)]


def test_the_old_key_leads_to_the_new_one_from_the_rotation_on(
    bundles: list[dict[str, bytes]], tmp_path: Path
):
    before, after, last = (written(tmp_path / f"{n}", members) for n, members in enumerate(bundles))
    assert first_half(before, OLD) == ("", str(OLD.verifier))
    assert first_half(after, OLD) == first_half(last, OLD) == ("", str(NEW.verifier))
    assert first_half(after, NEW) == first_half(after) == ("", str(NEW.verifier))
    assert first_half(after, OLD, NEW) == ("", str(NEW.verifier))
    assert first_half(before, NEW)[0] == first_half(after, STRANGER)[0] == "note"


def test_an_earlier_note_by_the_old_key_is_accepted_and_one_by_a_stranger_is_not(
    bundles: list[dict[str, bytes]], tmp_path: Path
):
    last = written(tmp_path / "b", bundles[2])
    for earlier in (bundles[0]["note"], bundles[1]["note"]):
        for trusted in ((OLD,), (NEW,), ()):
            assert first_half(last, *trusted, earlier=earlier)[0] == ""
    second = Note.parse(bundles[1]["note"]).checkpoint
    for key, checkpoint in (
        (OLD, second),  # the old key signs no tree that contains the rotation
        (STRANGER, Note.parse(bundles[0]["note"]).checkpoint),
        (OLD, Checkpoint("coordinator/btc-up", 7, b"r" * 32)),
    ):
        assert first_half(last, OLD, earlier=signed_note(checkpoint, key))[0] == "history"


def test_a_note_by_the_old_key_after_the_rotation_is_refused(bundles: list[dict[str, bytes]], tmp_path: Path):
    """A thief of the old key signs with it."""
    stolen = signed_note(Note.parse(bundles[1]["note"]).checkpoint, OLD)
    path = written(tmp_path / "b", bundles[1] | {"note": stolen})
    for trusted in ((OLD,), (NEW,), ()):
        assert first_half(path, *trusted)[0] == "note"
    assert "took the place of a key that you trust" in first_half(path, OLD)[1]
    manifest = bundles[1]["manifest.json"].replace(str(NEW.verifier).encode(), str(OLD.verifier).encode())
    renamed = written(tmp_path / "c", bundles[1] | {"note": stolen, "manifest.json": manifest})
    assert first_half(renamed)[0] == "note"


@pytest.mark.parametrize("signature", [GOOD.old_signature, GOOD.new_signature])
def test_a_log_with_a_rotation_that_one_key_signed_is_refused_although_its_tree_is_valid(
    tmp_path: Path, signature: str
):
    log = rotated_log()
    other = base64.b64encode(STRANGER.signature(statement(GOOD.old_key, GOOD.new_key)))
    records = [record.replace(signature.encode(), other) for record in log["checkpoints"]]
    assert records != list(log["checkpoints"])
    forged = MemoryLog({**{topic: log[topic] for topic in log.topics}, "checkpoints": records})
    with_keys(tmp_path, NEW)
    step, why = first_half(bundle_of(tmp_path, forged, 1), OLD)
    assert step == "checkpoint"
    assert "key did not sign it" in why


def test_a_whole_bundle_after_the_rotation_passes_at_every_step(tmp_path: Path):
    with_keys(tmp_path, NEW)
    policy = tmp_path / "policy"
    policy.write_text(f"{OLD.verifier}\n")
    code, output = judged(bundle_of(tmp_path, rotated_log(), 1), "--policy", str(policy))
    assert code == 0, output
    assert (tmp_path / "node/evidence/key.pub").read_text() == f"{NEW.verifier}\n"


def test_no_secret_key_is_in_a_bundle_or_in_the_log(bundles: list[dict[str, bytes]]):
    texts = [*bundles[2].values(), *(record for topic in rotated_log().topics.values() for record in topic)]
    for key, seed in ((OLD, b"o" * 32), (NEW, b"n" * 32)):
        secret = base64.b64encode(bytes([1]) + seed).rstrip(b"=")
        assert secret in key.secret_text().encode()
        assert not any(secret in text or seed in text for text in texts)


def test_a_node_without_the_key_in_force_signs_nothing_and_says_where_it_looked(tmp_path: Path):
    data_dir = with_keys(tmp_path)
    with pytest.raises(OperatorError, match=r"evidence/keys does not hold it.*rotate-key"):
        bundle_of(tmp_path, rotated_log(), 1)
    assert [path.name for path in (data_dir / "evidence/notes").iterdir()] == ["1"]


def test_a_prediction_is_proved_to_a_verifier_that_trusts_the_old_key(tmp_path: Path):
    with_keys(tmp_path, NEW)
    settings = Settings(crunch_id="btc-up", data_dir=tmp_path / "node")
    log = rotated_log()
    scored = [
        prediction_id(event.data.input_id, event.data.scope_key, event.data.models[0])
        for event in log.events("scores")
        if isinstance(event, RoundScored)
    ]
    for prediction in (
        scored[0],
        scored[len(scored) // 2],
    ):  # the latest tree contains both, and its key is the new one
        path = tmp_path / "proof.txt"
        asyncio.run(write_proof(settings, MemorySource(log), prediction, path))
        content = path.read_bytes()
        assert Note.parse(split(content)[0].note).signed_by([NEW.verifier])
        assert proved(content, [OLD.verifier], prediction)
        with pytest.raises(NoteError, match="not signed by"):
            proved(content, [STRANGER.verifier], prediction)
