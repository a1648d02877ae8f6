"""The board gives the reason why a model has no rank. A model below the coverage has none. With a rule for newcomers
the board shows what the snapshots say.
"""

from __future__ import annotations

import pytest
from tests.logs import HOUR_MS, MINUTE_MS, START_MS, UNIT, LogBuilder, folded

from coordinator.streams import events as ev

LEAST = [ev.Window(name="score_recent", hours=24, least=3), ev.Window(name="fast", hours=24, last=5)]
BOTH = [*LEAST, ev.Window(name="both", hours=0, combines={"score_recent": 1.0, "fast": 1.0})]


@pytest.fixture
def board(tmp_path):
    opened = []

    def do(log, by=None):
        opened.append(folded(log, tmp_path / str(len(opened))))
        return opened[-1].leaderboard.board(by)

    yield do
    for read in opened:
        read.close()


def taken(log: LogBuilder, model_id: str, **fields) -> None:
    """Its snapshot of the first hour."""
    log.snapshot(model_id, START_MS, START_MS + HOUR_MS, **fields)


def reasons(board) -> dict[str, str]:
    return {row.model.model_id: row.unranked_reason for row in board.rows}


def log_of(**terms) -> LogBuilder:
    log = LogBuilder()
    log.terms(**terms)
    for name in ("good", "few", "silent", "gone", "banned"):
        log.model(name)
    log.model_left("gone")
    for minute in range(3):
        log.round(
            minute * MINUTE_MS,
            {"good": 0.5, "gone": 0.4, "silent": "ABSENT"} | ({"few": 0.9} if not minute else {}),
        )
    log.scored_until(HOUR_MS)
    log.inputs_until(HOUR_MS)
    return log


def test_each_unranked_model_has_its_reason(board):
    shown = board(log_of(windows=LEAST))
    assert reasons(shown) == {
        "good": "",
        "few": "fewer than 3 scores and charges in score_recent",
        "silent": "no score in score_recent",
        "gone": "not running: left",
        "banned": "no score in score_recent",
    }
    assert (shown.rows[0].rank, shown.rows[0].model.model_id) == (1, "good")


def test_a_window_of_windows_is_named_in_the_reason(board):
    log = log_of(windows=BOTH)
    for name, scored in (("good", 3), ("few", 1)):
        units = {"score_recent": UNIT // 2 if name == "good" else None, "fast": UNIT, "both": None}
        taken(log, name, windows_units=units, windows_counts={"fast": scored, "both": scored})
    assert reasons(board(log, "both"))["few"] == "no number in both: a part of it has none"


def test_a_model_below_the_coverage_is_on_the_board_without_a_rank(board):
    log = log_of(coverage=ev.CoverageTerms(share=0.5, hours=24, rounds=0))
    taken(log, "good", coverage=ev.Answered(2, 4))
    taken(log, "few", coverage=ev.Answered(1, 3))
    shown = board(log)
    assert [(row.rank, row.model.model_id) for row in shown.rows][:2] == [(1, "good"), (None, "banned")]
    few = next(row for row in shown.rows if row.model.model_id == "few")
    assert few.windows_units["score_recent"] == 9 * UNIT // 10
    assert few.unranked_reason == "scored in 1 of 3 rounds of the last 24 h, coverage asks for 0.5"
    assert reasons(shown)["silent"] == "scored in no closed period of the last 24 h, coverage asks for 0.5"


def test_with_a_rule_for_newcomers_windows_are_those_of_the_snapshots(board):
    log = log_of(newcomer_past="worst")
    log.round(HOUR_MS, {"good": 0.1})  # of a period that is not closed
    log.inputs_until(HOUR_MS + 2 * MINUTE_MS)
    windows = {"score_recent": UNIT // 4, "score_steady": UNIT // 5, "score_anchor": None}
    taken(log, "good", joined=ev.JoinedAt(START_MS, START_MS), windows_units=windows)
    shown = board(log)
    row = shown.rows[0]
    assert (row.model.model_id, row.rank, row.windows_units) == ("good", 1, windows)
    assert reasons(shown)["few"] == "no score in score_recent"


def test_a_participant_without_a_running_model_hands_in_answers_and_has_a_rank(board):
    log = log_of(windows=LEAST)
    for minute in range(3, 7):
        log.round(minute * MINUTE_MS, {"handed-in": 0.9})
    log.scored_until(2 * HOUR_MS)
    log.inputs_until(2 * HOUR_MS)
    shown = board(log)
    assert reasons(shown)["handed-in"] == ""
    assert next(row.rank for row in shown.rows if row.model.model_id == "handed-in") is not None
