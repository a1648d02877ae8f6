"""The board follows the terms in force at its time. Terms announced for later change nothing yet, now or in the past."""

from __future__ import annotations

import pytest
from tests.logs import CONTRACT_HASH, HOUR_MS, MINUTE_MS, START_MS, UNIT, LogBuilder, folded

from coordinator.streams import events as ev

CHANGE_MS = 6 * HOUR_MS
"""After START_MS."""
SHORT = [ev.Window(name="brief", hours=2)]


def log_of(later_by_ms: int = 0, **new) -> LogBuilder:
    """Six hours with a round every half hour, `a` good at first and then bad. New terms are announced in the second
    hour.
    """
    log = LogBuilder()
    log.terms()
    log.model("a")
    log.model("b")
    for hour in range(6):
        if hour == 1:
            effective_from = START_MS + CHANGE_MS
            new = {"contract_hash": "n" * 64, "effective_from": effective_from, **new}
            log.terms(START_MS + HOUR_MS, **new)
        good = 0.9 if hour < 3 else 0.1
        log.round(hour * HOUR_MS + 30 * MINUTE_MS, {"a": good, "b": 0.2})
    if later_by_ms:
        log.round(CHANGE_MS + 30 * MINUTE_MS, {"a": 0.1, "b": 0.2})
    log.inputs_until(CHANGE_MS + later_by_ms - MINUTE_MS)
    return log


@pytest.fixture
def board(tmp_path):
    opened = []

    def do(log):
        opened.append(folded(log, tmp_path / str(len(opened))))
        return opened[-1].leaderboard.board()

    yield do
    for read in opened:
        read.close()


LATER = {
    "another direction": {"ranking_direction": "asc"},
    "a shorter window": {"windows": SHORT, "ranking_key": "brief"},
    "another field": {"value_field": "ic", "scoring_hash": "other"},
    "another scoring": {"scoring_hash": "other"},
    "another interval": {"snapshot_interval_ms": 2 * HOUR_MS},
}


@pytest.mark.parametrize("new", LATER.values(), ids=LATER)
def test_announced_terms_change_nothing_before_their_time(board, new):
    assert board(log_of(**new)) == board(log_of())


def places(board):
    return [
        (row.rank, row.model.model_id, row.windows_units[board.ranking_key], row.scored_count)
        for row in board.rows
    ]


def test_from_their_time_on_the_board_follows_them(board):
    shown = board(log_of(HOUR_MS, ranking_direction="asc"))
    assert [row.model.model_id for row in shown.rows] == ["b", "a"]
    shown = board(log_of(HOUR_MS, windows=SHORT, ranking_key="brief"))
    assert places(shown) == [(1, "b", UNIT // 5, 3), (2, "a", UNIT // 10, 3)]


def test_windows_restart_where_the_scoring_changes(board):
    shown = board(log_of(HOUR_MS, scoring_hash="other"))
    assert places(shown) == [(1, "b", UNIT // 5, 1), (2, "a", UNIT // 10, 1)]
    assert shown.mixed_contracts == []


def test_a_round_of_the_old_scoring_is_in_no_window_of_the_new(board):
    log = LogBuilder()
    log.terms()
    log.terms(contract_hash="n" * 64, effective_from=START_MS + CHANGE_MS, scoring_hash="other")
    log.model("a")
    log.round(CHANGE_MS - 30 * MINUTE_MS, {"a": 0.9}, scope_key="1h", horizon_seconds=3600)
    log.round(CHANGE_MS + MINUTE_MS, {"a": 0.1})
    log.inputs_until(CHANGE_MS + HOUR_MS)
    shown = board(log)
    assert places(shown) == [(1, "a", UNIT // 10, 1)]
    assert shown.rows[0].last_scored_at == START_MS + CHANGE_MS + 30 * MINUTE_MS


def test_a_release_that_hashes_the_same_contract_s_scoring_anew_changes_no_sum(board):
    """The board used to stand still between the announcement and the start of such terms, and the snapshots from then
    on.
    """
    same = {"contract_hash": CONTRACT_HASH, "scoring_hash": "hashed in another way"}
    assert board(log_of(contract_hash=CONTRACT_HASH, scoring_hash=same["scoring_hash"])) == board(log_of())
    shown = board(log_of(HOUR_MS, **same))
    assert places(shown) == places(board(log_of(HOUR_MS, contract_hash=CONTRACT_HASH)))
    assert shown.mixed_contracts == []


def test_a_board_whose_windows_mix_two_rules_says_so(board):
    assert board(log_of()).mixed_contracts == []
    assert board(log_of(HOUR_MS)).mixed_contracts == [CONTRACT_HASH, "n" * 64]
    short = {"windows": SHORT, "ranking_key": "brief"}
    assert board(log_of(4 * HOUR_MS, **short)).mixed_contracts == []
    assert board(log_of(HOUR_MS, **short)).mixed_contracts == [CONTRACT_HASH, "n" * 64]


def test_a_window_that_will_become_shorter_loses_nothing_before(board):
    """The bucket of the first hour is older than the coming window of two hours and its reserve."""
    log = LogBuilder()
    log.terms()
    log.terms(
        contract_hash="n" * 64, effective_from=START_MS + 48 * HOUR_MS, windows=SHORT, ranking_key="brief"
    )
    log.model("a")
    log.round(0, {"a": 0.8})
    log.round(20 * HOUR_MS, {"a": 0.2})
    log.inputs_until(21 * HOUR_MS)
    assert places(board(log)) == [(1, "a", UNIT // 2, 2)]
