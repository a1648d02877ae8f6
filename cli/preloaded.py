"""The process that `up` forks its workers from: it has imported everything that any of them needs, and no setting.

A contract, a source or a model's code is never imported here, so a restarted worker reads its current code.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys

import typer

import coordinator.api.server
import coordinator.infra.models.gateway
import coordinator.streams.agents.workers  # noqa: F401
from coordinator.cli.lazy_groups import clear_end
from coordinator.cli.worker import run
from coordinator.infra.models.host.confine import hide_from_others
from coordinator.infra.processes.forking import forked
from coordinator.infra.processes.sockets import handed_on

IMPORTED_LATE = (
    *("faust.transport.drivers.aiokafka", "faust.tables.manager", "faust.assignor.leader_assignor"),
    *("faust.assignor.partition_assignor", "faust.app.router", "faust.worker", "faust.fixups.django"),
    *("faust.topics", "faust.events", "faust.stores.base", "faust.tables.objects", "faust.tables.sets"),
    *("faust.transport.utils", "typer._click.decorators"),
    *("pydantic.v1", "uvicorn.lifespan.off", "typer._adapters", "encodings.idna"),
)
"""What libraries import when they are first used, which would be in every fork."""


def import_all() -> None:
    """Import what is imported late, and let `inspect` look at every module's file. Faust asks it where each agent is
    declared, and it keeps what it has seen: every worker would spend a tenth of a second on it, and ten megabytes of
    pages that it shares till then.
    """
    for name in IMPORTED_LATE:
        importlib.import_module(name)
    inspect.getmodule(compile("", "<of no module>", "exec"))


def serve() -> None:
    """Fork workers until nobody asks any more; in a fork, be that worker."""
    hide_from_others()
    import_all()
    fork = forked(sys.argv)
    if fork is not None:
        request, fds = fork
        os.environ |= handed_on(request["sockets"], fds)
        try:
            with clear_end():
                run(request["arguments"][0], wait=True)
        except typer.Exit as end:
            sys.exit(end.exit_code)


if __name__ == "__main__":
    serve()
