"""The log of a node that has paid thirty times, with windows that reach back over six of these periods."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from tests.infra.evidence.bundles import MODULE, applied
from tests.streams.build import T0
from tests.streams.engine.test_correct import instants
from tests.streams.engine.test_plan import Moody

from coordinator.infra.contracts.archive import unpack
from coordinator.streams.contract.terms import make_terms
from coordinator.streams.engine import Engine, Functions, candles
from coordinator.streams.engine.memory_log import MemoryLog
from coordinator.streams.events import ApplyContract, ApplyContractData
from coordinator.streams.ports import ModelNotice
from coordinator.streams.settings import Settings

PERIODS, PERIOD_ROUNDS, REACH_PERIODS = 30, 10, 6
RULES = """
from coordinator.streams.contract import Aggregation, AggregationWindow, CrunchContract

FIRST = CrunchContract(
    crunch_pubkey="So11111111111111111111111111111111111111112",
    input_records=8,
    input_records_first=20,
    aggregation=Aggregation(windows=[AggregationWindow(name="hour", hours=1)], ranking_key="hour"),
)
SECOND = FIRST
"""
SETTINGS = Settings(
    feed_source="generated",
    snapshot_interval_seconds=PERIOD_ROUNDS * 30,
    checkpoint_interval_seconds=PERIOD_ROUNDS * 60,
    checkpoint_offset_seconds=T0 // 1000 % (PERIOD_ROUNDS * 60),
)


class Leaving(Functions):
    """Models of which one leaves and comes back."""

    changes: tuple[ModelNotice, ...] = ()

    def change(self, change: str, model_id: str) -> None:
        """The gateway's notice comes with the next round."""
        self.changes = (ModelNotice(change, self._info(model_id)),)

    def notices(self) -> Sequence[ModelNotice]:
        changes, self.changes = self.changes, ()
        return [*super().notices(), *changes]


@lru_cache
def aged_log(rules: str = RULES, periods: int = PERIODS) -> MemoryLog:
    """`one` leaves in the third period, and comes back in the last but one."""
    key, archive = applied(rules)["FIRST"]
    contract = unpack(archive, key)
    models = Leaving({"one": Moody(0), "two": Moody(4), "calm": lambda data, call: {"value": 0.03}})
    engine = Engine({key: contract}.__getitem__, models, crunch_id="btc-up")
    data = ApplyContractData(contract_hash=key, path=f"{MODULE}:FIRST", archive=archive)
    engine.configure(make_terms(contract, key, SETTINGS, 0, scoring_hash=key))
    engine.command(ApplyContract(id="cmd/apply/0", at=T0, data=data))
    rounds = (periods + 1) * PERIOD_ROUNDS
    records = candles([100 + (n * 7919 % 19 - 9) / 4 for n in range(rounds)], start_ms=T0)
    for number, (at, told) in enumerate(instants(records)):
        if number == 3 * PERIOD_ROUNDS:
            models.change("left", "one")
        if number == (periods - 2) * PERIOD_ROUNDS:
            models.change("seen", "one")
        engine.feed(at, told)
    return engine.log
