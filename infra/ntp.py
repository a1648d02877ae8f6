"""What time an NTP server says it is: one question over UDP (SNTP, RFC 4330), to a server that the operator named."""

from __future__ import annotations

import asyncio
import struct
import time

from coordinator.streams.log.errors import WorldError
from coordinator.streams.setting_checks import host_port

NTP_PORT = 123
ANSWER_BYTES = 48
SECONDS_MAX = 3.0
_CLIENT_V4 = 0x23
_SERVER_MODE = 4
_STRATUM_MAX = 15
_EPOCH_SECONDS = 2_208_988_800
"""From 1900 to 1970."""


class _Question(asyncio.DatagramProtocol):
    def __init__(self, asked: bytes) -> None:
        self._asked = asked
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, _addr: object) -> None:
        # The server says back the time stamp that we sent: what does not is not the answer to this question.
        if len(data) >= ANSWER_BYTES and data[24:32] == self._asked[40:48] and not self.answer.done():
            self.answer.set_result(data[:ANSWER_BYTES])

    def error_received(self, exc: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(exc)


async def ntp_time_ms(server: str, seconds_max: float = SECONDS_MAX) -> int:
    """The server's time, ms since 1970; `server` is HOST or HOST:PORT. Raises WorldError when it does not say,
    OperatorError for what is no server.
    """
    host, port = host_port("NTP_SERVER", server, NTP_PORT)
    asked = struct.pack("!B39xQ", _CLIENT_V4, time.monotonic_ns() & (1 << 64) - 1)
    loop = asyncio.get_running_loop()
    transport = None
    try:
        async with asyncio.timeout(seconds_max):
            transport, question = await loop.create_datagram_endpoint(
                lambda: _Question(asked), remote_addr=(host, port)
            )
            transport.sendto(asked)
            answer = await question.answer
    except (OSError, TimeoutError) as error:
        why = str(error) or f"no answer within {seconds_max:g} s"
        raise WorldError(f"NTP_SERVER {server}: {why}") from error
    finally:
        if transport is not None:
            transport.close()
    mode, stratum = answer[0] & 7, answer[1]
    if mode != _SERVER_MODE or not 1 <= stratum <= _STRATUM_MAX:
        raise WorldError(f"NTP_SERVER {server}: the server says that its own clock is not set")
    seconds: int
    fraction: int
    seconds, fraction = struct.unpack("!II", answer[40:48])
    return (seconds - _EPOCH_SECONDS) * 1000 + (fraction * 1000 >> 32)
