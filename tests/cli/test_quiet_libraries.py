"""What libraries say goes to the stderr of now."""

from __future__ import annotations

import io

import pytest
import structlog

from coordinator.cli.shared import quiet_libraries


def test_a_line_goes_to_the_stderr_of_now_and_never_to_one_that_is_closed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as before:
        before.setattr("sys.stderr", gone := io.StringIO())
        quiet_libraries()
        gone.close()
    structlog.get_logger().warning("later")
    structlog.get_logger().info("for the log of a worker")
    output = capsys.readouterr()
    assert "later" in output.err
    assert "for the log of a worker" not in output.err
    assert output.out == ""
    structlog.reset_defaults()
