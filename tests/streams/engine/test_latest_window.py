"""A window over the latest value alone: it does not depend on what other windows keep, and the audit computes it too."""

from __future__ import annotations

import pytest
from tests.checked import chain_of, fault_of
from tests.memory_log import MemoryLog
from tests.streams.build import HASH, MINUTE, PUBKEY, T0
from tests.streams.engine.test_plan import SETTINGS

from coordinator.streams.audit.facts import Chain
from coordinator.streams.contract import Aggregation, AggregationWindow, CrunchContract
from coordinator.streams.contract.terms import make_terms
from coordinator.streams.engine import Engine, Functions, candles
from coordinator.streams.events import SnapshotTaken

ROUNDS = 90
RECORDS = candles([100 + (n * 7919 % 19 - 9) / 4 for n in range(ROUNDS + 2)], start_ms=T0)


def silent(data, call):
    """Answers in the first seven minutes alone. Each miss is charged."""
    if data["asof_ts"] > T0 + 7 * MINUTE:
        raise ValueError("no opinion")
    return {"value": 0.4}


def played(*others: AggregationWindow, least: int):
    aggregation = Aggregation(
        windows=[AggregationWindow(name="newest", rule="latest", hours=1, least=least), *others],
        ranking_key="newest",
    )
    contract = CrunchContract(crunch_pubkey=PUBKEY, absence_policy="zero", aggregation=aggregation)
    engine = Engine(
        lambda _: contract, Functions({"silent": silent, "always": lambda data, call: {"value": 0.1}})
    )
    engine.configure(make_terms(contract, HASH, SETTINGS, 0))
    for record in RECORDS:
        engine.feed(record.at, [record])
    return MemoryLog(engine.log.topics), contract


@pytest.mark.parametrize("least", [0, 12])
def test_the_latest_value_counts_as_long_as_a_score_is_in_the_windows_hours(least):
    log, contract = played(least=least)
    numbers = {
        (data.model_id, (data.period_end - T0) // MINUTE): data.windows_units["newest"]
        for data in (event.data for event in log.events("snapshots") if isinstance(event, SnapshotTaken))
    }
    of_silent = {minute: units for (model_id, minute), units in numbers.items() if model_id == "silent"}
    # The score of the eighth minute is in the window for an hour, and charges of 0 come after it.
    assert {units for minute, units in of_silent.items() if 15 <= minute <= 60} == {0}
    assert {units for minute, units in of_silent.items() if minute > 70} == {None}
    assert (of_silent[10] is None) == (least == 12)  # it had nine values then
    more, _ = played(AggregationWindow(name="many", last=1000), least=least)
    assert numbers == {
        (data.model_id, (data.period_end - T0) // MINUTE): data.windows_units["newest"]
        for data in (event.data for event in more.events("snapshots") if isinstance(event, SnapshotTaken))
    }
    for checkpoint in Chain({"checkpoints": log.decisions("checkpoints")}).checkpoints.values():
        assert fault_of(log, chain_of(log, checkpoint), checkpoint, lambda _: contract, "engine") is None
