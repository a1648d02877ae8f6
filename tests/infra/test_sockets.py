"""Invalid ports, and ports that are reserved."""

from __future__ import annotations

import pytest

from coordinator.infra.processes.sockets import HeldPorts, listen
from coordinator.streams.log.errors import OperatorError


@pytest.mark.parametrize("port", [-1, 65_536, 99_999, 10**30])
def test_an_invalid_port_is_refused_by_the_options_name(port):
    with pytest.raises(OperatorError, match=rf"port {port} is none: choose one from 0 .* with --port"):
        listen("127.0.0.1", port, "--port")


def test_a_port_is_reserved_before_anybody_accepts_on_it():
    """Two sockets that are only bound, each with SO_REUSEADDR as servers are, would both get it."""
    with listen("127.0.0.1", 0, "--port") as first:
        port = first.getsockname()[1]
        with pytest.raises(OperatorError, match=f"port {port} on 127.0.0.1 is taken by another process"):
            listen("127.0.0.1", port, "--port")


def test_of_two_nodes_that_start_at_once_one_takes_another_port():
    told: list[str] = []
    nodes = [HeldPorts(told.append) for _ in range(2)]
    first = nodes[0].hold("127.0.0.1", 0, "--port", "the model host", named=False)
    told.clear()
    second = nodes[1].hold("127.0.0.1", first, "--port", "the model host", named=False)
    assert second != first
    assert told == [f"port {first} was taken meanwhile; the model host uses {second}"]
    for node in nodes:
        node.close()
