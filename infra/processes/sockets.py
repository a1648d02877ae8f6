"""Taking a TCP port, with a helpful error when it is taken.

Whoever starts others binds their ports and hands the sockets on: no port is lost between its choice and its use, nor
while a process is started again.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Iterable
from time import monotonic

from coordinator.streams.log.errors import OperatorError, WorldError
from coordinator.streams.setting_checks import PORT_MAX

POLL_SECONDS = 0.1
HANDED_ON = "COORDINATOR_SOCKETS"
"""The variable that tells a process which sockets it was given: `HOST:PORT=FD`, separated by spaces."""


def listen(host: str, port: int, option: str) -> socket.socket:
    """A listening socket, the one handed on for this place where there is one.

    It listens at once: of two that are only bound, with SO_REUSEADDR, each has the port until one of them listens.
    Whoever calls before its process accepts waits.

    Raises OperatorError naming the port, and the option that chooses another.
    """
    for part in os.environ.get(HANDED_ON, "").split():
        place, _, fd = part.rpartition("=")
        if place == f"{host}:{port}":
            return socket.socket(fileno=os.dup(int(fd)))
    if not 0 <= port <= PORT_MAX:
        raise OperatorError(
            f"port {port} is none: choose one from 0 (any free one) to {PORT_MAX} with {option}"
        )
    host = host.strip("[]")
    try:  # `localhost` may be ::1 alone: where a name leads is asked, not guessed
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
    except (socket.gaierror, UnicodeError) as error:
        raise OperatorError(
            f"{host!r} is not an address of this machine ({error}); choose another host"
        ) from error
    # The protocol is named because asyncio sends small answers at once (TCP_NODELAY) only then. Otherwise the second
    # write of an answer waits 40 ms for the acknowledgement of the first.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
        bound.listen()
    except OSError as error:
        bound.close()
        why = (
            "is taken by another process"
            if error.errno == errno.EADDRINUSE
            else f"cannot be used ({error.strerror})"
        )
        raise OperatorError(f"port {port} on {host} {why}; choose another with {option}") from error
    bound.set_inheritable(True)
    return bound


def handed_on(places: Iterable[tuple[str, int]], fds: Iterable[int]) -> dict[str, str]:
    """The variable for a process that has these file descriptors, each bound to its (host, port)."""
    pairs = zip(places, fds, strict=True)
    return {HANDED_ON: " ".join(f"{host}:{port}={fd}" for (host, port), fd in pairs)}


class HeldPorts:
    """Ports that are taken now, for the processes that will accept there, and kept while those come and go."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._bound: dict[tuple[str, int], socket.socket] = {}

    def hold(self, host: str, port: int, option: str, whose: str, *, named: bool) -> int:
        """The port that is held. Where this one is taken, a free one; raises OperatorError if it was `named`."""
        try:
            bound = listen(host, port, option)
        except OperatorError:
            if named:
                raise
            bound = listen(host, 0, option)
        port_held = int(bound.getsockname()[1])
        if port_held != port:
            self._say(f"port {port} was taken meanwhile; {whose} uses {port_held}")
        self._bound[host, port_held] = bound
        return port_held

    def socket_of(self, host: str, port: int) -> dict[tuple[str, int], socket.socket]:
        """What a child is handed."""
        return {(host, port): self._bound[host, port]}

    def close(self) -> None:
        """Let all of them go."""
        for bound in self._bound.values():
            bound.close()


async def told(event: asyncio.Event, who: str, seconds_max: float) -> None:
    """Wait until `event` says that somebody is up, whose port is open before. Raises WorldError after the bound."""
    try:
        async with asyncio.timeout(seconds_max):
            await event.wait()
    except TimeoutError:
        raise WorldError(
            f"{who} is not up after {seconds_max:g} s; its log is in the data directory"
        ) from None


async def listens(host: str, port: int, who: str, seconds_max: float) -> None:
    """Wait until somebody accepts connections there. Raises WorldError after the bound."""
    deadline = monotonic() + seconds_max
    while monotonic() < deadline:
        try:
            _, writer = await asyncio.open_connection(host, port)
        except OSError:
            await asyncio.sleep(POLL_SECONDS)
        else:
            writer.close()
            return
    raise WorldError(
        f"{who} does not listen on {host}:{port} after {seconds_max:g} s; its log is in the data directory"
    )
