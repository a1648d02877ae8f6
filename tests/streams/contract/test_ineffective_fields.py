"""Two fields of which one would have no effect: refused with instructions."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from coordinator.streams.contract import (
    AggregationWindow,
    Calendar,
    CrunchContract,
    Ensemble,
    PredictionScope,
    ScheduledPrediction,
)
from coordinator.streams.contract.ensembles import TopN


def in_june(day: int) -> datetime:
    return datetime(2026, 6, day, tzinfo=UTC)


SCHEDULES = [ScheduledPrediction(scope_key="1h", scope=PredictionScope(horizon_seconds=3600))]
HOUR = PredictionScope(horizon_seconds=3600)


def scored(answers: Any, *_: Any) -> Any:
    return {"value": answers.column("value")}


IN_VAIN: dict[str, tuple[Callable[[], Any], str]] = {
    "a first tick of fewer records": (lambda: CrunchContract(input_records=100, input_records_first=99), "input_records_first: 99 is less than input_records \\(100\\)"),
    "a scope beside schedules": (lambda: CrunchContract(scope=HOUR, scheduled_predictions=SCHEDULES), "scope: scheduled_predictions say"),
    "a wait that nothing waits": (lambda: CrunchContract(gap_policy="accept", gap_wait_seconds=60), "gap_wait_seconds: "),
    "how state is shared, and there is none": (lambda: CrunchContract(state_scope="all"), "state_scope: score_round alone"),
    "how large state may be, and there is none": (lambda: CrunchContract(state_max_bytes=65_536), "state_max_bytes: score_round"),
    "a warm-up that lasts to the end": (lambda: CrunchContract(calendar=Calendar(unpaid_until=in_june(9), ends_at=in_june(8))), "calendar.unpaid_until: "),
    "a window that asks for more than it holds": (lambda: AggregationWindow(name="few", last=5, least=6), "window 'few': of the last 5 there are never 6"),
    "an ensemble's past that nothing asks for": (lambda: Ensemble(name="equal", hours=2), "ensemble 'equal': \\['hours'\\]"),
    "an ensemble's error that nothing asks for": (lambda: Ensemble(name="equal", error_field="error"), "\\['error_field'\\] tell of the past"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "why"), IN_VAIN.values(), ids=IN_VAIN)
def test_a_field_without_effect_is_refused_with_what_to_change(make: Callable[[], Any], why: str):
    with pytest.raises(ValidationError, match=why):
        make()


def test_each_of_them_is_accepted_where_it_has_an_effect():
    CrunchContract(input_records=100, input_records_first=100, gap_wait_seconds=60)
    CrunchContract(scope=PredictionScope(), scheduled_predictions=SCHEDULES)  # like the default
    CrunchContract(score_round=scored, state_scope="all", state_max_bytes=65_536)
    CrunchContract(calendar=Calendar(unpaid_until=in_june(8), ends_at=in_june(9)))
    AggregationWindow(name="few", last=5, least=5)
    Ensemble(name="top", filter=TopN(n=1), hours=2)
