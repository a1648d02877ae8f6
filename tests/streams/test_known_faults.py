"""Faults that an earlier node of this kind was proven to have, and the tests that show that this node does not have
them.

The table is checked: a test that it names must exist. Tests that belong nowhere else follow. Two faults were in parts
that this node does not have: its verification covers whole logs (W8), and it makes no ensembles (W5).
"""

from __future__ import annotations

import ast
import json
import random
from pathlib import Path

import pytest
from tests.given import decision
from tests.streams.build import MINUTE, T0, configured, record, scope, shelf, tick

from coordinator.streams.events import Feed, InputReceived, InputsUntil
from coordinator.streams.inputs.stage import InputStage
from coordinator.streams.ports import Subscription
from coordinator.streams.sources.binance.live_messages import stream_path

TESTS = Path(__file__).parents[1]

FAULTS: dict[str, tuple[str, ...]] = {
    # The checkpoint and what it pays.
    "W1 a checkpoint paid in the order of rows, since its ranking key stood in no snapshot": (
        "streams/checkpoints/test_checkpoint_build.py::test_the_best_of_the_board_gets_the_most",
        "streams/contract/test_contract.py::test_a_wrong_declaration_is_refused_by_name",
    ),
    "W17 seven models were paid 997 of 1,000; percents summed to 99.999999": (
        "streams/contract/test_emission.py::test_seven_models_get_all_of_a_prize",
        "streams/contract/test_emission.py::test_any_emission_is_exact_positive_monotone_and_fair",
    ),
    "W18 eleven equals made a negative share; no models made an emission of 0": (
        "streams/contract/test_emission.py::test_tiers_share_as_the_table_says",
        "streams/contract/test_emission.py::test_zero_models_make_an_empty_emission_that_is_not_offered",
    ),
    "W19 None ranked first, NaN made the order that of arrival, a wrong direction sorted upwards, silence won": (
        "streams/checkpoints/test_ranking.py::test_ranking",
        "streams/checkpoints/test_ranking.py::test_an_unknown_direction_is_refused",
        "streams/checkpoints/test_ranking.py::test_the_ranking_does_not_depend_on_the_order_of_arrival",
        "streams/checkpoints/test_checkpoint_build.py::test_a_model_without_a_score_is_never_paid",
    ),
    "W16 a score grew without bound with the size of the answer": (
        "streams/contract/test_contract.py::test_the_default_score_is_proper_bounded_and_not_gamed_by_size",
        "streams/contract/test_contract.py::test_an_honest_answer_scores_best",
        "scaffold/test_cannot_be_gamed.py",
    ),
    # One model's fault.
    "W2 one NaN ended everybody's predictions": (
        "streams/predictions/test_prediction.py::test_one_bad_answer_does_not_affect_the_others",
        "infra/models/test_survival.py::test_one_models_fault_affects_no_other",
    ),
    "W3 one score that raised ended scores, snapshots and checkpoints": (
        "streams/scores/test_score_stage.py::test_one_prediction_that_cannot_be_scored_does_not_stop_the_others",
    ),
    # Crashes, restarts, empty disks.
    "W4 a kill between scores and snapshots lost those scores for ever": (
        "streams/agents/test_resuming.py::test_a_score_stage_that_ends_at_any_send_leaves_the_same_log",
        "streams/agents/test_resuming.py::test_an_aggregate_stage_that_ends_at_any_send_leaves_the_same_log",
        "broker/test_crash_equivalence.py::test_killed_stages_leave_the_log_of_an_undisturbed_run",
    ),
    "W9 a fresh database could not be set up": (
        "broker/test_main_job.py::test_every_score_and_every_share_follows_from_the_file",
        "projections/test_replay_equality.py::test_a_store_of_another_cluster_is_rebuilt",
        "projections/test_replay_equality.py::test_a_damaged_store_is_rebuilt",
    ),
    "W10 after a restart the oldest records were taken for the last ones": (
        "streams/test_known_faults.py::test_after_a_restart_an_input_has_the_last_records_and_not_the_first",
        "projections/test_folds.py::test_of_many_records_the_newest_are_kept",
        "api/test_reports.py::test_snapshots_are_newest_first",
    ),
    "W11 a feed task died after ten errors in a process that lived on, and nothing said so": (
        "streams/agents/test_worker.py::test_a_task_that_fails_ends_the_worker",
        "streams/sources/test_binance.py::test_a_lost_connection_is_replaced_in_the_middle_of_a_candle",
        "streams/sources/test_binance.py::test_a_silent_socket_is_closed",
        "streams/agents/test_clock_seams.py::test_an_hours_outage_costs_its_own_rounds_and_no_other",
    ),
    # Feeds and rounds.
    "W6 Pyth's prices were looked up by ids that it does not send": (
        "streams/sources/test_pyth.py::test_two_subjects_stream_with_exact_prices_and_never_mix",
        "streams/sources/test_pyth.py::test_a_subject_may_be_an_id_or_a_full_name",
    ),
    "W7 an open candle was frozen as first seen, and 1s candles were minutes": (
        "streams/sources/test_binance.py::test_the_stream_delivers_closed_candles_only_of_all_subjects_over_one_socket",
        "streams/sources/test_binance.py::test_a_candle_that_is_open_by_the_exchanges_clock_is_no_fact",
        "streams/test_known_faults.py::test_a_1s_schedule_asks_for_1s_candles",
    ),
    "W12 every subject's models were shown one subject's records": (
        "streams/inputs/test_inputs_stage.py::test_two_subjects_have_separate_inputs_with_their_own_records",
    ),
    "W13 a schedule as fast as its feed missed rounds": (
        "streams/test_known_faults.py::test_a_schedule_as_fast_as_its_feed_misses_no_point",
        "streams/agents/test_predict.py::test_one_second_schedules_are_each_asked_once",
    ),
    # Doors and checks.
    "W14 with a key set, routes that write needed none": (
        "api/test_access.py::test_access_is_as_the_table_says",
    ),
    "W15 a name with dots and slashes was made outside the folder": (
        "scaffold/test_render.py::test_a_name_that_is_no_slug_is_refused_and_nothing_is_written",
        "scaffold/test_render.py::test_a_refusal_is_one_line_with_exit_code_2_and_nothing_is_written",
    ),
    "W20 a check said all was well where it had left checks out": (
        "cli/test_doctor.py::test_a_missing_engine_is_reported_with_how_to_go_on_without",
        "cli/test_doctor.py::test_a_configured_kafka_must_answer_and_without_one_the_check_is_left_out",
    ),
    "W8 a verification called untouched data tampered with": (
        "broker/test_projector.py::test_what_is_produced_is_served_and_verified_beside_the_living_worker",
        "projections/test_replay_equality.py::test_one_altered_byte_is_found",
    ),
    "W5 an ensemble ended the cycle, was scored against the input, and took a rank": (
        "streams/checkpoints/test_offering.py::test_an_ensemble_is_not_on_the_chain",
    ),
}


