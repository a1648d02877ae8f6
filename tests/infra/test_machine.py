"""Properties and limits of the machine: ports, open files, an event loop that hangs, folders with other characters."""

from __future__ import annotations

import resource
import socket
import subprocess
import sys

import pytest
from tests.waiting import LIMIT_SECONDS

from coordinator.infra.kafka import embedded as broker_module
from coordinator.infra.kafka.broker_settings import server_properties
from coordinator.infra.kafka.embedded import EmbeddedBroker, PortTakenError, free_ports
from coordinator.infra.processes.children import BrokerProcess
from coordinator.infra.processes.open_files import OPEN_FILES_WANTED, allow_open_files, too_few_open_files
from coordinator.infra.processes.sockets import listen
from coordinator.streams.log.errors import OperatorError

HANGS = """
import asyncio, time
from coordinator.infra.processes.loop_watch import watch_loop

async def main():
    watching = asyncio.create_task(watch_loop("", hangs_seconds=0.3))
    await asyncio.sleep(0.1)
    time.sleep(60)

asyncio.run(main())
"""


def test_free_ports_are_outside_the_kernels_range_for_outgoing_connections():
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert all(port in broker_module.PORTS for port in ports)


async def test_a_restarted_broker_waits_for_its_port(tmp_path, monkeypatch):
    tries = []

    class Broker(EmbeddedBroker):
        def start(self, *_args, **_more):
            tries.append(1)
            if len(tries) < 3:
                raise PortTakenError("port 9092 is taken")

    monkeypatch.setattr("coordinator.infra.processes.children.PORT_POLL_SECONDS", 0.01)
    process = BrokerProcess(Broker(tmp_path))
    process.is_known = True
    await process.start()
    assert len(tries) == 3


async def test_a_taken_port_that_nobody_knows_yet_is_replaced_by_a_free_one(tmp_path):
    taken = 9092

    class Broker(EmbeddedBroker):
        def start(self, *_args, **_more):
            if self.port == taken:
                raise PortTakenError("port 9092 is taken")

    broker = Broker(tmp_path, taken)
    await BrokerProcess(broker).start()
    assert broker.port != taken


def test_the_time_to_start_and_to_stop_follows_the_size_of_the_log(tmp_path):
    broker = EmbeddedBroker(tmp_path)
    small = broker.start_seconds_max, broker.stop_seconds_max
    segment = tmp_path / "log" / "btc-up.feeds-0" / "00000000000000000000.log"
    segment.parent.mkdir(parents=True)
    with segment.open("wb") as file:
        file.truncate(10 * 1024**3)  # a sparse file: it takes no room
    assert broker.start_seconds_max > small[0] + 600
    assert broker.stop_seconds_max > small[1] + 60


def test_a_full_disk_is_named_and_not_a_stack_trace(tmp_path):
    broker = EmbeddedBroker(tmp_path)
    broker.log_file.write_text(
        "ERROR Error while writing\njava.io.IOException: No space left on device\n\tat x\n"
    )
    assert broker.disk_is_full
    assert (
        BrokerProcess(broker).last_line == f"the disk of {tmp_path} is full: make room, nothing else is lost"
    )


@pytest.mark.parametrize(
    ("value", "escaped"),
    [
        ("a/b", "a/b"),
        ("dü", "d\\u00fc"),
        ("back\\slash", "back\\u005cslash"),
        (" x ", "\\u0020x\\u0020"),
        ("😀", "\\ud83d\\ude00"),
        ("a\nb=c", "a\\u000ab=c"),
    ],
)
def test_a_value_of_the_brokers_settings_is_read_by_java_unchanged(value, escaped):
    text = server_properties(
        node_id=1, port=1, controller_port=2, voters={1: 2}, log_dir="log", more={"x.y": value}
    )
    assert f"x.y={escaped}\n" in text


def test_a_process_whose_event_loop_hangs_ends_itself_and_shows_where():
    ended = subprocess.run(
        [sys.executable, "-Ic", HANGS], capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False
    )
    assert ended.returncode == 70
    assert "hangs: the event loop has not come round" in ended.stderr
    assert "time.sleep" in ended.stderr or "in main" in ended.stderr


def test_the_limit_of_open_files_is_raised_as_far_as_allowed():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, before[1]))
        assert allow_open_files() == resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 512
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert f"ulimit -n {OPEN_FILES_WANTED}" in too_few_open_files(256)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1", "[::1]"])
def test_a_host_is_listened_on_at_the_addresses_of_its_name(host):
    if ":" in host and not _has_ipv6():
        pytest.skip("this machine has no IPv6")
    listen(host, 0, "API_HOST").close()


def test_a_localhost_with_ipv6_alone_is_listened_on(monkeypatch):
    if not _has_ipv6():
        pytest.skip("this machine has no IPv6")
    addresses = [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 0, 0, 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_a, **_k: addresses)
    bound = listen("::1", 0, "API_HOST")
    assert bound.family == socket.AF_INET6
    bound.close()


def test_an_unknown_host_is_named():
    with pytest.raises(OperatorError, match=r"no-such-host\.invalid"):
        listen("no-such-host.invalid", 0, "API_HOST")


def _has_ipv6() -> bool:
    try:
        socket.socket(socket.AF_INET6).bind(("::1", 0))
    except OSError:
        return False
    return True
