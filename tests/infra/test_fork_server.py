"""Forked workers and models: what they get, how they end, and what happens when their server ends."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import pytest

from coordinator.infra.processes.fork_server import ForkServer
from coordinator.infra.processes.forking import FORKS

PROGRAM = """
import os, sys, time
from coordinator.infra.processes.forking import forked
found = forked(sys.argv)
if found is not None:
    request, fds = found
    exec(request["code"])
"""


@pytest.fixture
async def server(tmp_path):
    fork_server = ForkServer([sys.executable, "-Iuc", PROGRAM], {"FROM": "the server"})
    yield fork_server
    fork_server.stop()


async def forked(server, code: str, **request):
    """(the process, the end of a pipe that it writes to as its stdout)"""
    reading, writing = os.pipe()
    null = os.open(os.devnull, os.O_RDONLY)
    try:
        return await server.fork({"code": code, **request}, (null, writing, writing)), reading
    finally:
        os.close(writing)
        os.close(null)


async def output_of(reading: int) -> str:
    with os.fdopen(reading, "rb") as file:
        return (await asyncio.to_thread(file.read)).decode().strip()


async def test_a_fork_has_its_own_output_environment_folder_and_session(server, tmp_path):
    code = "print(dict(os.environ), os.getcwd(), os.getsid(0) == os.getpid(), sys.stdin.read() == '')"
    child, reading = await forked(server, code, environ={"A": "1"}, cwd=str(tmp_path))
    assert await output_of(reading) == f"{{'A': '1'}} {tmp_path} True True"
    assert await child.wait() == 0


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [("", 0), ("sys.exit(2)", 2), ("raise ValueError", 1), ("os.kill(os.getpid(), 9)", -9)],
)
async def test_the_exit_code_is_reported(server, code, exit_code):
    child, reading = await forked(server, code)
    os.close(reading)
    assert await child.wait() == exit_code == child.returncode
    child.terminate()  # it has ended: nothing happens


async def test_a_fork_can_be_asked_to_end(server):
    child, reading = await forked(server, "os.write(1, b'up'); time.sleep(60)")
    assert await asyncio.to_thread(os.read, reading, 10) == b"up"
    child.terminate()
    assert await child.wait() == -signal.SIGTERM
    os.close(reading)


@pytest.mark.skipif(not FORKS, reason="nothing is forked here")
async def test_after_a_kill_of_the_server_its_forks_are_gone_and_the_next_request_starts_another(server):
    child, reading = await forked(server, "time.sleep(60)")
    os.kill(server._life._process.pid, signal.SIGKILL)
    assert await child.wait() == -signal.SIGKILL
    assert await output_of(reading) == ""  # its output is closed: the kernel has ended it too
    child, reading = await forked(server, "print('again')")
    assert await output_of(reading) == "again"
    assert await child.wait() == 0


@pytest.mark.skipif(not FORKS, reason="nothing is forked here")
async def test_a_fork_has_nothing_open_but_what_it_was_given(server):
    child, reading = await forked(server, "print(sorted(map(int, os.listdir('/proc/self/fd'))))")
    assert await output_of(reading) == "[0, 1, 2, 3]"  # 3 is the listing itself
    await child.wait()


async def test_a_program_that_cannot_import_is_not_retried_for_ever():
    from coordinator.streams.log.errors import WorldError

    server = ForkServer([sys.executable, "-Ic", "import no_such_module"], os.environ)
    with pytest.raises(WorldError, match="ends before it has started one"):
        await forked(server, "")
    server.stop()


ASKS = """
import asyncio, os, signal, sys
from coordinator.infra.processes.fork_server import ForkServer
from coordinator.infra.processes.forking import forked

def serve():
    if (fork := forked(sys.argv)) is not None:
        exec(fork[0]["code"])

async def ask(server, code):
    null = os.open(os.devnull, os.O_RDONLY)
    child = await server.fork({"code": code}, (null, 1, 2))
    os.close(null)
    print(await child.wait(), flush=True)

async def main():
    await ask(server, "print(os.environ['FROM'], here, sorted(map(int, os.listdir('/proc/self/fd'))))")
    await ask(server, "sys.exit(2)")
    await ask(server, "sys.exit('a reason')")
    await ask(server, "raise ValueError")
    os.kill(server._life._process.pid, signal.SIGKILL)
    server._life._process.wait()  # it is gone, and the event loop has not heard of it yet
    await ask(server, "print('here' in globals())")

here = "shared"
file = open(os.devnull)
server = ForkServer([sys.executable, "-Iuc", PROGRAM], {"FROM": "the server"})
server.start(serve)
print(os.environ["FROM"], sys.argv, file.closed, flush=True)
asyncio.run(main())
server.stop()
server.stop()
"""


@pytest.mark.skipif(not FORKS, reason="nothing is forked here")
def test_a_server_forked_from_the_caller_is_like_a_started_one_and_after_its_end_one_is_started():
    done = subprocess.run(
        [sys.executable, "-Iuc", ASKS.replace("PROGRAM", repr(PROGRAM)), "mine"],
        capture_output=True, text=True, check=True, env={"FROM": "who asks"},
    )  # fmt: skip
    assert done.stdout.split("\n") == [
        "who asks ['-c', 'mine'] False",
        "the server shared [0, 1, 2, 3]",  # 3 is the listing itself
        *("0", "2", "1", "1"),
        "False",
        *("0", ""),
    ]
    assert "a reason" in done.stderr
    assert "ValueError" in done.stderr
