"""Forks in place of processes of their own, for tests, and the processes of a test run."""

from __future__ import annotations

import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.forked import ADDRESS, PARENT, ForkedProcess, ForkingParent, ForksForAll, run
from tests.waiting import LIMIT_SECONDS, looks

COLLECTION = Path(__file__).with_name("forking_collection.py")
CONFTEST = Path(__file__).resolve().parents[1] / "conftest.py"


def test_a_fork_that_has_ended_and_is_not_reported_yet_is_passed_over_by_a_signal():
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    fork = ForkedProcess()
    fork.pid = ended.pid
    fork.terminate()
    fork.kill()
    assert fork.poll() is None


def test_forks_whose_parent_is_gone_have_ended(tmp_path):
    script = tmp_path / "sleeps.py"
    script.write_text("import time\ntime.sleep(3600)\n")
    parent, request = ForkingParent(PARENT), {"script": str(script), "arguments": []}
    fork = parent.fork(request, (0, 1, 2))
    parent.end()
    assert fork.wait(LIMIT_SECONDS) == -signal.SIGKILL


def test_forks_for_all_end_with_whoever_asked_and_have_the_hash_seed_that_was_asked_for(
    tmp_path, monkeypatch
):
    script = tmp_path / "says.py"
    script.write_text("import sys, time\nprint(hash('a'))\ntime.sleep(float(sys.argv[1]))\nsys.exit(3)\n")
    with tempfile.TemporaryDirectory(prefix="forks-") as folder:  # an address has at most 108 bytes
        serving = ForksForAll(Path(folder))
        monkeypatch.setenv(ADDRESS, serving.address)
        env = dict(os.environ) | {"PYTHONHASHSEED": "1"}
        first, second = (run(["0"], env=env, script=script) for _ in range(2))
        assert (first.returncode, first.stdout) == (3, second.stdout)
        request = {"script": str(script), "arguments": ["3600"], "environ": env}
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
            asking.connect(serving.address)
            socket.send_fds(asking, [json.dumps(request).encode()], (0, 1, 2))
            pid = int(asking.recv(16))
            assert Path(f"/proc/{pid}").exists()
        for _ in looks():
            if not Path(f"/proc/{pid}").exists():
                break
        serving.end()


@pytest.mark.parametrize(("text", "imported"), [("", "True"), ("import no_such_module", "False")])
def test_a_file_that_cannot_be_collected_is_not_imported_in_a_fork_and_so_is_reported(
    tmp_path, text, imported
):
    """pytest leaves half of such a module behind. A fork that found it had no test of it, and no error."""
    path, told = tmp_path / "test_some.py", tmp_path / "told"
    path.write_text(f"{text}\ndef test_nothing():\n    pass\n")
    code = (
        f"import sys; open({str(told)!r}, 'w').write(str(any('test_some' in name for name in sys.modules)))"
    )
    parent = ForkingParent(COLLECTION, ["--", str(path)])
    request = {"name": "pytest", "code": code, "environ": dict(os.environ), "cwd": str(tmp_path)}
    assert parent.fork(request, (0, 1, 2)).wait(LIMIT_SECONDS) == 0
    parent.end()
    assert told.read_text() == imported


@pytest.fixture
def conftest(monkeypatch) -> dict[str, Any]:
    """The run's own conftest, read anew where pytest-xdist is not installed."""
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    for name in [name for name in sys.modules if name.partition(".")[0] == "execnet"]:
        monkeypatch.setitem(sys.modules, name, None)
    return runpy.run_path(str(CONFTEST))


def test_a_keyboard_interrupt_of_a_run_reaches_its_processes_in_sessions_of_their_own(conftest):
    # A shell starts what it puts into the background with SIGINT ignored, and a process inherits that.
    code = (
        "import signal, time; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "print(flush=True); time.sleep(3600)"
    )
    sleeping = subprocess.Popen([sys.executable, "-Ic", code], stdout=-1)
    assert sleeping.stdout is not None
    sleeping.stdout.readline()
    fork = ForkedProcess()
    fork.pid = sleeping.pid
    conftest["forks_of_run"].append(fork)
    conftest["pytest_keyboard_interrupt"](SimpleNamespace(type=pytest.exit.Exception))  # such as -x
    assert sleeping.poll() is None
    conftest["pytest_keyboard_interrupt"](SimpleNamespace(type=KeyboardInterrupt))
    assert sleeping.wait(LIMIT_SECONDS) == -signal.SIGINT


def test_where_nothing_is_forked_the_processes_of_a_run_are_started(conftest, monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    conftest["pytest_xdist_setupnodes"](config=None)
    assert conftest["forks_of_run"] == []
