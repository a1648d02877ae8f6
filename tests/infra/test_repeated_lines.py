"""A library that logs the same line again and again does not fill the log, and what is left out is counted."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

from coordinator.infra.processes.repeated_lines import KINDS_MAX, LINES_MAX, PERIOD_SECONDS, RepeatedLines


def a_line(text, *values, at=1000.0, logger="aiokafka"):
    record = logging.LogRecord(logger, logging.WARNING, "x.py", 1, text, values, None)
    record.created = at
    return record


def test_the_first_lines_of_a_kind_stand_and_the_next_period_says_how_many_did_not():
    lines = RepeatedLines()
    passed = [lines.filter(a_line("Topic %s not found, try %d", "btc-up.feeds", n)) for n in range(40_000)]
    assert sum(passed) == LINES_MAX
    assert lines.filter(a_line("Topic %s not found, try %d", "btc-up.inputs", 1)), "of another topic"
    assert lines.counts() == {"aiokafka": 40_000 - LINES_MAX}
    later = a_line("Topic %s not found, try %d", "btc-up.feeds", 7, at=1000.0 + PERIOD_SECONDS)
    assert lines.filter(later)
    assert later.getMessage() == (
        "Topic btc-up.feeds not found, try 7 (39,995 more lines like it were left out)"
    )
    assert lines.counts() == {}


def test_texts_that_never_come_again_are_forgotten_in_the_end():
    lines = RepeatedLines()
    for number in range(3 * KINDS_MAX):
        name = "".join(chr(ord("a") + int(digit)) for digit in str(number))
        assert lines.filter(a_line(name, at=number * PERIOD_SECONDS / 10))
    assert len(lines._kinds) <= KINDS_MAX + 1


def test_a_process_says_at_its_end_what_was_left_out():
    script = """
import logging
from coordinator.infra.processes.json_logs import set_up_logging
set_up_logging("feed")
for number in range(1000):
    logging.getLogger("aiokafka.cluster").warning("Topic gone, try %d", number)
"""
    done = subprocess.run([sys.executable, "-Ic", script], capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["event"] for line in lines] == ["aiokafka.cluster"] * LINES_MAX + ["lines_left_out"]
    assert lines[-1]["lines"] == {"aiokafka.cluster": 1000 - LINES_MAX}
