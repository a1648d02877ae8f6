"""Each fold alone: events in, rows out."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.logs import HOUR_MS, MINUTE_MS, START_MS, TX_HASH, UNIT, LogBuilder, busy_log, folded, make_terms

from coordinator.projections.views.board_windows import TrailingSums, window_sums
from coordinator.projections.views.prediction_rows import COUNTED
from coordinator.streams import events as ev
from coordinator.streams.log.errors import UnknownEventError


@pytest.fixture
def log():
    log = LogBuilder()
    log.terms()
    return log


@pytest.fixture
def fold(tmp_path):
    opened = []

    def do(log):
        opened.append(folded(log, tmp_path / str(len(opened))))
        return opened[-1]

    yield do
    for read in opened:
        read.close()


def board_of(read):
    return [
        (row.rank, row.model.model_id, row.windows_units["score_recent"])
        for row in read.leaderboard.board().rows
    ]


def test_before_the_first_terms_there_is_no_board(fold):
    assert fold(LogBuilder()).leaderboard.board() is None


def test_models_rank_by_their_mean_and_ties_share_a_rank(log, fold):
    for model_id in ("a", "b", "c"):
        log.model(model_id)
    log.round(0, {"a": 0.25, "b": 0.5, "c": 0.25})
    log.round(MINUTE_MS, {"a": 0.5, "b": 0.25, "c": 0.5})
    log.round(2 * MINUTE_MS, {"b": 0.75})
    log.inputs_until(HOUR_MS)
    assert board_of(fold(log)) == [(1, "b", UNIT // 2), (2, "a", 375_000_000), (2, "c", 375_000_000)]


def test_a_model_without_scores_is_last_without_a_rank_even_where_lower_is_better(fold):
    log = LogBuilder()
    log.terms(ranking_direction="asc")
    log.model("silent")
    log.model("live")
    log.round(0, {"live": 2.0})
    log.inputs_until(HOUR_MS)
    read = fold(log)
    assert board_of(read) == [(1, "live", 2 * UNIT), (None, "silent", None)]
    assert [row.active for row in read.leaderboard.board().rows] == [True, False]


def test_a_model_that_left_is_last_without_a_rank_and_keeps_its_sums(log, fold):
    log.model("gone")
    log.model("here")
    log.round(0, {"gone": 0.9, "here": 0.1})
    log.inputs_until(HOUR_MS)
    log.model_left("gone")
    assert board_of(fold(log)) == [(1, "here", UNIT // 10), (None, "gone", 9 * UNIT // 10)]


def test_an_old_deployment_that_leaves_does_not_remove_the_model(log, fold):
    log.model("m")
    log.model("m", deployment_id="m-d2")
    log.model_left("m", deployment_id="m-d1")
    assert fold(log).models.get("m").status == "RUNNING"


def test_a_banned_model_that_runs_again_stays_banned(log, fold):
    log.model("m")
    log.append(
        "models", ev.ModelBanned(id="ban/m", at=START_MS, data=ev.ModelBannedData(model_id="m", reason="x"))
    )
    log.model("m", deployment_id="m-d2")
    assert fold(log).models.get("m").status == "BANNED"


def test_a_charge_counts_as_one_more_value(log, fold):
    log.model("m")
    log.round(0, {"m": 1.0})
    log.round(MINUTE_MS, {"m": "ABSENT"}, charges={"m": -UNIT})
    log.round(2 * MINUTE_MS, {"m": "ABSENT"})
    log.inputs_until(HOUR_MS)
    assert board_of(fold(log)) == [(1, "m", 0)]


def test_a_board_of_some_scopes_and_a_window_of_another_rule_rank_too(fold):
    log = LogBuilder()
    part = ev.BoardPart("BTCUSDT", "1h", "1")
    parts = [ev.BoardPart("BTCUSDT", "60s", "3"), part]
    log.terms(
        windows=[
            ev.Window(name="score_recent", hours=24),
            ev.Window(name="sum", hours=24, rule="sum", least=2),
        ],
        boards=[
            ev.BoardTerms(name="hour", window="score_recent", parts=[part], every_scope=True),
            ev.BoardTerms(name="weighted", window="score_recent", parts=parts, every_scope=True),
            ev.BoardTerms(name="of the period", window="", parts=parts, every_scope=True),
        ],
    )
    for model_id in ("a", "b", "c"):
        log.model(model_id)
    log.round(0, {"a": 1.0, "b": 0.5, "c": 0.25})
    log.round(MINUTE_MS, {"a": 0.25, "b": 0.75}, scope_key="1h")
    log.inputs_until(HOUR_MS)
    read = fold(log)

    def by(name):
        rows = read.leaderboard.board(name).rows
        return [(row.rank, row.model.model_id, row.windows_units[name]) for row in rows]

    assert board_of(read) == [(1, "a", 5 * UNIT // 8), (1, "b", 5 * UNIT // 8), (3, "c", UNIT // 4)]
    assert by("hour") == [(1, "b", 3 * UNIT // 4), (2, "a", UNIT // 4), (None, "c", None)]
    assert by("weighted") == [(1, "a", 13 * UNIT // 16), (2, "b", 9 * UNIT // 16), (None, "c", None)]
    assert by("sum") == [(1, "a", 5 * UNIT // 4), (1, "b", 5 * UNIT // 4), (None, "c", None)]
    for name in ("nothing", "of the period"):
        with pytest.raises(KeyError):
            read.leaderboard.board(name)


def test_a_window_in_order_has_its_value_of_the_last_period(fold):
    log = LogBuilder()
    log.terms(windows=[ev.Window(name="score_recent", hours=24), ev.Window(name="last", hours=24, last=1)])
    log.model("a")
    log.model("gone")
    log.round(0, {"a": 1.0, "gone": 1.0})
    for model_id, hour, units in (("gone", 0, 7), ("a", 0, 5), ("a", 1, 6)):
        start = START_MS + hour * HOUR_MS
        log.snapshot(
            model_id, start, start + HOUR_MS, windows={"score_recent": 1, "last": units}, counts={"last": 1}
        )
    log.inputs_until(2 * HOUR_MS)
    board = fold(log).leaderboard.board("last")
    assert [(row.model.model_id, row.windows_units["last"], row.scored_count) for row in board.rows] == [
        ("a", 6, 1), ("gone", None, 0),
    ]  # fmt: skip


def test_charges_alone_rank_nobody(log, fold):
    log.model("m")
    log.round(0, {"m": "ABSENT"}, charges={"m": 0})
    log.inputs_until(HOUR_MS)
    assert board_of(fold(log)) == [(None, "m", None)]


def test_a_window_covers_whole_buckets_and_ends_at_the_inputs_watermark(log, fold):
    log.model("m")
    log.round(0, {"m": 1.0})  # resolvable in bucket 0
    log.round(24 * HOUR_MS, {"m": 0.5})  # in bucket 24
    log.inputs_until(24 * HOUR_MS)
    row = fold(log).leaderboard.board().rows[0]
    assert row.windows_units == {"score_recent": UNIT, "score_steady": UNIT, "score_anchor": UNIT}
    log.inputs_until(25 * HOUR_MS)  # now [1 h, 25 h) for the 24 h window
    row = fold(log).leaderboard.board().rows[0]
    assert row.windows_units == {
        "score_recent": UNIT // 2,
        "score_steady": 3 * UNIT // 4,
        "score_anchor": 3 * UNIT // 4,
    }


def test_a_score_at_the_very_end_of_a_period_belongs_to_the_next(log, fold):
    log.model("m")
    log.round(HOUR_MS - 2 * MINUTE_MS, {"m": 1.0})
    log.round(HOUR_MS - MINUTE_MS, {"m": 0.0})  # resolvable at exactly one hour
    log.inputs_until(HOUR_MS)
    assert board_of(fold(log)) == [(1, "m", UNIT)]


def test_buckets_older_than_the_longest_window_are_dropped_with_their_rows(log, fold):
    for day in range(12):
        log.round(day * 24 * HOUR_MS, {"m": 1.0})
    read = fold(log)
    assert len(list(read.leaderboard.store.scan(b"B"))) == 8  # the 5th to the 12th day


def test_history_has_the_windows_per_scope_at_each_period_end(log, fold):
    log.round(0, {"m": 1.0})
    log.round(0, {"m": 0.5}, subject="ETHUSDT")
    log.scored_until(HOUR_MS)
    rows = list(fold(log).leaderboard.history(0, START_MS + HOUR_MS, None))[::-1]
    assert {row.subject: row.windows_units["score_recent"] for row in rows} == {
        "BTCUSDT": UNIT,
        "ETHUSDT": UNIT // 2,
    }
    assert {row.until for row in rows} == {START_MS + HOUR_MS}


@pytest.mark.parametrize(
    ("answer", "scored", "status", "reason"),
    [
        (0.5, False, "PENDING", ""),
        (0.5, True, "SCORED", ""),
        ("UNSCORABLE", True, "FAILED", "the scoring function raised"),
        ("ABSENT", True, "ABSENT", "past the deadline"),
        ("FAILED", False, "FAILED", "not finite"),
    ],
)
def test_a_prediction_has_the_status_of_its_lifecycle(log, fold, answer, scored, status, reason):
    input_id = log.round(0, {"m": answer}, scored=scored)
    (prediction,) = fold(log).predictions.round(input_id, "60s")
    assert (prediction.status, prediction.reason) == (status, reason)
    assert (prediction.score_units is not None) == (status == "SCORED")


def test_predictions_are_listed_newest_round_first_and_can_be_filtered(log, fold):
    log.round(0, {"a": 0.1, "b": 0.2})
    log.round(MINUTE_MS, {"a": 0.3, "b": "ABSENT"})
    read = fold(log)
    assert [(prediction.model_id, prediction.status) for prediction in read.predictions.newest(0, 2**62)] == [
        ("a", "SCORED"),
        ("b", "ABSENT"),
        ("a", "SCORED"),
        ("b", "SCORED"),
    ]
    assert len(list(read.predictions.newest(0, START_MS, {"a"}))) == 1
    assert len(list(read.predictions.newest(START_MS + 1, 2**62, status="ABSENT"))) == 1


def test_totals_add_up(fold):
    totals = fold(busy_log()).predictions.totals()
    assert totals == {"pending": 2, "scored": 37, "replaced": 0, "no_score": 0, "failed": 19, "absent": 18,
                      "received": 20, "resolved": 19}  # fmt: skip


def test_an_answer_without_a_score_yet_is_not_counted_as_a_failure(log, fold):
    log.round(0, {"a": "WAITING", "b": "UNSCORABLE", "c": 0.5, "d": "FAILED"})
    totals = fold(log).predictions.totals()
    assert [totals[name] for name in COUNTED] == [0, 1, 0, 1, 2, 0]


def test_a_second_answer_of_a_model_is_refused_and_changes_nothing(log, fold):
    input_id = log.round(0, {"m": 0.5})
    entry = ev.AnswerEntry("m", "m-d1", "FAILED", reason="late", fault="model")
    roster = [ev.RosterEntry(model_id="m", deployment_id="m-d1")]
    data = ev.ScopeAnsweredData(input_id=input_id, scope_key="60s", **ev.answers_in_columns(roster, [entry]))
    again = ev.ScopeAnswered(id="again", at=START_MS + 5, data=data)
    log.append("predictions", again)
    read = fold(log)
    assert [prediction.status for prediction in read.predictions.round(input_id, "60s")] == ["SCORED"]
    assert [(refusal["event_id"], refusal["state"]) for refusal in read.predictions.refused()] == [
        ("again", "PENDING")
    ]


def test_a_score_for_an_absent_prediction_leaves_it_absent(log, fold):
    input_id = log.round(0, {"m": "ABSENT"}, scored=False)
    log.append("scores", *log._scores(input_id, "BTCUSDT", "60s", START_MS, 60, {"m": 0.5}, {}, {}))
    assert [prediction.status for prediction in fold(log).predictions.round(input_id, "60s")] == ["ABSENT"]


def test_a_round_that_is_scored_twice_is_refused_and_changes_nothing(log, fold):
    input_id = log.round(0, {"m": 0.5})
    log.append("scores", *log._scores(input_id, "BTCUSDT", "60s", START_MS, 60, {"m": -0.5}, {}, {}))
    read = fold(log)
    assert [prediction.score_units for prediction in read.predictions.round(input_id, "60s")] == [
        {"value": UNIT // 2}
    ]
    assert [(refusal["kind"], refusal["state"]) for refusal in read.predictions.refused()] == [
        ("RoundScored", "SCORED")
    ]
    assert read.predictions.totals()["scored"] == 1


def test_feeds_count_records_and_keep_a_tail(log, fold):
    for minute in range(3):
        log.record(START_MS + minute * MINUTE_MS)
    log.tick(START_MS + 10 * MINUTE_MS)
    read = fold(log)
    (row,) = read.feeds.all()
    assert (row.record_count, row.oldest, row.newest) == (3, START_MS, START_MS + 2 * MINUTE_MS)
    assert row.watermark == START_MS + 3 * MINUTE_MS
    assert read.feeds.clock == START_MS + 10 * MINUTE_MS
    tail = read.feeds.tail(2, None, "BTCUSDT", None, None)
    assert [record.ts_event for _, record in tail] == [START_MS + 2 * MINUTE_MS, START_MS + MINUTE_MS]


def test_an_outage_is_one_gap_however_often_it_was_recorded_and_shows_its_outcome(log, fold):
    def at(minute: int) -> int:
        return START_MS + minute * MINUTE_MS

    log.record(START_MS)
    log.feed_state("reconnecting", START_MS, "status 429")
    for first, last in ((1, 2), (2, 5), (8, 9), (11, 12)):
        log.hole(at(first), at(last))
    log.hole_closed(at(1), at(5), complete=True, at=at(12))
    log.hole_closed(at(8), at(9), complete=False, at=at(12))
    log.feed_state("connected", at(12))
    read = fold(log)
    (row,) = read.feeds.all()
    minutes = [
        ((gap.from_ms - START_MS) // MINUTE_MS, (gap.until_ms - START_MS) // MINUTE_MS, gap.state, gap.reason)
        for gap in read.feeds.gaps(row)
    ]
    assert minutes == [(1, 5, "filled", "late"), (8, 9, "missing", "asked"), (11, 12, "open", "late")]
    assert row.gap_count == 3
    assert [(state.source, state.state, state.reason) for state in read.feeds.states()] == [
        ("generated", "connected", "")
    ]


def test_of_many_records_the_newest_are_kept(log, tmp_path):
    for minute in range(400):
        log.record(START_MS + minute * MINUTE_MS)
    folded(log, tmp_path).close()  # a restart
    for minute in range(400, 520):
        log.record(START_MS + minute * MINUTE_MS)
    log.record(START_MS)  # a late repeat does not make it newer
    read = folded(log, tmp_path)
    assert read.feeds.all()[0].record_count == 521
    newest = [record.ts_event for _, record in read.feeds.tail(200, None, None, None, None)]
    assert newest == [START_MS + minute * MINUTE_MS for minute in range(519, 319, -1)]
    read.close()


def test_of_many_gaps_the_newest_hundred_are_kept_and_can_be_closed(log, tmp_path):
    def span(n: int) -> tuple[int, int]:
        return START_MS + 2 * n * MINUTE_MS, START_MS + (2 * n + 1) * MINUTE_MS

    for n in range(120):
        log.hole(*span(n))
    folded(log, tmp_path).close()  # a restart
    log.hole(span(119)[1], span(119)[1] + MINUTE_MS // 2)  # continues
    for n in range(120, 130):
        log.hole(*span(n))
    for n in (3, 40):
        log.hole_closed(*span(n), complete=True, at=span(130)[0])
    read = folded(log, tmp_path)
    (row,) = read.feeds.all()
    gaps = read.feeds.gaps(row)
    assert row.gap_count == 130
    assert [gap.from_ms for gap in gaps] == [span(n)[0] for n in range(30, 130)]
    assert gaps[89].until_ms == span(119)[1] + MINUTE_MS // 2
    assert [gap.from_ms for gap in gaps if gap.state == "filled"] == [span(40)[0]]
    read.close()


def move(kind, checkpoint_id):
    data = ev.CheckpointAdvancedData(checkpoint_id=checkpoint_id, command_id="c")
    return kind(id=f"{checkpoint_id}/{kind.__name__}", at=START_MS + 1, data=data)


def submitted(checkpoint_id):
    data = ev.CheckpointSubmittedData(checkpoint_id=checkpoint_id, tx_hash=TX_HASH, command_id="c")
    return ev.CheckpointSubmitted(id=f"{checkpoint_id}/submitted", at=START_MS, data=data)


def test_a_checkpoint_goes_through_its_statuses_to_paid(log, fold):
    checkpoint_id = log.checkpoint(0, {"m": 10**9})
    log.append("checkpoints", submitted(checkpoint_id))
    log.append("checkpoints", move(ev.CheckpointClaimable, checkpoint_id), upto={"commands": (3, 0)})
    log.append("checkpoints", move(ev.CheckpointPaid, checkpoint_id), upto={"commands": (7, 0)})
    read = fold(log)
    row = read.checkpoints.get(checkpoint_id)
    assert (row.status, row.tx_hash, row.submitted_at) == ("PAID", TX_HASH, START_MS)
    assert [status for status, _ in row.moves] == ["PENDING", "SUBMITTED", "CLAIMABLE", "PAID"]
    assert read.checkpoints.commands_decided == (7, 0)


def test_an_illegal_transition_of_a_checkpoint_is_recorded_and_changes_nothing(log, fold):
    checkpoint_id = log.checkpoint(0, {"m": 10**9})
    log.append("checkpoints", move(ev.CheckpointPaid, checkpoint_id))
    read = fold(log)
    assert read.checkpoints.get(checkpoint_id).status == "PENDING"
    assert [(refusal["kind"], refusal["state"]) for refusal in read.checkpoints.refused()] == [
        ("CheckpointPaid", "PENDING")
    ]


@pytest.mark.parametrize("steps", range(4), ids=["PENDING", "SUBMITTED", "CLAIMABLE", "PAID"])
def test_a_second_opening_that_is_no_release_is_refused_and_reported(log, fold, steps):
    """An offered checkpoint never changes: neither its shares nor its position."""
    checkpoint_id = log.checkpoint(0, {"m": 10**9})
    sent = ev.CheckpointSubmittedData(checkpoint_id=checkpoint_id, tx_hash=TX_HASH, command_id="c")
    way = [
        ev.CheckpointSubmitted(id=f"{checkpoint_id}/sent", at=START_MS, data=sent),
        move(ev.CheckpointClaimable, checkpoint_id),
        move(ev.CheckpointPaid, checkpoint_id),
    ]
    log.append("checkpoints", *way[:steps]) if steps else None
    log.checkpoint(0, {"m": 10**9 - 1, "thief": 1})
    log.checkpoint(0, {"thief": 10**9}, withheld="for show")
    read = fold(log)
    row = read.checkpoints.get(checkpoint_id)
    state = ("PENDING", "SUBMITTED", "CLAIMABLE", "PAID")[steps]
    assert row.status == state
    assert [entry.model_id for entry in row.checkpoint.ranking] == ["m"]
    assert row.checkpoint.emission["cruncher_rewards"] == [{"cruncher_index": 0, "reward_pct": 10**9}]
    assert sorted((refusal["kind"], refusal["state"]) for refusal in read.checkpoints.refused()) == [
        ("CheckpointOpened", state), ("CheckpointWithheld", state),
    ]  # fmt: skip


def test_a_withheld_checkpoint_is_not_listed_as_pending_until_it_is_released(log, fold):
    checkpoint_id = log.checkpoint(0, {"m": 10**9}, withheld="sums differ")
    read = fold(log)
    assert [row.reason for row in read.checkpoints.newest("WITHHELD")] == ["sums differ"]
    assert list(read.checkpoints.newest("PENDING")) == []
    assert read.checkpoints.latest_offered() is None
    log.checkpoint(0, {"m": 10**9})  # released: the second opening
    assert [row.status for row in fold(log).checkpoints.newest()] == ["PENDING"]
    assert fold(log).checkpoints.latest_offered().checkpoint.checkpoint_id == checkpoint_id


def test_a_failed_submission_is_pending_again_without_its_hash(log, fold):
    checkpoint_id = log.checkpoint(0, {"m": 10**9})
    log.append("checkpoints", submitted(checkpoint_id))
    data = ev.CheckpointSubmissionFailedData(
        checkpoint_id=checkpoint_id, tx_hash=TX_HASH, reason="expired", command_id="c"
    )
    log.append("checkpoints", ev.CheckpointSubmissionFailed(id="f", at=START_MS, data=data))
    row = fold(log).checkpoints.get(checkpoint_id)
    assert (row.status, row.tx_hash, row.submitted_at, row.reason) == ("PENDING", None, None, "expired")


def test_a_repeated_dead_letter_is_one(fold):
    read = fold(busy_log())
    assert read.dead_letters.total() == 2
    assert {letter_id for letter_id, _, _ in read.dead_letters.newest(10)} == {"dead/feed/1", "dead/feed/2"}
    assert read.dead_letters.get("dead/feed/1")[2].origin == "binance"


def test_a_snapshot_taken_twice_is_refused(log, fold):
    for _ in range(2):
        log.snapshot("m", START_MS, START_MS + HOUR_MS)
    read = fold(log)
    assert len(list(read.snapshots.newest(0, 2**62))) == 1
    assert len(read.snapshots.refused()) == 1


def test_a_round_opened_before_the_first_tick_stops_no_fold(log, fold):
    log.append("predictions", log._opened("inp/BTC/1", -1, ["a"], ["s"]))
    log.append("predictions", log._opened("inp/BTC/2", -(1 << 70), ["a"], ["s"]))
    assert fold(log).predictions.counted("predictions", "rounds") == 2


def test_nonsense_in_dead_letters_stops_no_fold(log, fold):
    log.letter()
    letter = log.records["dead-letters"][-1]
    for record in (None, b"\xff", letter.replace(b'"v":1', b'"v":2'), letter.replace(b'"at":', b'"at":-9')):
        log.records["dead-letters"].append(record)
    assert fold(log).dead_letters.total() == 1


def test_an_unknown_kind_stops_the_fold_and_names_the_record(log, fold):
    log.append("scores")
    good = log.records["scores"][-1]
    log.records["scores"][-1] = good.replace(
        b'"events":[]', b'"events":[{"kind":"Nonsense","id":"x","at":1,"v":1}]'
    )
    if b"Nonsense" not in log.records["scores"][-1]:
        log.records["scores"][-1] = good[:-1] + b',"events":[{"kind":"Nonsense","id":"x","at":1,"v":1}]}'
    with pytest.raises(UnknownEventError, match=r"scores offset 2.*Nonsense"):
        fold(log)


@settings(max_examples=60, deadline=None)
@given(
    scores=st.lists(st.tuples(st.integers(0, 40), st.sampled_from("ab"), st.integers(-9, 9)), max_size=60),
    asked=st.lists(st.integers(0, 45), min_size=1, max_size=12),
    in_order=st.booleans(),
)
def test_cached_sums_equal_fresh_sums(scores, asked, in_order):
    """Buckets are filled in any order, and the end moves back and forth: the cached sums must equal fresh ones."""
    terms = make_terms(windows=[ev.Window(name="day", hours=24), ev.Window(name="two", hours=2)])
    trailing, buckets = TrailingSums(), {}
    left = sorted(scores) if in_order else list(scores)
    for end in sorted(asked) if in_order else asked:
        batch, left = left[: len(scores) // len(asked)], left[len(scores) // len(asked) :]
        for hour, model_id, units in batch:
            trailing.touch(hour * HOUR_MS)
            cell = (
                buckets.setdefault(hour * HOUR_MS, {})
                .setdefault(("BTCUSDT", "60s"), {})
                .setdefault(model_id, {})
                .setdefault("value", [0, 0])
            )
            cell[0] += units
            cell[1] += 1
        until = end * HOUR_MS + (end % 3) * MINUTE_MS
        assert trailing.at(buckets, until, terms) == window_sums(buckets, until, terms)
