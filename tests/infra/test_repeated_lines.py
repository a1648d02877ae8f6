"""A library that logs the same line again and again does not fill the log, and what is left out is counted."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from coordinator.infra.processes.json_logs import LineHandler
from coordinator.infra.processes.repeated_lines import KINDS_MAX, LINES_MAX, PERIOD_SECONDS, RepeatedLines


def a_line(text, *values, at=1000.0, logger="aiokafka", error=None):
    error_info = error and (type(error), error, None)
    record = logging.LogRecord(logger, logging.WARNING, "x.py", 1, text, values, error_info)
    record.created = at
    return record


def test_the_first_lines_of_a_kind_stand_and_the_next_period_says_how_many_did_not():
    lines = RepeatedLines()
    passed = [lines.passes(a_line("Topic %s not found, try %d", "btc-up.feeds", n)) for n in range(40_000)]
    assert sum(passed) == LINES_MAX
    assert lines.passes(a_line("Topic %s not found, try %d", "btc-up.inputs", 1)), "of another topic"
    assert lines.counts() == {"aiokafka": 40_000 - LINES_MAX}
    later = a_line("Topic %s not found, try %d", "btc-up.feeds", 7, at=1000.0 + PERIOD_SECONDS)
    assert lines.passes(later)
    assert later.getMessage() == (
        "Topic btc-up.feeds not found, try 7 (39,995 more lines like it were left out)"
    )
    assert lines.counts() == {}


def a_logger():
    logger = logging.Logger("aiokafka")  # noqa: LOG001 - of one test alone
    logger.addHandler(LineHandler())
    return logger


def in_letters(number):
    """No digits: each is a kind of its own."""
    return "".join(chr(ord("a") + int(digit)) for digit in str(number))


def test_kinds_are_bounded_and_the_count_of_a_forgotten_one_is_told_with_the_next_line_of_its_logger():
    lines = RepeatedLines()
    for _ in range(LINES_MAX + 3):
        lines.passes(a_line("the first"))
    for number in range(2 * KINDS_MAX):
        for _ in range(LINES_MAX + 1):
            lines.passes(a_line(in_letters(number), logger="of another"))
    assert len(lines._kinds) <= KINDS_MAX
    assert lines.counts()["aiokafka"] == 3
    following = a_line("a second")
    assert lines.passes(following)
    assert following.getMessage() == "a second (3 other lines of aiokafka were left out)"
    assert "aiokafka" not in lines.counts()


def test_other_errors_and_our_own_lines_are_never_left_out():
    lines = RepeatedLines()
    for number in range(2 * LINES_MAX):
        lines.passes(a_line("request failed", error=OSError()))
        assert lines.passes(a_line("model %d left", number, logger="coordinator.infra.models.gateway"))
    assert lines.passes(a_line("request failed", error=ValueError()))


def test_a_call_with_wrong_values_does_not_raise_into_the_library_and_is_told(capsys):
    logger = a_logger()
    logger.warning("%d tries", "many")
    logger.warning("the next")
    output = capsys.readouterr()
    assert "the next" in output.out
    assert "%d tries" in output.err


def test_threads_that_log_at_once_do_not_disturb_each_other(capsys):
    logger = a_logger()

    def flood(prefix):
        for number in range(3 * KINDS_MAX):
            logger.warning("%s %s", prefix, in_letters(number))
        return True

    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(flood, "xyzv"))
    finally:
        sys.setswitchinterval(usual)
    assert len(capsys.readouterr().out.splitlines()) == 4 * 3 * KINDS_MAX


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
