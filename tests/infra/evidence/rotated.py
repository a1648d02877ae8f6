"""The log of a node whose key was rotated between its first and its second checkpoint, and the folder with its keys."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from tests.infra.evidence.bundles import MODULE, applied
from tests.streams.build import T0
from tests.streams.engine.test_correct import RECORDS, instants
from tests.streams.engine.test_plan import PERIOD_ROUNDS, SETTINGS, Moody

from coordinator.infra.contracts.archive import unpack
from coordinator.streams.contract.terms import make_terms
from coordinator.streams.engine import Engine, Functions
from coordinator.streams.engine.memory_log import MemoryLog
from coordinator.streams.events import ApplyContract, ApplyContractData, RotateEvidenceKey
from coordinator.streams.signing.note_keys import SignerKey
from coordinator.streams.signing.rotation import rotation

OLD, NEW = (SignerKey("coordinator/btc-up", letter * 32) for letter in (b"o", b"n"))
GOOD = rotation(OLD, NEW)


@lru_cache
def rotated_log() -> MemoryLog:
    """The trees of the second checkpoint and of all later ones contain the rotation."""
    key, archive = applied()["FIRST"]
    contract = unpack(archive, key)
    models = {"one": Moody(0), "two": Moody(4), "calm": lambda data, call: {"value": 0.03}}
    terms = make_terms(contract, key, SETTINGS, 0, scoring_hash=key)
    engine = Engine(
        {key: contract}.__getitem__, Functions(models), crunch_id="btc-up", terms_of=lambda _: terms
    )
    data = ApplyContractData(contract_hash=key, path=f"{MODULE}:FIRST", archive=archive)
    engine.configure(terms)
    engine.command(ApplyContract(id="cmd/apply/0", at=T0, data=data))
    for number, (at, records) in enumerate(instants(RECORDS)):
        engine.feed(at, records)
        if number == 2 * PERIOD_ROUNDS - 9:
            engine.command(RotateEvidenceKey(id="rotate", at=at, data=GOOD))
    return engine.log


def with_keys(folder: Path, *rotated: SignerKey) -> Path:
    """The data directory of `bundle_of`: its first key was OLD, and it has these keys of rotations."""
    evidence = folder / "node/evidence"
    (evidence / "keys").mkdir(parents=True)
    files = [
        (evidence / "key", OLD),
        *((evidence / "keys" / key.verifier.key_id.hex(), key) for key in rotated),
    ]
    for path, key in files:
        path.write_text(key.secret_text())
        path.chmod(0o600)
    return folder / "node"
