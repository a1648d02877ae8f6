"""`python -m coordinator.infra.models.host --models DIR --port N --crunch ID --log-dir D`.

Says `listening on 127.0.0.1:PORT` on stdout when every model was started, and `GET /models on ..` where an
`--http-port` was given; on SIGTERM or SIGINT it ends its children and exits 0. A wrong folder or port is one line on
stderr and exit code 2.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

from coordinator.infra.models.host.confine import NOT_CONFINED, TOKEN, hide_from_others
from coordinator.infra.models.host.host import ModelHost
from coordinator.infra.models.host.hosted_model import HOST
from coordinator.infra.models.host.limits import die_with_parent
from coordinator.infra.models.host.process import Limits
from coordinator.streams.log.errors import OperatorError


async def run(options: argparse.Namespace) -> None:
    """Run a host until a signal asks it to end. Raises OperatorError."""
    asked_to_end = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, asked_to_end.set)
    limits = Limits(
        call_limit_seconds=options.call_limit_seconds,
        memory_limit_mb=options.memory_limit_mb,
        listen_address=options.listen,
    )
    host = ModelHost(
        options.models,
        options.crunch,
        options.port,
        options.log_dir,
        limits,
        announce=options.announce,
        token=os.environ.get(TOKEN, ""),
    )
    read_side = None
    if options.http_port is not None:
        from coordinator.infra.models.host.read_side import ReadSide  # noqa: PLC0415 - 15 MB that a host without it saves

        try:
            read_side = ReadSide(host, options.crunch, options.listen, options.http_port)
        except OperatorError:
            if not options.http_port_or_any:
                raise
            read_side = ReadSide(host, options.crunch, options.listen, 0)
        read_side.start()
    starting = asyncio.create_task(host.start())
    ending = asyncio.create_task(asked_to_end.wait())
    try:
        await asyncio.wait([starting, ending], return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            return  # asked to end before it was up: the children started so far are ended below
        port = await starting
        if host.unconfined:
            sys.stdout.write(f"{NOT_CONFINED}: {', '.join(host.unconfined)}\n")
        sys.stdout.write(f"listening on {options.listen}:{port}\n")
        if read_side is not None:
            sys.stdout.write(f"GET /models on {options.listen}:{read_side.port}\n")
        sys.stdout.flush()
        await ending
    finally:
        starting.cancel()
        ending.cancel()
        if read_side is not None:
            await read_side.stop()
        await host.stop()


def main() -> None:
    """Parse the options and run."""
    parser = argparse.ArgumentParser(
        prog="python -m coordinator.infra.models.host", description="local model host"
    )
    parser.add_argument("--models", type=Path, required=True, help="folder with one folder per model")
    parser.add_argument("--port", type=int, required=True, help="0 takes any free port")
    parser.add_argument("--http-port", type=int, help="serve GET /models there; 0 takes any free port")
    parser.add_argument(
        "--http-port-or-any", action="store_true", help="any free port where that one is taken"
    )
    parser.add_argument(
        "--listen", default=HOST, help="address for coordinators and calls; they carry no key"
    )
    parser.add_argument("--announce", help="address that coordinators are told; default: that of --listen")
    parser.add_argument("--crunch", required=True, help="crunch id: the path that coordinators connect to")
    parser.add_argument("--log-dir", type=Path, required=True, help="model logs and working copies")
    parser.add_argument("--call-limit-seconds", type=float, default=Limits().call_limit_seconds)
    parser.add_argument("--memory-limit-mb", type=int, default=Limits().memory_limit_mb, help="0: no limit")
    parser.add_argument("--die-with-parent", action="store_true", help="end when the starting process dies")
    options = parser.parse_args()
    if options.die_with_parent:
        die_with_parent(os.getppid(), signal.SIGTERM)
    hide_from_others()  # the token is in the environment
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s", stream=sys.stderr)
    logging.getLogger("websockets").setLevel(logging.WARNING)
    try:
        asyncio.run(run(options))
    except OperatorError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
