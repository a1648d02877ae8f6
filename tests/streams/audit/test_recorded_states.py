"""The states that stages have recorded, checked over the logs of a whole market. No contract is needed."""

from __future__ import annotations

import pytest
from tests.memory_log import MemoryLog, undisturbed
from tests.streams import test_crash_chain

from coordinator.streams.audit.recorded_states import state_checks
from coordinator.streams.log import recorded_state
from coordinator.streams.log.recorded_state import WrongStateError


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> MemoryLog:
    """A market whose stages recorded their states every few decisions."""
    monkeypatch.setattr(recorded_state, "EVERY_BYTES_MIN", 2000)
    monkeypatch.setattr(recorded_state, "EVERY_STATES", 1)
    whole = test_crash_chain.market(1)
    for topic, new_stage in test_crash_chain.STAGES.items():
        whole.topics[topic] = undisturbed(test_crash_chain.sources_of(topic, whole), new_stage)[topic]
    test_crash_chain.market.cache_clear()
    return whole


def test_every_stage_has_recorded_what_its_events_lead_to(log: MemoryLog) -> None:
    checks = state_checks("btc-up")
    for topic, check in checks.items():
        for offset, record in enumerate(log[topic]):
            check.read(offset, record)
    assert {topic for topic, check in checks.items() if check.checked} == set(test_crash_chain.STAGES)


def read_whole(topic: str, records: list[bytes]) -> None:
    check = state_checks("btc-up")[topic]
    for offset, record in enumerate(records):
        check.read(offset, record)


def test_a_decision_altered_before_a_state_is_found(log: MemoryLog) -> None:
    """The recorded state still contains the original snapshot."""
    records = log["snapshots"]
    place = next(i for i, body in enumerate(records) if b'"sums":{"value":[' in body)
    records[place] = records[place].replace(b',9]},"summary_units"', b',8]},"summary_units"')
    with pytest.raises(WrongStateError, match=r"snapshots offset \d+: .*trails"):
        read_whole("snapshots", records)


def test_a_decision_removed_before_a_state_is_found(log: MemoryLog) -> None:
    records = log["snapshots"]
    records[next(i for i, body in enumerate(records) if b'"sums":{"value":[' in body)] = b"garbage"
    with pytest.raises(WrongStateError, match="but before it is"):
        read_whole("snapshots", records)
