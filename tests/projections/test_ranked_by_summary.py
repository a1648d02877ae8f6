"""The live board can rank by a key of the snapshot summary, as of the end of the latest closed period.

If the checkpoint period is one snapshot, such a board has the places of the checkpoint's ranking by the same key.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st
from tests.logs import HOUR_MS, MINUTE_MS, START_MS, UNIT, LogBuilder, folded

from coordinator.streams import events as ev
from coordinator.streams.checkpoints.period_ranking import PeriodTotals, ranked_entries
from coordinator.streams.log.envelope import Need
from coordinator.streams.log.ids import ensemble_id

MODELS = ("a", "b", "c", "late")


@pytest.fixture
def read(tmp_path):
    opened = []

    def do(log):
        opened.append(folded(log, tmp_path / str(len(opened))))
        return opened[-1].leaderboard

    yield do
    for read_models in opened:
        read_models.close()


def log_of(**terms) -> LogBuilder:
    """An hour of rounds: `a` scores best, then `b`, then `c`; `late` is not scored."""
    log = LogBuilder()
    log.terms(**{"ranking_key": "ic", **terms})
    for name in MODELS:
        log.model(name)
    for minute in range(3):
        log.round(minute * MINUTE_MS, {"a": 0.9, "b": 0.5, "c": 0.1})
    log.scored_until(HOUR_MS)
    log.inputs_until(HOUR_MS)
    return log


def taken(log: LogBuilder, hour: int, summaries: dict[str, dict[str, int]], **fields) -> None:
    """The snapshots of one hour."""
    start = START_MS + hour * HOUR_MS
    for model_id, units in summaries.items():
        log.snapshot(model_id, start, start + HOUR_MS, summary_units=units, **fields)


def places(board) -> list[tuple[int | None, str, int | None]]:
    return [(row.rank, row.model.model_id, row.windows_units["ic"]) for row in board.rows]


def reasons(board) -> dict[str, str]:
    return {row.model.model_id: row.unranked_reason for row in board.rows if row.unranked_reason}


def test_before_the_first_period_is_closed_nobody_has_a_rank(read):
    board = read(log_of()).board()
    assert places(board) == [(None, name, None) for name in MODELS]
    assert set(reasons(board).values()) == {"no score in the last closed period"}
    assert (board.ranking_key, board.ranked_as_of) == ("ic", None)


@pytest.mark.parametrize(("direction", "order"), [("desc", "bca"), ("asc", "acb")])
def test_it_ranks_by_the_latest_snapshot_in_the_declared_direction(read, direction, order):
    log = log_of(ranking_direction=direction)
    taken(log, 0, {"a": {"ic": 9}, "b": {"ic": 8}, "c": {"ic": 7}})
    taken(log, 1, {"a": {"ic": 1}, "b": {"ic": 3}, "c": {"ic": 2}})
    board = read(log).board()
    units = {"a": 1, "b": 3, "c": 2}
    assert places(board) == [
        *((place, name, units[name]) for place, name in enumerate(order, start=1)),
        (None, "late", None),
    ]
    assert board.ranked_as_of == START_MS + 2 * HOUR_MS
    assert board.rows[0].scored_count == 2
    assert board.rows[0].windows_units.keys() == {"score_recent", "score_steady", "score_anchor", "ic"}


def test_equal_numbers_share_a_place(read):
    log = log_of()
    taken(log, 0, {"a": {"ic": 5}, "b": {"ic": 7}, "c": {"ic": 7}})
    assert places(read(log).board())[:3] == [(1, "b", 7), (1, "c", 7), (3, "a", 5)]


def test_a_model_without_a_number_has_no_rank_and_a_reason(read):
    log = log_of()
    log.model_left("b")
    taken(log, 0, {"a": {"ic": 5}, "b": {"ic": 8}, "c": {"other": 9}})
    board = read(log).board()
    assert places(board)[0] == (1, "a", 5)
    assert reasons(board) == {
        "b": "not running: left",
        "c": "no ic in the last closed period",
        "late": "no score in the last closed period",
    }


def test_a_number_of_an_older_period_is_not_ranked_with_those_of_the_latest(read):
    log = log_of()
    taken(log, 0, {"a": {"ic": 5}, "b": {"ic": 8}})
    taken(log, 1, {"a": {"ic": 4}})
    board = read(log).board()
    assert places(board)[:2] == [(1, "a", 4), (None, "b", None)]
    assert reasons(board)["b"] == "no score in the last closed period"


def test_a_model_below_the_coverage_has_no_rank(read):
    log = log_of(coverage=ev.CoverageTerms(share=0.5, hours=24, rounds=0))
    taken(log, 0, {"a": {"ic": 5}}, coverage=ev.Answered(2, 4))
    taken(log, 0, {"b": {"ic": 8}}, coverage=ev.Answered(1, 4))
    board = read(log).board()
    assert places(board)[0] == (1, "a", 5)
    assert reasons(board)["b"] == "scored in 1 of 4 rounds of the last 24 h, coverage asks for 0.5"


def test_numbers_of_another_scoring_do_not_rank(read):
    log = log_of()
    taken(log, 0, {"a": {"ic": 5}})
    change = START_MS + 2 * HOUR_MS
    log.terms(effective_from=change, contract_hash="n" * 64, scoring_hash="other", ranking_key="ic")
    log.inputs_until(3 * HOUR_MS)
    board = read(log).board()
    assert (board.ranked_as_of, {place for place, *_ in places(board)}) == (None, {None})
    taken(log, 2, {"a": {"ic": 6}})
    board = read(log).board()
    assert (board.ranked_as_of, places(board)[0]) == (change + HOUR_MS, (1, "a", 6))


def test_windows_as_of_a_period_of_another_scoring_have_no_number(read):
    few = [ev.Window(name="few", hours=24, last=5)]
    log = log_of(windows=few, ranking_key="few")
    taken(log, 0, {"a": {}}, windows={"few": 5}, counts={"few": 3})
    assert [row.rank for row in read(log).board().rows][:2] == [1, None]
    change = START_MS + 2 * HOUR_MS
    log.terms(
        effective_from=change, contract_hash="n" * 64, scoring_hash="other", windows=few, ranking_key="few"
    )
    log.inputs_until(3 * HOUR_MS)
    assert {row.windows_units["few"] for row in read(log).board().rows} == {None}
    taken(log, 2, {"a": {}}, windows={"few": 6}, counts={"few": 3})
    assert read(log).board().rows[0].windows_units["few"] == 6


def test_a_board_may_be_requested_by_any_key_of_the_last_summary_and_no_other(read):
    log = log_of(ranking_key="score_recent")
    taken(log, 0, {"a": {"ic": 5, "turnover": 2}, "b": {"turnover": 3}})
    leaderboard = read(log)
    own = leaderboard.board()
    assert (own.ranked_as_of, [row.model.model_id for row in own.rows][:3]) == (None, ["a", "b", "c"])
    assert own.rows[0].windows_units.keys() == {"score_recent", "score_steady", "score_anchor"}
    asked = leaderboard.board("turnover")
    assert [(row.rank, row.model.model_id) for row in asked.rows][:2] == [(1, "b"), (2, "a")]
    assert asked.ranked_as_of == START_MS + HOUR_MS
    for unknown in ("sharpe", "period", ""):
        with pytest.raises(KeyError):
            leaderboard.board(unknown)


def test_an_ensemble_is_listed_by_its_number_and_takes_no_place(read):
    log = log_of()
    taken(log, 0, {"a": {"ic": 5}, "b": {"ic": 8}, ensemble_id("mean"): {"ic": 6}})
    assert places(read(log).board())[:3] == [(1, "b", 8), (None, ensemble_id("mean"), 6), (2, "a", 5)]


@settings(max_examples=25, deadline=None)
@for_all(seed=st.integers(0, 9999), direction=st.sampled_from(["asc", "desc"]))
def test_it_is_the_ranking_of_a_checkpoint_whose_period_is_one_snapshot(tmp_path_factory, seed, direction):
    rng = random.Random(seed)
    names = [f"m{i}" for i in range(8)]
    log = LogBuilder()
    terms = log.terms(ranking_key="ic", checkpoint_key="ic", ranking_direction=direction)
    totals = PeriodTotals(START_MS, START_MS + HOUR_MS, Need(0, 0))
    for name in names:
        log.model(name)
    log.inputs_until(HOUR_MS)
    for name in names:
        summary = {} if rng.random() < 0.2 else {"ic": rng.randint(-3, 3) * UNIT}
        scored = rng.randint(1, 60) if summary else rng.choice([0, 5])
        end = START_MS + HOUR_MS
        totals.add(log.snapshot(name, START_MS, end, summary_units=summary, scored_count=scored))
    entries, unranked = ranked_entries(totals, terms)
    read = folded(log, tmp_path_factory.mktemp("read"))
    board = read.leaderboard.board()
    read.close()
    assert [(row.rank, row.model.model_id, row.windows_units["ic"]) for row in board.rows if row.rank] == [
        (entry.rank, entry.model_id, entry.key_units) for entry in entries
    ]
    assert {row.model.model_id for row in board.rows if row.rank is None} == unranked.keys()
