"""Rules under which more of the past counts than before. What was dropped by then is gone, so a window that is made
longer grows. Nobody may see another figure than the stage: not the audit, not a plan, not the live board. And no figure
may depend on when the new rules became known.
"""

from __future__ import annotations

import pytest
from tests.checked import chain_of, fault_of
from tests.explained import fold
from tests.memory_log import MemoryLog
from tests.streams.build import MINUTE, PUBKEY, T0
from tests.streams.engine.test_plan import NEW, OLD, SETTINGS, Moody, decided

from coordinator.streams.audit.facts import Chain
from coordinator.streams.contract import Aggregation, AggregationWindow, Board, CrunchContract
from coordinator.streams.contract.aggregation import Ewma
from coordinator.streams.contract.coverage import Coverage
from coordinator.streams.contract.terms import make_terms
from coordinator.streams.engine import Engine, Functions, candles
from coordinator.streams.engine.rerun import Changes, RecordedCrunch, rerun
from coordinator.streams.events import ApplyContract, ApplyContractData, SnapshotTaken
from coordinator.streams.ports import ModelInfo, ModelNotice

PERIOD = 30
BOUNDARY, ROUNDS = 3 * PERIOD, 5 * PERIOD
EARLY, LATE = 2 * PERIOD + 2, 3 * PERIOD - 3
"""The minutes at which the new rules are applied: both hold from BOUNDARY on."""
RECORDS = candles([100 + (n * 7919 % 19 - 9) / 4 for n in range(ROUNDS + 1)], start_ms=T0)


def window(name="w", **fields) -> AggregationWindow:
    return AggregationWindow(name=name, **fields)


def rules(*windows, **fields) -> CrunchContract:
    others = [window("hour", hours=1)] if all(window.name != "hour" for window in windows) else []
    aggregation = Aggregation(
        windows=[*others, *windows],
        boards=fields.pop("boards", []),
        ranking_key="hour",
        checkpoint_key="period",
    )
    return CrunchContract(crunch_pubkey=PUBKEY, aggregation=aggregation, absence_policy="zero", **fields)


CHANGES = {
    "hours": (rules(window("hour", hours=1)), rules(window("hour", hours=3))),
    "hours of a board": tuple(
        rules(window("hour", hours=hours), boards=[Board(name="b", window="hour")]) for hours in (1, 3)
    ),
    "a board over a window, where there was none": (
        rules(window("hour", hours=3)),
        rules(window("hour", hours=3), boards=[Board(name="b", window="hour")]),
    ),
    "newest values": (rules(window(last=5)), rules(window(last=60))),
    "newest values, where nobody counted any": (rules(), rules(window(last=60))),
    "hours of newest values": (rules(window(last=100, hours=1)), rules(window(last=200, hours=3))),
    "a mean by weights": (
        rules(window(rule=Ewma(alpha=0.1), hours=1)),
        rules(window(rule=Ewma(alpha=0.1), hours=3)),
    ),
    "the latest": (rules(window(rule="latest", hours=1)), rules(window(rule="latest", hours=3))),
    "hours of coverage": tuple(rules(coverage=Coverage(share=0.5, hours=hours)) for hours in (1, 3)),
    "rounds of coverage": tuple(rules(coverage=Coverage(share=0.5, rounds=rounds)) for rounds in (10, 100)),
    "hours, then rounds of coverage": (
        rules(coverage=Coverage(share=0.5, hours=1)),
        rules(coverage=Coverage(share=0.5, rounds=100)),
    ),
    "hours, of who was given a past": (
        rules(window("hour", hours=1), window(last=9), newcomer_past="median"),
        rules(window("hour", hours=3), window(last=90), newcomer_past="median"),
    ),
    "no past for newcomers any more": (
        rules(window("hour", hours=2), window(last=9), newcomer_past="median"),
        rules(window("hour", hours=3), window(last=90)),
    ),
}


class Comes(Functions):
    """One model of three joins long after the others, and one leaves long before the rules change."""

    def __init__(self) -> None:
        super().__init__({"one": Moody(0), "late": Moody(3), "gone": Moody(5)})
        self._looked = 0

    def notices(self):
        self._looked += 1
        changes = {1: ("seen", "one", "gone"), 40: ("left", "gone"), 65: ("seen", "late")}
        change, *names = changes.get(self._looked, ("",))
        return [
            ModelNotice(change, ModelInfo(name, name, f"{name}-1", f"{name}-c", f"{name}-c"))
            for name in names
        ]


def terms_of(contract, contract_hash):
    return make_terms(contract, contract_hash, SETTINGS, 0, scoring_hash="scored alike")


def played(old, new, applied_at):
    engine = Engine(
        {OLD: old, NEW: new}.__getitem__,
        Comes(),
        terms_of=lambda command: terms_of(new, command.data.contract_hash),
    )
    engine.configure(terms_of(old, OLD))
    for number, record in enumerate(RECORDS):
        if number == applied_at:
            data = ApplyContractData(contract_hash=NEW, path="new:CONTRACT", archive=b"")
            engine.command(ApplyContract(id="apply", at=record.at, data=data))
        engine.feed(record.at, [record])
    return engine.log


@pytest.mark.parametrize("change", CHANGES)
def test_a_window_that_is_made_longer_has_one_figure_for_all_who_look(change, tmp_path):
    old, new = CHANGES[change]
    contracts = {OLD: old, NEW: new}.__getitem__
    log = played(old, new, EARLY)
    # Whenever the rules became known, and in a plan.
    by_command = decided(log)
    assert decided(played(old, new, LATE)) == by_command
    planned = rerun(
        RecordedCrunch(played(old, new, None), contracts, "engine"),
        Changes(terms_of(new, NEW), T0 + BOUNDARY * MINUTE),
    )
    assert decided(planned.log) == by_command
    # In the audit.
    topics = MemoryLog(log.topics)
    *_, first, second = Chain({"checkpoints": topics.decisions("checkpoints")}).checkpoints.values()
    assert (first.period_start, first.contract_hash) == (T0 + BOUNDARY * MINUTE, NEW)
    for checkpoint in (first, second):
        chain = chain_of(topics, checkpoint)
        assert fault_of(topics, chain, checkpoint, contracts, "engine") is None
    # On the live board, which ends where the last period ends.
    read = fold(log, tmp_path)
    try:
        board = read.leaderboard.board()
        newest = {
            event.data.model_id: event.data.windows_units | event.data.boards_units
            for event in log.events("snapshots")
            if isinstance(event, SnapshotTaken) and event.data.period_end == board.until
        }
        assert len(newest) >= 2
        for row in board.rows:
            if row.model.model_id in newest:
                assert row.windows_units == newest[row.model.model_id], row.model.model_id
    finally:
        read.close()
