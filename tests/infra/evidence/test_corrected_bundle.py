"""A bundle of a checkpoint that carries credits: whoever trusts nobody computes them again, and finds what was altered."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from tests.infra.evidence.bundles import MODULE, applied, bundle_of, checkpoints_of
from tests.infra.evidence.test_bundle import judged
from tests.streams.build import T0
from tests.streams.engine.test_correct import POOL, RECORDS, SPIKE, instants, recomputed, spoilt
from tests.streams.engine.test_plan import PERIOD_ROUNDS, SETTINGS, Moody

from coordinator.infra.contracts.archive import unpack
from coordinator.streams.contract.terms import make_terms
from coordinator.streams.engine import Engine, Functions
from coordinator.streams.engine.memory_log import MemoryLog
from coordinator.streams.events import (
    ApplyContract,
    ApplyContractData,
    CorrectCheckpoint,
    CorrectCheckpointData,
)


@pytest.fixture(scope="module")
def log() -> MemoryLog:
    """The log of a node that pays, is corrected, and pays what it owes with the next checkpoint."""
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
    told = instants([spoilt(one) if n == SPIKE else one for n, one in enumerate(RECORDS)])
    place = 2 * PERIOD_ROUNDS - 9
    told[place] = (told[place][0], [msgspec.structs.replace(RECORDS[SPIKE], revision=1), *told[place][1]])
    for number, (at, records) in enumerate(told):
        engine.feed(at, records)
        if number == place:
            parent, result = recomputed(engine.log, contract=contract, key=key, crunch_id="btc-up")
            correct = CorrectCheckpointData(
                checkpoint_id=parent.checkpoint_id,
                total_prize=POOL,
                models=result.corrections,
                reason="a wrong close",
            )
            engine.command(CorrectCheckpoint(id="correct", at=at, data=correct))
    return engine.log


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_bundle_of_a_corrected_log_holds(tmp_path: Path, log: MemoryLog, number: int):
    code, said = judged(bundle_of(tmp_path, log, number), "--policy", str(tmp_path / "node/evidence/key.pub"))
    assert code == 0, said
    assert ("micro-USDC on top for 1 earlier checkpoints" in said) == (number == 1)


def test_credits_that_were_altered_are_found(tmp_path: Path, log: MemoryLog):
    altered = log.copy()
    the_id = checkpoints_of(log)[1].encode()
    altered.topics["checkpoints"] = [
        record.replace(
            b'"reason":"a wrong close","prizes":{"', b'"reason":"a wrong close","prizes":{"me":5,"'
        )
        if the_id in record
        else record
        for record in log["checkpoints"]
    ]
    assert altered["checkpoints"] != log["checkpoints"]
    code, said = judged(bundle_of(tmp_path, altered, 1))
    assert code != 0
    assert "checkpoint" in said
