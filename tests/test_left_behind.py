"""Containers left by a killed run are recognised by the process that started them."""

from __future__ import annotations

import os
import socket
import subprocess

from tests.broker.conftest import is_left_behind


def test_a_container_is_left_behind_if_its_process_of_this_machine_has_ended():
    ended = subprocess.Popen(["true"])
    ended.wait()
    host = socket.gethostname()
    assert is_left_behind(f"{host}/{ended.pid}")
    assert not is_left_behind(f"{host}/{os.getpid()}")
    assert not is_left_behind(f"another-machine/{ended.pid}")
