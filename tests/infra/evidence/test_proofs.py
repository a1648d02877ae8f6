from __future__ import annotations

import asyncio
import random
from pathlib import Path

import msgspec
import pytest
from tests.infra.evidence.bundles import MemorySource, checkpoints_of, whole_log
from typer.testing import CliRunner

from coordinator.cli.main import app
from coordinator.infra.evidence.proving import write_proof
from coordinator.streams.events import RoundScored
from coordinator.streams.evidence.prediction_proof import joined, proved, split
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.log.ids import prediction_id
from coordinator.streams.settings import Settings
from coordinator.streams.signing.note_keys import NoteError, SignerKey

KEY = SignerKey("coordinator/btc-up", b"k" * 32)


def settings(folder: Path) -> Settings:
    return Settings(crunch_id="btc-up", data_dir=folder, evidence_key=KEY.secret_text().strip())


@pytest.fixture(scope="module")
def scored() -> list[tuple[str, dict[str, int]]]:
    """(prediction, units) in the first checkpoint's time, from the log."""
    return [
        (prediction_id(event.data.input_id, event.data.scope_key, entry.model_id), entry.units)
        for event in whole_log().events("scores")[:40]
        if isinstance(event, RoundScored)
        for entry in event.data.entries()
        if entry.status == "SCORED"
    ]


def proof_of(folder: Path, prediction: str) -> bytes:
    asyncio.run(write_proof(settings(folder), MemorySource(whole_log()), prediction, folder / "proof.txt"))
    return (folder / "proof.txt").read_bytes()


def test_a_prediction_is_proved_with_the_score_that_the_log_has(
    tmp_path: Path, scored: list[tuple[str, dict[str, int]]]
):
    assert checkpoints_of(whole_log())
    for prediction, units in (scored[0], scored[-1]):
        content = proof_of(tmp_path, prediction)
        (proof,) = proved(content, [KEY.verifier], prediction)
        assert proof.units == units
        assert proof.status == "SCORED"
        assert joined(split(content)) == content
        (tmp_path / "keys").write_text(f"{KEY.verifier}  # the node's\n")
        result = CliRunner().invoke(
            app, ["verify", str(tmp_path / "proof.txt"), "--policy", str(tmp_path / "keys")]
        )
        assert result.exit_code == 0, result.output
        assert prediction in result.output


def test_a_proof_with_any_byte_changed_proves_nothing(
    tmp_path: Path, scored: list[tuple[str, dict[str, int]]]
):
    prediction, _ = scored[0]
    content = proof_of(tmp_path, prediction)
    rng = random.Random(1)
    for _ in range(300):
        altered = bytearray(content)
        altered[rng.randrange(len(altered))] ^= 1 << rng.randrange(8)
        with pytest.raises(NoteError):
            proved(bytes(altered), [KEY.verifier], prediction)


def test_a_proof_needs_all_its_parts_one_tree_and_the_right_key(
    tmp_path: Path, scored: list[tuple[str, dict[str, int]]]
):
    prediction, _ = scored[0]
    proofs = split(proof_of(tmp_path, prediction))
    for topic in ("inputs", "predictions", "scores"):
        rest = joined(proof for proof in proofs if proof.topic != topic)
        with pytest.raises(NoteError, match="something is missing"):
            proved(rest, [KEY.verifier], prediction)
    with pytest.raises(NoteError, match="not signed by"):
        proved(joined(proofs), [SignerKey("coordinator/btc-up", b"f" * 32).verifier])
    moved = msgspec.structs.replace(proofs[0], index=proofs[0].index + 1)
    with pytest.raises(NoteError, match="is not leaf"):
        proved(joined([moved, *proofs[1:]]), [KEY.verifier], prediction)
    with pytest.raises(NoteError, match="something is missing"):
        proved(joined(proofs), [KEY.verifier], "inp/BTCUSDT/1/60s/nobody")
    with pytest.raises(NoteError, match="not a proof"):
        proved(b"", [KEY.verifier])


def test_an_unknown_prediction_cannot_be_proved(tmp_path: Path):
    with pytest.raises(OperatorError, match="hold no prediction"):
        proof_of(tmp_path, "inp/BTCUSDT/1/60s/nobody")
