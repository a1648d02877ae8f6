"""A line of a worker's log that is about a round or a checkpoint carries the id of its trace."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import structlog

from coordinator.infra.processes import json_logs, repeated_lines
from coordinator.infra.processes.repeated_lines import LINES_MAX
from coordinator.streams.log.trace_ids import checkpoint_trace, round_trace

SCRIPT = """
import structlog
from coordinator.infra.processes.json_logs import name_crunch, set_up_logging
set_up_logging("score")
{named}
structlog.get_logger().info("something", {fields})
"""


def line_of(fields: str, named: str = 'name_crunch("btc-up")') -> dict[str, str]:
    script = SCRIPT.format(fields=fields, named=named)
    done = subprocess.run([sys.executable, "-Ic", script], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("fields", "trace_id"),
    [
        ("input_id='inp/BTCUSDT/1'", round_trace("btc-up", "inp/BTCUSDT/1")),
        ("checkpoint='chk/1'", checkpoint_trace("btc-up", "chk/1")),
    ],
)
def test_a_line_about_a_round_or_a_checkpoint_has_its_trace(fields, trace_id):
    line = line_of(fields)
    assert line["trace_id"] == f"{trace_id:032x}"
    assert line["crunch_id"] == "btc-up"


def test_a_line_about_neither_or_of_no_crunch_has_none():
    assert "trace_id" not in line_of("reason='x'")
    assert "trace_id" not in line_of("input_id='inp/BTCUSDT/1'", named="")


def test_the_rounds_that_ask_one_question_are_one_trace_and_crunches_have_their_own():
    question = "qst/round/question"
    assert round_trace("a", question) != round_trace("b", question)
    assert round_trace("a", "inp/x/1") != round_trace("a", "inp/x/2")


def test_a_line_that_others_provoke_stands_a_few_times_and_then_is_counted(monkeypatch):
    lines = json_logs._ProvokedLines()

    def stands(event: str, **fields: str) -> dict[str, str] | None:
        try:
            return dict(lines(None, "", {"event": event, **fields}))
        except structlog.DropEvent:
            return None

    told = [stands("dead_letter", reason=f"reason {chr(65 + n)}") for n in range(LINES_MAX + 3)]
    assert [line is None for line in told] == [False] * LINES_MAX + [True] * 3
    assert stands("answer_refused") == {"event": "answer_refused"}
    assert all(stands("stage_resumed") for _ in range(LINES_MAX + 3))
    monkeypatch.setattr(repeated_lines, "PERIOD_SECONDS", 0.0)
    assert stands("dead_letter") == {"event": "dead_letter", "left_out": "3 more lines like it were left out"}
