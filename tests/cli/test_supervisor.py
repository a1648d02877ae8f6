"""The supervisor with real child processes: small ones, so that each test takes a second or two."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.waiting import LIMIT_SECONDS, in_time, limit, until

from coordinator.infra.processes.children import Launch, LoggedProcess
from coordinator.infra.processes.supervisor import Pauses, Supervisor, describe_exit, last_words
from coordinator.streams.log.errors import OperatorError

QUICK = Pauses(first=0.05, longest=0.2, healthy=60.0)
SLEEPS = "import time; print('up', flush=True); time.sleep(600)"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"


def python(name, code, folder, **options):
    return LoggedProcess(name, Launch([sys.executable, "-Iuc", code]), folder / f"{name}.log", **options)


def is_alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


class Lines(list):
    def __call__(self, line):
        self.append(line)


@pytest.mark.parametrize(
    ("last", "lived", "pause"),
    [
        (None, 0.0, 0.5),
        (0.5, 1.0, 1.0),
        (1.0, 1.0, 2.0),
        (2.0, 1.0, 4.0),
        (16.0, 1.0, 30.0),
        (30.0, 59.9, 30.0),
        (30.0, 60.0, 0.5),
    ],
)
def test_a_pause_doubles_up_to_thirty_seconds_and_is_short_again_after_a_minute_of_health(last, lived, pause):
    assert Pauses().next(last, lived) == pause


async def test_a_child_that_lives_and_gives_no_sign_of_life_is_killed_and_started_again(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("coordinator.infra.processes.supervisor.LOOK_SECONDS", 0.05)
    monkeypatch.setattr("coordinator.infra.processes.supervisor.SILENT_SECONDS_MAX", 0.3)
    alive = tmp_path / "alive"
    code = f"import pathlib, time; pathlib.Path({str(alive)!r}).touch(); print('well', flush=True); time.sleep(60)"
    child = LoggedProcess(
        "poor", Launch([sys.executable, "-c", code]), tmp_path / "poor.log", alive_file=alive
    )
    lines = Lines()
    supervisor = Supervisor(lines, QUICK)
    supervisor.keep(child)
    try:
        async with limit():
            while supervisor.states["poor"].restarts < 2:
                await asyncio.sleep(0.05)
    finally:
        await supervisor.stop(1.0, 1.0)
    assert any("poor hangs" in line for line in lines)


async def test_a_child_that_dies_is_started_again_with_its_last_words_and_growing_pauses(tmp_path):
    lines = Lines()
    supervisor = Supervisor(lines, QUICK)
    supervisor.keep(python("poor", "print('alas'); raise SystemExit(7)", tmp_path))
    try:
        await until(lambda: len(lines) >= 4)
    finally:
        await supervisor.stop()
    assert [line.rsplit(" in ", 1)[1] for line in lines[:4]] == ["0.05 s", "0.1 s", "0.2 s", "0.2 s"]
    assert lines[0].startswith("poor ended (exit code 7, it last said: alas); starting it again")
    assert supervisor.states["poor"].restarts >= 4


async def test_a_killed_child_comes_back_as_another_process(tmp_path):
    lines = Lines()
    supervisor = Supervisor(lines, QUICK)
    supervisor.keep(python("sleeper", SLEEPS, tmp_path))
    state = supervisor.states["sleeper"]
    try:
        await until(lambda: state.state == "running")
        first = state.pid
        os.kill(first, signal.SIGKILL)
        await until(lambda: state.state == "running" and state.pid != first)
        assert not is_alive(first)
        assert "killed by SIGKILL" in lines[0]
    finally:
        await supervisor.stop()
    assert not is_alive(state.pid)


async def test_exit_code_2_ends_the_node_with_the_childs_own_message(tmp_path):
    lines = Lines()
    supervisor = Supervisor(lines, QUICK)
    code = "import sys; print('{\"event\": \"operator_error\"}'); sys.exit(sys.stderr.write('error: turn it on') and 2)"
    supervisor.keep(python("wrong", code, tmp_path))
    supervisor.keep(python("sleeper", SLEEPS, tmp_path))
    with pytest.raises(OperatorError, match=r"^turn it on$"):
        await in_time(supervisor.failure)
    await supervisor.stop()
    assert lines == []
    assert all(child.state == "ended" for child in supervisor.states.values())


async def test_stopping_ends_the_deaf_and_their_children_after_the_grace_and_no_sooner(tmp_path):
    heard = Lines()
    parent = f"import subprocess, sys\nprint(subprocess.Popen([sys.executable, '-Ic', {DEAF!r}]).pid, flush=True)\n{DEAF}"
    supervisor = Supervisor(Lines(), QUICK)
    supervisor.keep(python("deaf", parent, tmp_path, on_line=heard))
    await until(lambda: heard.count("up") == 2)
    pids = [supervisor.states["deaf"].pid, int(next(line for line in heard if line.isdigit()))]
    assert all(is_alive(pid) for pid in pids)
    patient = asyncio.create_task(supervisor.stop(grace_seconds=600))
    await asyncio.sleep(0.2)
    assert all(is_alive(pid) for pid in pids)
    await in_time(supervisor.stop(grace_seconds=0.5))
    await in_time(patient)
    await until(lambda: not any(is_alive(pid) for pid in pids))


async def test_a_worker_whose_end_is_held_up_ends_itself_before_it_is_killed(tmp_path):
    heard = Lines()
    code = """