def names_in(file: Path) -> set[str]:
    tree = ast.parse(file.read_text())
    return {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def test_twenty_faults_have_an_answer():
    assert sorted(int(name.split()[0].removeprefix("W")) for name in FAULTS) == list(range(1, 21))


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_has_existing_tests(fault):
    for test in FAULTS[fault]:
        file, _, name = test.partition("::")
        tests_in_file = names_in(TESTS / file)
        assert (name in tests_in_file) if name else tests_in_file, test


def test_after_a_restart_an_input_has_the_last_records_and_not_the_first():
    events = [configured()]
    for number in range(500):
        at = T0 + number * MINUTE
        events += [record(at, 100.0 + number), tick(at)]
    decisions = [decision("feeds", offset, [event]) for offset, event in enumerate(events)]

    def after(stage: InputStage) -> list[bytes]:
        payloads = []
        at = T0 + 500 * MINUTE
        for offset, event in enumerate([record(at, 600.0), tick(at)], start=len(events)):
            stage.absorb(decision("feeds", offset, [event]))
            while (draft := stage.step()) is not None:
                payloads += [bytes(e.data.payload) for e in draft.events if isinstance(e, InputReceived)]
        return payloads

    first = InputStage(shelf())
    own = []
    for feed_record in decisions:
        first.absorb(feed_record)
        while (draft := first.step()) is not None:
            own.append(draft)
    need = first.need["feeds"]
    assert need.offset > 100  # a restart reads the end of the log, not all of it
    second = InputStage(shelf())
    for number, draft in enumerate(own):
        second.remember(
            decision("inputs", number, list(draft.events), upto=dict(draft.upto), need=dict(draft.need))
        )
    for feed_record in decisions[need.offset :]:
        second.absorb(feed_record)
        assert second.next_draft() is None
    (payload,) = after(second)
    assert [payload] == after(first)
    closes = [candle["close"] for candle in json.loads(payload)["candles"]]
    assert closes == [100.0 + number for number in range(381, 501)]


def test_a_schedule_as_fast_as_its_feed_misses_no_point():
    """A point and a candle every second; each candle is known at some time within its second."""
    late_ms = random.Random(1)
    stage, points = InputStage(shelf()), []
    every_second = scope("1s", interval_seconds=1, horizon_seconds=5)
    events = [
        configured(scopes=[every_second], feed=Feed(source="generated", kind="candle", granularity="1s"))
    ]
    for number in range(120):
        at = T0 + number * 1_000
        candle = record(at, 100.0 + number, granularity="1s", ts_event=at - 1_000)
        events += [candle, tick(at + late_ms.randrange(900))]
    for offset, event in enumerate(events):
        stage.absorb(decision("feeds", offset, [event]))
        while (draft := stage.step()) is not None:
            points += [e.data.point for e in draft.events if isinstance(e, InputReceived)]
            assert not any(e.data.skipped for e in draft.events if isinstance(e, InputsUntil))
    assert points == [T0 + number * 1_000 for number in range(120)]


def test_a_1s_schedule_asks_for_1s_candles():
    candles = Subscription("binance", "BTCUSDT", "candle", "1s")
    assert stream_path([candles]) == {"/stream?streams=btcusdt@kline_1s": [candles]}
