"""A bundle of a checkpoint with credits: an independent verifier computes them again, and finds alterations."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from tests.infra.evidence import questioned
from tests.infra.evidence.bundles import MODULE, applied, bundle_of, checkpoints_of
from tests.infra.evidence.test_bundle import judged
from tests.streams.build import T0
from tests.streams.engine.test_correct import POOL, RECORDS, SPIKE, checkpoints, instants, recomputed, spoilt
from tests.streams.engine.test_plan import PERIOD_ROUNDS, SETTINGS, Moody
from tests.streams.engine.test_questions_again import post, resolve
from tests.streams.engine.test_questions_played import DAY, HOUR, MINUTE

from coordinator.infra.contracts.archive import unpack
from coordinator.streams.checkpoints.prizes import prize_amounts, shares_of
from coordinator.streams.contract.terms import make_terms
from coordinator.streams.engine import Engine, Functions
from coordinator.streams.engine.memory_log import MemoryLog
from coordinator.streams.events import (
    ApplyContract,
    ApplyContractData,
    CorrectCheckpoint,
    CorrectCheckpointData,
    ModelCorrection,
    RoundRescored,
)


@pytest.fixture(scope="module")
def log() -> MemoryLog:
    """The log of a node that pays, gets a correction, and pays the difference with the next checkpoint."""
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
    told = instants([spoilt(record) if n == SPIKE else record for n, record in enumerate(RECORDS)])
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
                shares=shares_of(parent),
            )
            engine.command(CorrectCheckpoint(id="correct", at=at, data=correct))
    return engine.log


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_bundle_of_a_corrected_log_passes(tmp_path: Path, log: MemoryLog, number: int):
    code, output = judged(
        bundle_of(tmp_path, log, number), "--policy", str(tmp_path / "node/evidence/key.pub")
    )
    assert code == 0, output
    assert ("micro-USDC on top for 1 earlier checkpoints" in output) == (number == 1)


def test_altered_credits_are_found(tmp_path: Path, log: MemoryLog):
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
    code, output = judged(bundle_of(tmp_path, altered, 1))
    assert code != 0
    assert "checkpoint" in output


@pytest.fixture(scope="module")
def quiet_log() -> MemoryLog:
    """A node of posted questions: a period that is corrected after its end, one without any round, and one that pays."""
    key, archive = applied(questioned.RULES)["FIRST"]
    contract = unpack(archive, key)
    models = {
        "one": lambda _data, _call: {"value": 0.9},
        "two": lambda _data, _call: {"value": 0.5},
        "three": lambda _data, _call: {"value": 0.1},
    }
    engine = Engine({key: contract}.__getitem__, Functions(models), crunch_id="btc-up")
    engine.configure(make_terms(contract, key, questioned.SETTINGS, 0, scoring_hash=key))
    data = ApplyContractData(contract_hash=key, path=f"{MODULE}:FIRST", archive=archive)
    engine.command(ApplyContract(id="cmd/apply/0", at=questioned.T0, data=data))
    period = questioned.PERIOD_DAYS
    for day in range(3 * period + 2):
        at = questioned.T0 + day * DAY
        engine.feed(at, [])
        if day in (0, 2 * period):
            post(engine, f"q{day}", at, at + HOUR)
            engine.feed(at + MINUTE, [])
            engine.feed(at + 2 * HOUR, [])
            resolve(engine, f"q{day}", at + 2 * HOUR, 0.0)
        if day == period + 1:  # in the period without a round
            resolve(engine, "q0", at, 1.0)
            (parent,) = checkpoints(engine.log)
            paid = dict(prize_amounts(parent, POOL)[0])
            due = dict(zip(paid, reversed(paid.values()), strict=True))
            correct = CorrectCheckpointData(
                checkpoint_id=parent.checkpoint_id,
                total_prize=POOL,
                models=[
                    ModelCorrection(model_id=name, paid=paid[name], due=due[name])
                    for name in sorted(paid)
                    if paid[name] != due[name]
                ],
                reason="it was the other outcome",
                shares=shares_of(parent),
            )
            engine.command(CorrectCheckpoint(id="correct", at=at, data=correct))
    return engine.log


def test_a_period_without_a_round_carries_nothing_and_has_no_checkpoint(tmp_path: Path, quiet_log: MemoryLog):
    """The credit waits for the next period that pays somebody. A truth that comes after the end scores nothing."""
    assert not [event for event in quiet_log.events("scores") if isinstance(event, RoundRescored)]
    first, carrier = checkpoints(quiet_log)
    assert carrier.period_start - first.period_end == questioned.PERIOD_DAYS * DAY
    assert first.credits == []
    (credit,) = carrier.credits
    assert credit.checkpoint_id == first.checkpoint_id
    assert sum(credit.prizes.values()) > 0
    for number in (0, 1):
        code, told = judged(bundle_of(tmp_path, quiet_log, number, whole=True))
        assert code == 0, told
        assert ("micro-USDC on top for 1 earlier checkpoints" in told) == (number == 1)
