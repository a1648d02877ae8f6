"""`coordinator log cat`: records as they stand, and the moves that counted events hold."""

from __future__ import annotations

import json

import pytest
from tests.logs import START_MS, LogBuilder
from typer.testing import CliRunner

from coordinator.cli.log import _Records, _States, _TransitionLines
from coordinator.cli.main import app
from coordinator.streams.log import recorded_state
from coordinator.streams.log.envelope import Append, Need, encode_append


def lines(reader, log: LogBuilder, topic: str) -> list[dict]:
    records = enumerate(log.records[topic])
    return [json.loads(line) for offset, record in records for line in reader.of(offset, record or b"")]


@pytest.fixture
def log() -> LogBuilder:
    log = LogBuilder()
    log.terms()
    log.round(0, {"m1": 0.5, "m2": "ABSENT", "m3": "UNSCORABLE"})
    return log


def test_every_record_is_a_line_and_what_is_no_json_is_shown_as_text(log):
    log.garbage("scores", b"\xff no \n JSON")
    shown = lines(_Records(), log, "scores")
    assert [line["offset"] for line in shown] == list(range(len(log.records["scores"])))
    assert shown[2]["record"]["events"][0]["kind"] == "RoundScored"
    assert shown[-1]["unreadable"] == "\ufffd no \n JSON"


def test_the_moves_are_those_of_every_prediction_and_of_nothing_that_does_not_count(log):
    late = Append(e=1, epoch=0, seq=3, events=json.loads(log.records["scores"][2])["events"])
    log.garbage("scores", encode_append(late))
    shown = lines(_TransitionLines("scores"), log, "scores")
    name = f"inp/BTCUSDT/{START_MS}/60s"
    assert [(move["id"], move["from"], move["to"]) for move in shown] == [
        (f"{name}/m1:scored", "PENDING", "SCORED"),
        (f"{name}/m3:scoring-failed", "PENDING", "FAILED"),
    ]
    assert [
        (move["to"], move["reason"]) for move in lines(_TransitionLines("predictions"), log, "predictions")
    ] == [
        ("PENDING", ""),
        ("ABSENT", "past the deadline"),
        ("PENDING", ""),
    ]


def test_a_recorded_state_is_one_line_with_its_parts_joined(log):
    parts = (b'{"known":{"a":1}}', b'{"known":{"b":2},"until":7}')
    after = Need(3, 1, 2)
    records = recorded_state.records_of(
        "1-abc", parts, epoch=1, after=after, upto={"inputs": (5, 0)}, need={"feeds": Need(9, 2, 4)}
    )
    begin = len(log.records["scores"])
    for record in records:
        log.garbage("scores", record)
    assert lines(_States(), log, "scores") == [
        {
            "offset": begin + 1,
            "parts": 2,
            "bytes": len(b'{"known":{"a":1,"b":2},"until":7}'),
            "form": "1-abc",
            "after": {"offset": 3, "epoch": 1, "seq": 2},
            "upto": {"inputs": [5, 0]},
            "need": {"feeds": {"offset": 9, "epoch": 2, "seq": 4}},
            "own": {"known": {"a": 1, "b": 2}, "until": 7},
        }
    ]
    assert lines(_Records(), log, "scores")[begin]["record"]["state"]["own"] == {"known": {"a": 1}}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nothing"], "there is no topic 'nothing'"),
        (["feeds", "--transitions"], "only with predictions and scores"),
        (["commands", "--states"], "holds no recorded state"),
        (["scores", "--states", "--transitions"], "not both"),
    ],
)
def test_what_cannot_be_shown_is_said_before_anybody_is_asked(arguments, complaint):
    done = CliRunner().invoke(app, ["log", "cat", *arguments])
    assert done.exit_code == 2
    assert complaint in done.output
