"""Forked workers and models: what they get, how they end, and what the end of their server is."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import pytest

from coordinator.infra.processes.fork_server import FORKS, ForkServer

PROGRAM = """
import os, sys, time
from coordinator.infra.processes.fork_server import forked
found = forked(sys.argv)
if found is not None:
    request, fds = found
    exec(request["code"])
"""


@pytest.fixture
async def server(tmp_path):
    made = ForkServer([sys.executable, "-Iuc", PROGRAM], {"FROM": "the server"})
    yield made
    made.stop()


async def forked(server, code: str, **request):
    """(the process, the end of a pipe that it writes to as its stdout)"""
    reading, writing = os.pipe()
    null = os.open(os.devnull, os.O_RDONLY)
    try:
        return await server.fork({"code": code, **request}, (null, writing, writing)), reading
    finally:
        os.close(writing)
        os.close(null)


async def said(reading: int) -> str:
    with os.fdopen(reading, "rb") as file:
        return (await asyncio.to_thread(file.read)).decode().strip()


async def test_a_fork_has_its_own_output_environment_folder_and_session(server, tmp_path):
    code = "print(dict(os.environ), os.getcwd(), os.getsid(0) == os.getpid(), sys.stdin.read() == '')"
    child, reading = await forked(server, code, environ={"A": "1"}, cwd=str(tmp_path))
    assert await said(reading) == f"{{'A': '1'}} {tmp_path} True True"
    assert await child.wait() == 0


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [("", 0), ("sys.exit(2)", 2), ("raise ValueError", 1), ("os.kill(os.getpid(), 9)", -9)],
)
async def test_the_exit_code_is_told(server, code, exit_code):
    child, reading = await forked(server, code)
    os.close(reading)
    assert await child.wait() == exit_code == child.returncode
    child.terminate()  # it is over: nothing happens


async def test_it_is_asked_to_end(server):
    child, reading = await forked(server, "os.write(1, b'up'); time.sleep(60)")
    assert await asyncio.to_thread(os.read, reading, 10) == b"up"
    child.terminate()
    assert await child.wait() == -signal.SIGTERM
    os.close(reading)


@pytest.mark.skipif(not FORKS, reason="nothing is forked here")
async def test_when_the_server_is_killed_its_forks_are_gone_and_the_next_request_has_another(server):
    child, reading = await forked(server, "time.sleep(60)")
    os.kill(server._one._process.pid, signal.SIGKILL)
    assert await child.wait() == -signal.SIGKILL
    assert await said(reading) == ""  # its output is closed: the kernel has ended it too
    child, reading = await forked(server, "print('again')")
    assert await said(reading) == "again"
    assert await child.wait() == 0


@pytest.mark.skipif(not FORKS, reason="nothing is forked here")
async def test_a_fork_holds_nothing_open_but_what_it_was_given(server):
    child, reading = await forked(server, "print(sorted(map(int, os.listdir('/proc/self/fd'))))")
    assert await said(reading) == "[0, 1, 2, 3]"  # 3 is the listing itself
    await child.wait()


async def test_a_program_that_cannot_import_is_no_endless_try():
    from coordinator.streams.log.errors import WorldError

    server = ForkServer([sys.executable, "-Ic", "import no_such_module"], os.environ)
    with pytest.raises(WorldError, match="ends before it has started one"):
        await forked(server, "")
    server.stop()