import asyncio, threading
from coordinator.infra.processes.ending import end_when_told
async def main():
    stop = asyncio.Event()
    end_when_told(stop)
    print("up", flush=True)
    await stop.wait()
    threading.Event().wait()  # a service that blocks the event loop at its end
asyncio.run(main())
"""
    supervisor = Supervisor(Lines(), QUICK)
    supervisor.keep(python("worker", code, tmp_path, on_line=heard))
    await until(lambda: heard == ["up"])
    await supervisor.stop()
    assert any("end_forced" in line for line in heard)
    assert supervisor.states["worker"].last_exit == "exit code 0"


async def test_the_last_child_is_ended_after_the_others(tmp_path):
    order = Lines()
    code = "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: (time.sleep({}), print('bye', flush=True), sys.exit(0)))\nprint('up', flush=True)\ntime.sleep(600)"
    supervisor = Supervisor(Lines(), QUICK)
    for name, seconds, last in (("broker", 0, True), ("worker", 0.3, False)):
        process = python(
            name, code.format(seconds), tmp_path, on_line=lambda line, name=name: order(f"{name} {line}")
        )
        supervisor.keep(process, last=last)
    await until(lambda: len(order) == 2)
    await supervisor.stop()
    assert order[2:] == ["worker bye", "broker bye"]


async def test_a_child_that_waits_for_its_next_start_does_not_hold_up_the_end(tmp_path):
    lines = Lines()
    supervisor = Supervisor(lines, Pauses(first=3600.0, longest=3600.0))
    supervisor.keep(python("poor", "raise SystemExit(1)", tmp_path))
    await until(lambda: lines)
    await in_time(supervisor.stop())


async def test_a_gate_holds_each_start_until_it_is_opened_and_tells_the_child(tmp_path):
    heard = Lines()
    opened = asyncio.get_running_loop().create_future()
    code = "import sys, time; print('imported', flush=True); print('told', sys.stdin.readline(), flush=True); time.sleep(600)"
    supervisor = Supervisor(Lines(), QUICK)
    process = python("worker", code, tmp_path, on_line=heard, gate=lambda: asyncio.shield(opened))
    supervisor.keep(process)
    try:
        await until(lambda: heard == ["imported"])
        await asyncio.sleep(0.1)
        assert heard == ["imported"]
        opened.set_result(b"go\n")
        await until(lambda: heard == ["imported", "told go"])
        process.kill()
        await until(lambda: heard == ["imported", "told go"] * 2)
    finally:
        await supervisor.stop()


async def test_what_a_child_says_is_in_its_log_whole_and_by_line(tmp_path):
    heard = Lines()
    code = "import sys; sys.stdout.write('a\\n\\nb'); sys.stdout.flush(); sys.stderr.write(' c\\nend'); sys.stderr.flush()"
    process = python("talker", code, tmp_path, on_line=heard)
    await process.start()
    assert await process.wait() == 0
    assert (tmp_path / "talker.log").read_text() == "a\n\nb c\nend"
    assert heard == ["a", "b c", "end"]
    assert process.last_line == "end"


async def test_a_grandchild_that_keeps_the_pipe_open_does_not_hold_up_the_news_of_a_death(tmp_path):
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-Ic', {SLEEPS!r}]); sys.exit(5)"
    process = python("parent", code, tmp_path)
    await process.start()
    assert await in_time(process.wait()) == 5


@pytest.mark.skipif(
    sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's; elsewhere children outlive a killed parent"
)
def test_children_die_with_a_supervisor_that_is_killed(tmp_path):
    code = f"""
import asyncio, sys
from pathlib import Path
from coordinator.infra.processes.children import Launch, LoggedProcess
from coordinator.infra.processes.supervisor import Supervisor

async def main():
    supervisor = Supervisor(print)
    for name in ("a", "b"):
        supervisor.keep(LoggedProcess(name, Launch([sys.executable, "-Iuc", {SLEEPS!r}]), Path({str(tmp_path)!r}) / name))
    while not all(state.pid and (Path({str(tmp_path)!r}) / state.name).read_text() for state in supervisor.states.values()):
        await asyncio.sleep(0.02)
    print([state.pid for state in supervisor.states.values()], flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=tmp_path
    ) as parent:
        pids = json.loads(parent.stdout.readline())
        assert all(is_alive(pid) for pid in pids)
        parent.kill()
        parent.wait()
    deadline = time.monotonic() + LIMIT_SECONDS
    while any(is_alive(pid) for pid in pids):
        assert time.monotonic() < deadline, "a child outlived its supervisor"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("code", "text"),
    [(0, "exit code 0"), (70, "exit code 70"), (-9, "killed by SIGKILL"), (-99, "killed by signal 99")],
)
def test_an_exit_is_told_in_words(code, text):
    assert describe_exit(code) == text


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("plain", "plain"),
        ('{"event": "crashed", "error": "no\\nluck", "exception": "Traceback ..."}', "crashed: no luck"),
        ('{"event": "aiokafka", "message": "gone"}', "aiokafka: gone"),
        ('{"half', '{"half'),
        ("{}", "{}"),
        ("x" * 300, "x" * 199 + "\N{HORIZONTAL ELLIPSIS}"),
    ],
)
def test_last_words_are_short(line, words):
    assert last_words(line) == words
