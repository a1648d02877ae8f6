"""The transitions of every prediction, derived from events that contain a round in columns."""

from __future__ import annotations

import msgspec
import pytest
from tests.streams.build import T0, answers, opened, round_scores

from coordinator.streams.events import RoundScored, RoundScoredData, ScoreEntry, Unscored, in_columns
from coordinator.streams.log.envelope import decode_event, encode_event
from coordinator.streams.log.errors import UnknownEventError
from coordinator.streams.log.transitions import transitions


def moves(events):
    rosters = {}
    return [
        (move.prediction_id.rsplit("/", 1)[1], move.before, move.after, move.reason, move.fault)
        for event in events
        for move in transitions(event, rosters)
    ]


def test_an_answer_is_pending_absent_or_failed():
    answers_by_model = {"a": 0.5, "b": "ABSENT", "c": "ABSENT(node)", "d": "FAILED"}
    assert moves([opened(T0, list(answers_by_model)), *answers(T0, answers_by_model)]) == [
        ("a", "(none)", "PENDING", "", None),
        ("b", "(none)", "ABSENT", "ABSENT", "model"),
        ("c", "(none)", "ABSENT", "ABSENT(node)", "node"),
        ("d", "(none)", "FAILED", "FAILED", "model"),
    ]


def test_scoring_a_round_moves_pending_predictions_and_no_others():
    (event,) = round_scores(T0, {"a": 5, "b": "ABSENT", "c": "FAILED"})
    failed = ScoreEntry("d", "FAILED", "node", reason="score is not finite: nan")
    entries = [*event.data.entries(), failed]
    data = msgspec.structs.replace(event.data, **in_columns(entries))
    moved = list(transitions(msgspec.structs.replace(event, data=data), {}))
    assert [(move.id, move.before, move.after, move.reason, move.fault) for move in moved] == [
        (f"inp/BTCUSDT/{T0}/60s/a:scored", "PENDING", "SCORED", "", None),
        (
            f"inp/BTCUSDT/{T0}/60s/d:scoring-failed", "PENDING", "FAILED", "score is not finite: nan", "node",
        ),
    ]  # fmt: skip
    assert {move.at for move in moved} == {event.at}
    assert msgspec.json.decode(msgspec.json.encode(moved[0])).keys() >= {"id", "from", "to", "at"}


ENTRIES = [
    ScoreEntry("a", "SCORED", cruncher_id="c1", units={"value": 1, "edge": -2}),
    ScoreEntry("b", "ABSENT", "model", -7),
    ScoreEntry("c", "FAILED", "node", reason="raised"),
    ScoreEntry("d", "FAILED", "model", 0, "c2", reason="raised"),
    ScoreEntry("e", "SCORED", units={"value": 0}),
]


@pytest.mark.parametrize("entries", [ENTRIES, ENTRIES[:1], ENTRIES[1:2], []])
def test_entries_can_be_converted_to_columns_and_back(entries):
    (event,) = round_scores(T0, {})
    event = msgspec.structs.replace(event, data=msgspec.structs.replace(event.data, **in_columns(entries)))
    again = decode_event(encode_event(event))
    assert again == event
    assert isinstance(again, RoundScored)
    assert again.data.entries() == entries


def test_a_reason_that_many_share_is_stored_once():
    columns = in_columns([ScoreEntry(str(i), "FAILED", "node", reason="no ground truth") for i in range(50)])
    assert columns["reasons"] == ["no ground truth"]


MISFITS = {
    "a column that is too short": {"units": {"value": [1]}},
    "a cruncher too many": {"crunchers": ["x", "y", "z"]},
    "a model that stands twice": {"models": ["a", "a"]},
    "an index behind the last model": {"unscored": [Unscored(2, "ABSENT", "model")]},
    "an index before the first": {"unscored": [Unscored(-1, "ABSENT", "model")]},
    "a model that ends twice": {"unscored": [Unscored(1, "ABSENT", "model"), Unscored(1, "FAILED", "model")]},
    "a reason that is not there": {"unscored": [Unscored(1, "FAILED", "node", None, 0)]},
    "a score of who is absent": {"unscored": [Unscored(0, "ABSENT", "model")]},
}


@pytest.mark.parametrize("change", MISFITS.values(), ids=MISFITS)
def test_columns_that_do_not_fit_together_are_invalid(change):
    (event,) = round_scores(T0, {"a": 1, "b": "ABSENT"})
    plain = msgspec.json.decode(encode_event(event))
    plain["data"] |= msgspec.to_builtins(change)
    with pytest.raises((msgspec.ValidationError, UnknownEventError)):
        decode_event(msgspec.json.encode(plain))
    with pytest.raises(ValueError, match=r"model|reason"):
        RoundScoredData(**msgspec.structs.asdict(event.data) | change)
