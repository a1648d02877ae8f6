"""The node's own strikes: only a good prediction resets them, and only the model's own faults count."""

from __future__ import annotations

import msgspec
import pytest
from tests.streams.build import answer_entries

from coordinator.streams.predictions.strikes import MULTIPLE_FAILED, MULTIPLE_TIMEOUT, Strikes

ROUNDS = {
    # what model "m" did in each round -> the rounds after which it is due for a report, and the code (3 strikes)
    "good": ([0.1, 0.2, 0.3, 0.4], []),
    "three bad answers": (["FAILED"] * 3, [(3, MULTIPLE_FAILED)]),
    "three silences": (["ABSENT"] * 3, [(3, MULTIPLE_TIMEOUT)]),
    "the last one names the code": (["ABSENT", "ABSENT", "FAILED"], [(3, MULTIPLE_FAILED)]),
    "a good one between": (["FAILED", "FAILED", 0.1, "FAILED", "FAILED"], []),
    "the node's fault neither counts nor forgives": (
        ["FAILED", "ABSENT(node)", "FAILED", "ABSENT(node)", "FAILED"],
        [(5, MULTIPLE_FAILED)],
    ),
    "due again until it is reported": (["FAILED"] * 4, [(3, MULTIPLE_FAILED), (4, MULTIPLE_FAILED)]),
}


def rounds(answers_in_turn):
    for number, answer in enumerate(answers_in_turn, start=1):
        yield number, {"60s": answer_entries({"m": answer, "other": 0.1})}


@pytest.mark.parametrize(("answers_in_turn", "expected"), ROUNDS.values(), ids=ROUNDS)
def test_a_model_is_due_for_a_report_after_its_strikes(answers_in_turn, expected):
    strikes = Strikes()
    due = [
        (number, strike) for number, round_ in rounds(answers_in_turn) for strike in strikes.note(round_, 3)
    ]
    assert [(number, strike.code) for number, strike in due] == expected
    assert all(strike.model_id == "m" and "rounds in a row" in strike.reason for _, strike in due)


def test_counting_restarts_after_a_report():
    strikes = Strikes()
    reported_rounds = []
    for number, round_ in rounds(["FAILED"] * 7):
        for strike in strikes.note(round_, 3):
            reported_rounds.append(number)
            strikes.reported(strike.model_id)
    assert reported_rounds == [3, 6]


def test_with_zero_strikes_nobody_is_ever_due():
    strikes = Strikes()
    assert [strike for _, round_ in rounds(["FAILED"] * 500) for strike in strikes.note(round_, 0)] == []


def test_a_report_about_a_model_at_an_open_question_quotes_nothing_of_its_answer():
    """The report comes back as a notice, which every reader of `models` and the API can see."""
    strikes = Strikes()
    entry = answer_entries({"m": "FAILED"})[0]
    raised = msgspec.structs.replace(entry, reason="MODEL_FAILED: ValueError: not 0.31415927")
    silent = answer_entries({"m": "ABSENT: not connected"})
    (quoted,) = strikes.note({"60s": [raised]}, 1)
    (unquoted,) = strikes.note({"60s": [raised]}, 1, may_quote=False)
    (absent,) = strikes.note({"60s": silent}, 1, may_quote=False)
    assert quoted.reason.endswith("MODEL_FAILED: ValueError: not 0.31415927")
    assert "the last: MODEL_FAILED" in unquoted.reason
    assert "0.314" not in unquoted.reason
    assert absent.reason.endswith("ABSENT: not connected")


def test_one_good_scope_is_a_good_round():
    strikes = Strikes()
    both = {"60s": answer_entries({"m": "FAILED"}), "5m": answer_entries({"m": 0.1})}
    assert [strike for _ in range(9) for strike in strikes.note(both, 3)] == []
