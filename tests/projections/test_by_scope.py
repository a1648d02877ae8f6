"""The contribution of each scope to a window at a period's end, by the window's own rule: a sum or a mean."""

from __future__ import annotations

from tests.logs import HOUR_MS, START_MS, UNIT, LogBuilder, folded

from coordinator.streams import events as ev

WINDOWS = [
    ev.Window(name="mean", hours=24),
    ev.Window(name="profit", hours=24, rule="sum", least=3),
    ev.Window(name="newest", hours=24, last=2),
]


def test_the_scopes_of_a_window_of_sums_sum_up_to_it(tmp_path):
    log = LogBuilder()
    log.terms(windows=WINDOWS, ranking_key="profit")
    log.model("m")
    log.round(0, {"m": 1.0})
    log.round(60_000, {"m": 0.5})
    log.round(0, {"m": 0.25}, subject="ETHUSDT")
    log.round(60_000, {"m": "ABSENT"}, subject="ETHUSDT", charges={"m": -UNIT})
    log.scored_until(HOUR_MS)
    log.inputs_until(HOUR_MS)
    read = folded(log, tmp_path)
    by_subject = {
        row.subject: row.windows_units for row in read.leaderboard.history(0, START_MS + HOUR_MS, None)
    }
    (row,) = read.leaderboard.board().rows
    read.close()
    assert by_subject["BTCUSDT"] == {"mean": 3 * UNIT // 4, "profit": 3 * UNIT // 2, "newest": None}
    assert by_subject["ETHUSDT"] == {"mean": -3 * UNIT // 8, "profit": -3 * UNIT // 4, "newest": None}
    assert sum(figures["profit"] for figures in by_subject.values()) == row.windows_units["profit"]
