"""Wires that take their time: `wires.py NEAR FAR NEAR FAR ...`. Needs root; ends with its stdin.

Each wire joins two TAP devices, which this process makes. What one end sends comes out at the other after the delay
that the wire has in this direction, in the order in which it was sent; some frames are lost. A line on stdin is an
`Order` as JSON, and "done" on stdout answers when it is in force.
"""

from __future__ import annotations

import errno
import fcntl
import os
import random
import select
import struct
import sys
import time
from collections import deque

import msgspec

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000
FRAME_BYTES_MAX = 65_536
FRAMES_AT_ONCE = 64
"""Read from one end before the other ends have their turn."""
IPV4 = b"\x08\x00"
KIND_AT, FROM_AT, TO_AT = slice(12, 14), slice(26, 30), slice(30, 34)
"""Where an Ethernet frame has its kind, and an IPv4 packet in it its addresses."""
NOBODY_THERE = (errno.EIO, errno.EAGAIN, errno.ENOBUFS)
"""The device is down, or its queue is full: what is sent is lost."""


class Manner(msgspec.Struct, frozen=True):
    """How a wire carries what is sent in one direction."""

    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    """Up to so much is added to the delay, frame by frame; none overtakes another."""
    lost_share: float = 0.0
    never_to_or_from: list[str] = []
    """IPv4 addresses: packets from and to them are lost."""


class Order(msgspec.Struct, frozen=True):
    """From now on the wire carries so what its near end sends (`out`), and what it receives (`back`)."""

    wire: int
    out: Manner = Manner()
    back: Manner = Manner()


class _Way:
    """One direction of a wire."""

    def __init__(self, source: int, sink: int) -> None:
        self.source, self._sink = source, sink
        self._under_way: deque[tuple[float, bytes]] = deque()
        self.set(Manner())

    def set(self, manner: Manner) -> None:
        self._manner = manner
        self._barred = {bytes(map(int, address.split("."))) for address in manner.never_to_or_from}

    def take(self) -> None:
        """Take what the source has sent."""
        for _ in range(FRAMES_AT_ONCE):
            try:
                frame = os.read(self.source, FRAME_BYTES_MAX)
            except BlockingIOError:
                return
            if not self._is_lost(frame):
                wanted = self._manner.delay_ms + random.uniform(0, self._manner.jitter_ms)
                due = time.monotonic() + wanted / 1000
                self._under_way.append((max(due, self._under_way[-1][0] if self._under_way else 0.0), frame))

    def _is_lost(self, frame: bytes) -> bool:
        if self._manner.lost_share and random.random() < self._manner.lost_share:
            return True
        return (
            bool(self._barred)
            and frame[KIND_AT] == IPV4
            and not self._barred.isdisjoint((frame[FROM_AT], frame[TO_AT]))
        )

    def hand_over(self, now: float) -> float | None:
        """Hand over what is due; gives when the next frame is, None if there is none."""
        while self._under_way:
            due, frame = self._under_way[0]
            if due > now:
                return due
            self._under_way.popleft()
            try:
                os.write(self._sink, frame)
            except OSError as error:
                if error.errno not in NOBODY_THERE:
                    raise
        return None


def _tap(name: str) -> int:
    """A new TAP device; it goes with this process, into whatever namespace it is moved."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    return descriptor


def main() -> None:
    os.nice(-10 - os.nice(0))  # a wire does not wait for a processor
    taps = [_tap(name) for name in sys.argv[1:]]
    wires = [(_Way(near, far), _Way(far, near)) for near, far in zip(taps[::2], taps[1::2], strict=True)]
    ways = {way.source: way for wire in wires for way in wire}
    orders = b""
    waiting = select.epoll()
    for source in (0, *ways):
        waiting.register(source, select.EPOLLIN)
    os.write(1, b"done\n")
    next_due: float | None = None
    while True:
        wait = -1 if next_due is None else max(0.0, next_due - time.monotonic())
        for source, _ in waiting.poll(wait):
            if source:
                ways[source].take()
                continue
            if not (more := os.read(0, FRAME_BYTES_MAX)):
                return
            *lines, orders = (orders + more).split(b"\n")
            for line in lines:
                order = msgspec.json.decode(line, type=Order)
                for way, manner in zip(wires[order.wire], (order.out, order.back), strict=True):
                    way.set(manner)
                os.write(1, b"done\n")
        now = time.monotonic()
        next_due = min(
            (due for way in ways.values() if (due := way.hand_over(now)) is not None), default=None
        )


if __name__ == "__main__":
    main()
