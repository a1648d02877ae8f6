"""A model that joined within a checkpoint period is ranked with the contract's substitute for its past, and by its
coverage. By default neither applies.
"""

from __future__ import annotations

import pytest
from tests.streams.test_participation import checkpoint_of

from coordinator.streams.events import BoardPart, BoardTerms, CoverageTerms

ROUNDS = [
    (hour + 0.5, {"steady": 4, "odd": 8, "better": 6} | ({"new": 10} if hour >= 4 else {}))
    for hour in range(6)
]


# Four rounds before it joined, and two of its own.
MEANS = {"nothing": 10, "worst": round((4 * 4 + 2 * 10) / 6), "median": round((4 * 6 + 2 * 10) / 6)}


@pytest.mark.parametrize("past", MEANS)
def test_the_periods_mean_of_a_newcomer(past):
    board = BoardTerms(name="whole", window="", parts=[BoardPart("BTCUSDT", "60s", "1")], every_scope=True)
    data = checkpoint_of(ROUNDS, 0.0, newcomer_past=past, boards=[board])
    (entry,) = [row for row in data.ranking if row.model_id == "new"]
    assert (
        entry.key_units
        == entry.result_summary_units["value"]
        == entry.result_summary_units["whole"]
        == MEANS[past]
    )
    assert (entry.prediction_count, entry.snapshot_count) == (2, 2)


def test_in_the_next_period_it_is_no_longer_a_newcomer():
    rounds = ROUNDS + [(hour + 6.5, {"steady": 4, "new": 10}) for hour in range(6)]
    data = checkpoint_of(rounds, 0.0, hours=12, newcomer_past="worst")
    assert {row.model_id: row.key_units for row in data.ranking} == {"steady": 4, "new": 10}


@pytest.mark.parametrize(
    ("coverage", "reason"),
    [
        (CoverageTerms(0.4, 6, 0), "scored in 2 of 6 rounds of the last 6 h, coverage asks for 0.4"),
        (CoverageTerms(0.4, 0, 5), ""),
        (
            CoverageTerms(0.5, 0, 5),
            "scored in 2 of 5 rounds of the newest periods with 5 rounds, coverage asks for 0.5",
        ),
        (CoverageTerms(1.0, 2, 0), ""),
    ],
)
def test_a_model_below_the_coverage_is_not_ranked(coverage, reason):
    data = checkpoint_of(ROUNDS, 0.0, coverage=coverage)
    assert data.unranked_reasons == ({"new": reason} if reason else {})


def test_coverage_covers_the_time_before_the_period_up_to_its_end():
    """`away` took part in the whole previous period and left when this one began."""
    rounds = [(hour + 0.5, {"steady": 4} | ({"away": 9} if hour < 8 else {})) for hour in range(12)]
    covered = checkpoint_of(rounds, 0.0, hours=12, coverage=CoverageTerms(0.6, 12, 0))
    assert [row.model_id for row in covered.ranking] == ["away", "steady"]
    gone = checkpoint_of(rounds, 0.0, hours=12, coverage=CoverageTerms(0.6, 6, 0))
    assert gone.unranked_reasons == {"away": "scored in 2 of 6 rounds of the last 6 h, coverage asks for 0.6"}
