"""`coordinator` on a PATH, for shells that a test runs: each call is a fork (`forked.py`) with the caller's folder,
variables and terminal. Without it, a page with a dozen calls would spend most of its CPU on imports.

`coordinator up` is the installed command itself, because it is ended by Ctrl-C and forks workers of its own.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from pathlib import Path
from typing import Self

from tests.forked import start_with

ASKED_BYTES_MAX = 128 * 1024
SCRIPT = """#!{python} -IS
import json, os, socket, sys
if sys.argv[1:2] == ["up"]:
    os.execv({installed!r}, [{installed!r}, *sys.argv[1:]])
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
    asking.connect({address!r})
    asked = {{"arguments": sys.argv[1:], "environ": dict(os.environ), "cwd": os.getcwd()}}
    socket.send_fds(asking, [json.dumps(asked).encode()], [0, 1, 2])
    code = int(asking.recv(16))
sys.exit(code if code >= 0 else 128 - code)
"""


class ForkedCommand:
    """The command `coordinator` in `folder`, for the duration of a `with` block."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def __enter__(self) -> Self:
        address = str(self.folder / "asked")
        self._listening.bind(address)
        self._listening.listen()
        installed = str(Path(sys.executable).with_name("coordinator"))
        command = self.folder / "coordinator"
        command.write_text(SCRIPT.format(python=sys.executable, installed=installed, address=address))
        command.chmod(0o755)
        threading.Thread(target=self._listen, daemon=True, name="forked command").start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _listen(self) -> None:
        while True:
            try:
                asking, _ = self._listening.accept()
            except OSError:  # closed by `__exit__`
                return
            threading.Thread(target=_answer, args=(asking,), daemon=True, name="forked command").start()


def _answer(asking: socket.socket) -> None:
    with asking:
        body, fds, _, _ = socket.recv_fds(asking, ASKED_BYTES_MAX, 3)
        try:
            child = start_with({"name": "reader"} | json.loads(body), fds)
        finally:
            for fd in fds:
                os.close(fd)
        asking.send(str(child.wait()).encode())
