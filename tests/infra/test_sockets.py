"""Ports that are none, and hosts."""

from __future__ import annotations

import pytest

from coordinator.infra.processes.sockets import listen
from coordinator.streams.log.errors import OperatorError


@pytest.mark.parametrize("port", [-1, 65_536, 99_999, 10**30])
def test_a_port_that_is_none_is_refused_by_the_options_name(port):
    with pytest.raises(OperatorError, match=rf"port {port} is none: choose one from 0 .* with --port"):
        listen("127.0.0.1", port, "--port")
