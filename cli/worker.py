"""`coordinator worker NAME`: one worker alone, which is what a cluster runs."""

from __future__ import annotations

import json
import os
import sys
from typing import Annotated

import typer

from coordinator.cli.shared import one_of
from coordinator.cli.start_checks import check_start
from coordinator.infra.models.host.confine import hide_from_others
from coordinator.infra.processes.forking import keep_from_the_collector
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.settings import Settings, read_settings
from coordinator.streams.topology import WORKERS

REPORT = "report"


def worker(
    name: Annotated[
        str,
        typer.Argument(
            help=f"One of {', '.join(WORKERS)}.", show_default=False, autocompletion=one_of(lambda: WORKERS)
        ),
    ],
) -> None:
    """Run one worker until SIGTERM, with settings from the environment.

    Create the topics first (`coordinator topics create`). A second instance of the same worker is a hot standby.

    Example: [bold]KAFKA_BOOTSTRAP=kafka-1:9092 CRUNCH_ID=btc-up coordinator worker score[/bold]
    """
    if name not in WORKERS:
        raise OperatorError(f"there is no worker {name!r}; choose one of {', '.join(WORKERS)}")
    run(name, wait=False)


def run(name: str, *, wait: bool) -> None:
    """Run the worker. With `wait` its settings come as one line of JSON from stdin, on top of the environment: a
    supervisor starts it while it still starts the rest.

    Raises OperatorError and what a worker raises.
    """
    # Seconds of imports: done before the settings are asked for, while a supervisor still starts the rest.
    if name == REPORT:
        from coordinator.api.server import serve  # noqa: PLC0415
        from coordinator.infra.processes.json_logs import name_crunch, set_up_logging  # noqa: PLC0415

        hide_from_others()
        set_up_logging(name)
        settings = _settings(name, wait=wait)
        name_crunch(settings.crunch_id)
        keep_from_the_collector()
        serve(settings)
        return
    hide_from_others()
    from coordinator.streams.agents.workers import run_worker  # noqa: PLC0415

    if name == "predict":
        from coordinator.infra.models import gateway as model_gateway  # noqa: F401, PLC0415

    settings = _settings(name, wait=wait)
    keep_from_the_collector()
    run_worker(name, settings)


def _settings(name: str, *, wait: bool) -> Settings:
    environ = _environment(wait=wait)
    settings = read_settings(environ)
    check_start(settings, environ, (name,))
    return settings


def _environment(*, wait: bool) -> dict[str, str]:
    """The environment, and on top of it what the supervisor says once all is there that a worker needs."""
    if not wait:
        return dict(os.environ)
    line = sys.stdin.readline()
    if not line:
        raise OperatorError("the supervisor ended before the node was up")
    variables: dict[str, str] = json.loads(line)
    return dict(os.environ) | variables
