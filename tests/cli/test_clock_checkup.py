"""The check of the clock: against a source that tells its time, and an NTP server over real UDP."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from coordinator.cli import checkup_node
from coordinator.cli.checkup import State
from coordinator.infra.ntp import ntp_time_ms
from coordinator.streams.log.errors import WorldError
from coordinator.streams.settings import Settings

NOW = 1_700_000_000_500


class _Ntp(asyncio.DatagramProtocol):
    def __init__(self, time_ms: int, stratum: int, *, silent: bool, forged: bool) -> None:
        self.time_ms, self.stratum, self.silent, self.forged = time_ms, stratum, silent, forged

    def connection_made(self, transport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr) -> None:
        if self.silent:
            return
        seconds, ms = divmod(self.time_ms, 1000)
        stamp = struct.pack("!II", seconds + 2_208_988_800, (ms << 32) // 1000)
        origin = b"x" * 8 if self.forged else data[40:48]
        head = struct.pack("!BB22x", 0x24, self.stratum)
        self.transport.sendto(head + origin + bytes(8) + stamp, addr)


@asynccontextmanager
async def ntp_server(
    time_ms: int = NOW, stratum: int = 2, *, silent: bool = False, forged: bool = False
) -> AsyncIterator[str]:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(
        lambda: _Ntp(time_ms, stratum, silent=silent, forged=forged), local_addr=("127.0.0.1", 0)
    )
    try:
        yield f"127.0.0.1:{transport.get_extra_info('sockname')[1]}"
    finally:
        transport.close()


async def test_the_time_of_an_ntp_server_is_read_to_the_millisecond():
    async with ntp_server() as server:
        assert abs(await ntp_time_ms(server) - NOW) <= 1


@pytest.mark.parametrize("fault", [{"stratum": 0}, {"stratum": 16}, {"silent": True}, {"forged": True}])
async def test_an_implausible_ntp_server_is_named(fault):
    async with ntp_server(**fault) as server:
        with pytest.raises(WorldError, match=f"NTP_SERVER {server}"):
            await ntp_time_ms(server, 0.2)


@pytest.mark.parametrize(
    ("off_seconds", "state", "says"),
    [
        (0, State.OK, "agrees with"),
        (86_400, State.FAULT, "86400 s ahead of"),
        (-60, State.FAULT, "60 s behind"),
    ],
)
async def test_the_check_up_compares_the_clock(off_seconds, state, says):
    async with ntp_server() as server:
        settings = Settings(feed_source="generated", ntp_server=server)
        (finding,) = await checkup_node.clock(settings, lambda: NOW + off_seconds * 1000)
    assert finding.state is state
    assert says in finding.says


async def test_nobody_is_asked_unless_the_source_can_tell_or_a_server_is_named():
    (finding,) = await checkup_node.clock(Settings(feed_source="generated"), lambda: NOW)
    assert finding.state is State.OK
    assert "NTP_SERVER=HOST" in finding.says
