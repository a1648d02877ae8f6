"""Ctrl-C ends a command with 130 and a line that says what became of the work; no process writes a traceback."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time

import psutil
import pytest
import typer
from tests.waiting import LIMIT_SECONDS, looks
from typer.testing import CliRunner

from coordinator.cli import replay
from coordinator.cli.lazy_groups import AFTER_CTRL_C, load_command
from coordinator.cli.main import COMMANDS, app
from coordinator.cli.shared import run


@pytest.mark.parametrize("extra", [(), ("--json",)], ids=["for people", "as JSON"])
def test_an_interrupted_command_says_how_to_go_on(monkeypatch, tmp_path, extra):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(replay.replays, "replay_archive", interrupted)
    done = CliRunner().invoke(app, ["replay", "--archive", str(tmp_path), *extra])
    text = "stopped by Ctrl-C: nothing was changed; the same command begins anew"
    assert (done.exit_code, done.stderr) == (130, f"{text}\n")
    if extra:
        assert json.loads(done.stdout) == {"error": text, "exit_code": 130}


def test_a_generator_that_can_no_longer_be_closed_writes_nothing(capfd):
    async def busy():
        try:
            yield
        finally:
            raise RuntimeError("aclose(): asynchronous generator is already running")

    async def work():
        left.append(busy())
        await anext(left[0])
        raise KeyboardInterrupt

    left = []
    with pytest.raises(KeyboardInterrupt):
        run(work())
    assert capfd.readouterr().err == ""


def test_each_command_with_such_a_line_exists():
    for name in AFTER_CTRL_C:
        command, *rest = name.split()
        loaded = load_command(COMMANDS, command)
        assert not rest or loaded.get_command(typer.Context(loaded), rest[0]) is not None, name


AT_ITS_IMPORTS = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
class Swallows:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            try:
                os.kill(os.getpid(), signal.SIGINT)
                os.getpid()
            except KeyboardInterrupt:
                pass
sys.meta_path.insert(0, Swallows())
from coordinator.cli.entry import main
sys.argv[1:] = ["packs", "--json"]
main()
"""


@pytest.mark.parametrize("module", ["typer", "coordinator.cli.init"])
def test_ctrl_c_while_python_imports_is_neither_lost_nor_a_traceback(module):
    """A library may catch exceptions that it did not expect. Nothing has been done by then."""
    done = subprocess.run(
        [sys.executable, "-c", AT_ITS_IMPORTS.format(module=module)],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    text = "stopped by Ctrl-C: nothing was begun"
    assert (done.returncode, done.stderr) == (130, f"{text}\n")
    assert json.loads(done.stdout) == {"error": text, "exit_code": 130}


IN_A_TERMINAL = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from coordinator.cli.entry import main
main()
"""
"""Tests that run in the background ignore the signal, and so would the processes they start."""


@pytest.mark.parametrize("seconds", [0.0, 3.0], ids=["before they work", "while they work"])
def test_the_processes_of_a_simulation_end_without_any_output(seconds):
    process = subprocess.Popen(
        [sys.executable, "-c", IN_A_TERMINAL, "simulate", "--seeds", "1..5000", "--jobs", "2"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        for _ in looks():
            if len(workers_of(process)) == 2:
                break
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=LIMIT_SECONDS)
    finally:
        with contextlib.suppress(ProcessLookupError):  # it has ended, and all of its processes with it
            os.killpg(process.pid, signal.SIGKILL)
    assert (process.returncode, out) == (130, ""), err
    assert re.fullmatch("stopped by Ctrl-C: nothing was changed; .*\n", err), err


def workers_of(process: subprocess.Popen) -> list[psutil.Process]:
    """The processes that play the seeds, without the one that multiprocessing starts for itself."""
    children = psutil.Process(process.pid).children()
    return [child for child in children if any("spawn_main" in word for word in child.cmdline())]
