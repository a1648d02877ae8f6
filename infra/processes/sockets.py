"""Taking a TCP port, with a helpful error when it is taken."""

from __future__ import annotations

import errno
import socket

from coordinator.streams.log.errors import OperatorError

PORT_MAX = 65_535


def listen(host: str, port: int, option: str) -> socket.socket:
    """A bound socket. Raises OperatorError naming the port, and the option that chooses another."""
    if not 0 <= port <= PORT_MAX:
        raise OperatorError(
            f"port {port} is none: choose one from 0 (any free one) to {PORT_MAX} with {option}"
        )
    host = host.strip("[]")
    try:  # `localhost` may be ::1 alone: where a name leads is asked, not guessed
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
    except (socket.gaierror, UnicodeError) as error:
        raise OperatorError(
            f"{host!r} is no address of this machine ({error}); choose another host"
        ) from error
    # The protocol is named, since asyncio sends small answers at once (TCP_NODELAY) only where it is: else the second
    # write of an answer waits 40 ms for the first one's acknowledgement.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
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
